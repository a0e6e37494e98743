//! The control task against a real server of `mesh-control` on loopback.

use std::sync::Mutex;

use mesh_control::{Client, Server};
use mesh_types::IdentitySeed;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    snapshot,
    stored::StoredRoster,
    testing::{Fleet, agent, name, network},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A controller as far as the agent can tell: answers from what the test puts here.
struct Desk {
    server: Server,
    roster: Mutex<Vec<u8>>,
    serial: Mutex<u64>,
    refuse: Mutex<Option<String>>,
    endpoints: Vec<SocketAddr>,
    reports: Mutex<Vec<Vec<SocketAddr>>>,
    clients: Mutex<Vec<Client>>,
}

impl Desk {
    fn open(identity: &IdentitySeed, fleet: &Fleet, serial: u64) -> Arc<Self> {
        let any = "127.0.0.1:0".parse().unwrap();
        Self::on(Server::bind(any, identity).unwrap(), fleet, serial)
    }

    fn on(server: Server, fleet: &Fleet, serial: u64) -> Arc<Self> {
        let desk = Arc::new(Self {
            server,
            roster: Mutex::new(fleet.roster(serial).to_file()),
            serial: Mutex::new(serial),
            refuse: Mutex::default(),
            endpoints: vec!["192.0.2.7:4193".parse().unwrap()],
            reports: Mutex::default(),
            clients: Mutex::default(),
        });
        tokio::spawn(desk.clone().run());
        desk
    }

    fn address(&self) -> SocketAddr {
        self.server.local_address()
    }

    async fn run(self: Arc<Self>) {
        while let Some(handshake) = self.server.accept().await {
            let Ok(client) = handshake.complete().await else {
                continue;
            };
            self.clients.lock().unwrap().push(client.clone());
            tokio::spawn(self.clone().serve(client));
        }
    }

    async fn serve(self: Arc<Self>, client: Client) {
        while let Ok(mut question) = client.next_question().await {
            let Ok(request) = question.request().await else {
                continue;
            };
            let (reply, attachment) = self.reply(request);
            let refused = matches!(reply, Reply::Refused { .. });
            let _ = question.answer(&reply, &attachment).await;
            if refused {
                return;
            }
        }
    }

    fn reply(&self, request: Request) -> (Reply, Vec<u8>) {
        let serial = Serial::try_from(*self.serial.lock().unwrap()).unwrap();
        let reply = match request {
            Request::Hello { endpoints, .. } => {
                self.reports.lock().unwrap().push(endpoints);
                match self.refuse.lock().unwrap().clone() {
                    Some(reason) => Reply::Refused { reason },
                    None => Reply::Welcome {
                        name: name("galena"),
                        serial,
                        time_millis: 0,
                        observed: self.address(),
                    },
                }
            }
            Request::Roster { have } if have == Some(serial) => Reply::UpToDate,
            Request::Roster { .. } => {
                return (
                    Reply::Roster { serial },
                    self.roster.lock().unwrap().clone(),
                );
            }
            Request::Report { endpoints } => {
                self.reports.lock().unwrap().push(endpoints);
                Reply::Done
            }
            Request::Endpoints { .. } => Reply::Endpoints {
                online: true,
                endpoints: self.endpoints.clone(),
            },
            Request::Push { .. } | Request::Join { .. } => Reply::Done,
        };
        (reply, Vec::new())
    }

    async fn announce(&self, fleet: &Fleet, serial: u64) {
        *self.roster.lock().unwrap() = fleet.roster(serial).to_file();
        *self.serial.lock().unwrap() = serial;
        let clients = self.clients.lock().unwrap().clone();
        for client in clients {
            let serial = Serial::try_from(serial).unwrap();
            let _ = client.notify(&Notice::Roster { serial }).await;
        }
    }
}

struct Node {
    agent: Arc<Agent>,
    state_dir: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The agent of galena, configured with one controller.
fn start(fleet: &Fleet, controller: SocketAddr, stored: Option<u64>) -> Node {
    let state_dir = tempfile::tempdir().unwrap();
    let agent = agent(fleet, "galena", &[controller], stored, state_dir.path());
    let task = tokio::spawn(supervise(agent.clone()));
    Node {
        agent,
        state_dir,
        task,
    }
}

/// Looks until `condition` holds. The states come and go by themselves, so looking is all there is.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect(what);
}

async fn serial_in_force(agent: &Agent, serial: u64) {
    let mut roster = agent.roster.subscribe();
    let wanted = roster.wait_for(|roster| {
        roster
            .as_ref()
            .is_some_and(|roster| roster.head().serial.get() == serial)
    });
    timeout(DEADLINE, wait(wanted)).await.expect("the roster");
}

async fn wait<T, E>(future: impl Future<Output = Result<T, E>>) {
    assert!(future.await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_machine_takes_the_roster_and_keeps_it_on_disk() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let node = start(&fleet, desk.address(), None);
    let before = snapshot::status(&node.agent);
    assert!(!before.node.admitted);
    assert_eq!(
        before.node.reason.as_deref(),
        Some("no roster yet, and no controller answers")
    );
    serial_in_force(&node.agent, 7).await;
    let stored = StoredRoster::in_dir(node.state_dir.path())
        .load(&network(), &[fleet.signer()])
        .unwrap();
    assert_eq!(stored.unwrap().head().serial.get(), 7);
    let status = snapshot::status(&node.agent);
    assert!(status.node.admitted);
    assert_eq!(status.node.reason, None);
    assert_eq!(status.node.name, Some(name("galena")));
    assert_eq!(status.peers.len(), 1);
    assert!(status.controllers[0].connected);
    assert_eq!(status.controllers[0].name, Some(name("cinnabar")));
    // The desk's clock stands at 1970.
    assert!(status.warnings[0].starts_with("clock differs by "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_roster_takes_effect_and_whom_it_removes_is_no_peer_any_more() {
    let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let node = start(&fleet, desk.address(), None);
    serial_in_force(&node.agent, 7).await;
    assert!(node.agent.overlay.links().contains_key(&name("pyrite")));
    fleet.members.remove(&name("pyrite"));
    desk.announce(&fleet, 8).await;
    serial_in_force(&node.agent, 8).await;
    assert!(!node.agent.overlay.links().contains_key(&name("pyrite")));
    assert!(node.agent.overlay.links().contains_key(&name("cinnabar")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_roster_that_nobody_spoke_of_is_found() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let node = start(&fleet, desk.address(), None);
    serial_in_force(&node.agent, 7).await;
    *desk.roster.lock().unwrap() = fleet.roster(8).to_file();
    *desk.serial.lock().unwrap() = 8;
    serial_in_force(&node.agent, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_of_a_stranger_or_with_a_lower_serial_is_not_taken() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let stranger = Fleet::new(&["cinnabar", "galena"]);
    let node = start(&fleet, "127.0.0.1:9".parse().unwrap(), Some(7));
    let take = async |file: Vec<u8>| node.agent.take_roster(&file).await;
    let forged = take(stranger.roster(9).to_file()).await;
    assert!(matches!(forged, Err(TakeRosterError::NotGenuine(_))));
    let warnings = snapshot::status(&node.agent).warnings;
    assert!(
        warnings[0].contains("which is none of the 1 trusted"),
        "{warnings:?}"
    );
    let older = take(fleet.roster(6).to_file()).await;
    assert!(matches!(older, Err(TakeRosterError::Refused(_))));
    assert!(!take(fleet.roster(7).to_file()).await.unwrap());
    assert_eq!(node.agent.serial().map(Serial::get), Some(7));
    assert!(take(fleet.roster(8).to_file()).await.unwrap());
    assert_eq!(node.agent.serial().map(Serial::get), Some(8));
    assert!(snapshot::status(&node.agent).warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_that_cannot_be_stored_is_in_force_all_the_same() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let node = start(&fleet, "127.0.0.1:9".parse().unwrap(), Some(7));
    std::fs::remove_dir_all(node.state_dir.path()).unwrap();
    let file = fleet.roster(8).to_file();
    assert!(node.agent.take_roster(&file).await.unwrap());
    assert_eq!(node.agent.serial().map(Serial::get), Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_machine_says_why_and_is_admitted_later() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let reason = "this key is not in the roster (serial 7)";
    *desk.refuse.lock().unwrap() = Some(reason.to_owned());
    let node = start(&fleet, desk.address(), None);
    until("the refusal", || {
        snapshot::status(&node.agent).node.reason.as_deref() == Some(reason)
    })
    .await;
    let controller = &snapshot::status(&node.agent).controllers[0];
    assert!(!controller.connected);
    assert_eq!(controller.reason, Some(format!("refused: {reason}")));
    *desk.refuse.lock().unwrap() = None;
    serial_in_force(&node.agent, 7).await;
    assert!(snapshot::status(&node.agent).node.admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_comes_back_after_the_controllers_restart() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let identity = fleet.seed_of("cinnabar");
    let desk = Desk::open(identity, &fleet, 7);
    let address = desk.address();
    let node = start(&fleet, address, None);
    serial_in_force(&node.agent, 7).await;
    desk.server.shutdown().await;
    until("the loss", || node.agent.connections().is_empty()).await;
    assert!(snapshot::status(&node.agent).node.admitted, "by its roster");
    drop(desk);
    let again = loop {
        // The port is free once the last clone of the old server is gone.
        match Server::bind(address, identity) {
            Ok(server) => break Desk::on(server, &fleet, 8),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    serial_in_force(&node.agent, 8).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_roster_does_not_name_is_not_spoken_to() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let impostor = crate::testing::seed();
    let desk = Desk::open(&impostor, &fleet, 8);
    let node = start(&fleet, desk.address(), Some(7));
    until("the reason", || {
        snapshot::status(&node.agent).controllers[0]
            .reason
            .as_ref()
            .is_some_and(|reason| reason.contains("which is no controller's"))
    })
    .await;
    assert_eq!(node.agent.serial().map(Serial::get), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_server_is_left_once_its_roster_does_not_name_it() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let helper = crate::testing::seed();
    let desk = Desk::open(&helper, &fleet, 7);
    let node = start(&fleet, desk.address(), None);
    serial_in_force(&node.agent, 7).await;
    until("the end", || node.agent.connections().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_endpoints_are_reported() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let node = start(&fleet, desk.address(), None);
    serial_in_force(&node.agent, 7).await;
    let endpoint: SocketAddr = "192.0.2.50:4193".parse().unwrap();
    node.agent.endpoints.send_replace(vec![endpoint]);
    until("the report", || {
        desk.reports.lock().unwrap().last() == Some(&vec![endpoint])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_peer_is_comes_from_its_static_endpoints_and_the_controllers() {
    let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
    fleet.member_mut("pyrite").endpoints = vec!["192.0.2.99:4193".to_owned()];
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let node = start(&fleet, desk.address(), None);
    serial_in_force(&node.agent, 7).await;
    until("the connection", || !node.agent.connections().is_empty()).await;
    find_endpoints(node.agent.clone(), name("pyrite")).await;
    assert_eq!(node.agent.overlay.links()[&name("pyrite")].ways, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_wanted_before_a_controller_answered_is_asked_for_then() {
    let fleet = Fleet::new(&["cinnabar", "galena", "pyrite", "stibnite"]);
    let desk = Desk::open(fleet.seed_of("cinnabar"), &fleet, 7);
    let state_dir = tempfile::tempdir().unwrap();
    let agent = agent(
        &fleet,
        "galena",
        &[desk.address()],
        Some(7),
        state_dir.path(),
    );
    // No timer of the engine runs here, and nobody hears it ask: the task has to by itself.
    let packet = crate::testing::packet(&fleet, "galena", "pyrite");
    agent.overlay.handle_packet(&packet).unwrap();
    find_endpoints(agent.clone(), name("pyrite")).await;
    let ways = || agent.overlay.links()[&name("pyrite")].ways;
    assert_eq!(ways(), 0);
    let task = tokio::spawn(supervise(agent.clone()));
    until("where pyrite is", || ways() == 1).await;
    // The controller is wanted by itself: it relays.
    let stibnite = &agent.overlay.links()[&name("stibnite")];
    assert_eq!(stibnite.ways, 0, "nobody wants it");
    task.abort();
}
