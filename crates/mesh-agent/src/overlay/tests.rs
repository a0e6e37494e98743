//! Overlays over real sockets on loopback, without TUN devices.

use std::{
    net::Ipv4Addr,
    sync::{Mutex as StdMutex, mpsc as std_mpsc},
    thread::JoinHandle,
};

use mesh_core::{Reason, Run};
use mesh_os::{
    poll::{Wake, wait_readable},
    udp::{RecvBatch, SendBatch},
};

use mesh_control::stream::{StreamListener, dial_quic, dial_tls};
use mesh_core::Carrier;

use super::*;
use crate::{
    dataplane,
    relay::streams,
    testing::{Fleet, name, network, packet},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A machine: its overlay, a thread that receives and runs timers, and what came out of the tunnel.
struct Machine {
    overlay: Arc<Overlay>,
    news: StdMutex<mpsc::Receiver<News>>,
    packets: std_mpsc::Receiver<Vec<u8>>,
    out: std_mpsc::Sender<Vec<u8>>,
    own: PublicIdentity,
    stop: Arc<(Wake, std::sync::atomic::AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    fn start(fleet: &Fleet, text: &str) -> Self {
        let identity = fleet.seed_of(text);
        let (overlay, news) = Overlay::new(
            identity,
            network().prefix().agent_address(),
            Stamp::ZERO,
            vec![UdpSocket::bind(0).unwrap()],
        );
        // The first stamps, which a disk would have confirmed.
        overlay.stamps_reserved(Stamp::from_nanos(u64::MAX));
        let overlay = Arc::new(overlay);
        let stop = Arc::new((Wake::new().unwrap(), false.into()));
        let (out, packets) = std_mpsc::channel();
        let thread = std::thread::spawn({
            let (overlay, stop, out) = (overlay.clone(), stop.clone(), out.clone());
            move || pump(&overlay, &stop.0, &stop.1, &out)
        });
        Self {
            overlay,
            news: StdMutex::new(news),
            packets,
            out,
            own: identity.public(),
            stop,
            thread: Some(thread),
        }
    }

    fn apply(&self, roster: &Roster) {
        self.overlay.apply_roster(roster, &self.own);
    }

    fn endpoint(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.overlay.socket().port()).into()
    }

    /// Waits for this piece of news.
    async fn hear(&self, wanted: &News) {
        let heard = async {
            loop {
                let news =
                    std::future::poll_fn(|context| self.news.lock().unwrap().poll_recv(context));
                if news.await.expect("the overlay lives") == *wanted {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, heard)
            .await
            .expect("the news")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop
            .1
            .store(true, std::sync::atomic::Ordering::Release);
        self.stop.0.wake();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn pump(
    overlay: &Overlay,
    wake: &Wake,
    stopped: &std::sync::atomic::AtomicBool,
    out: &std_mpsc::Sender<Vec<u8>>,
) {
    let mut batch = RecvBatch::new();
    let mut relayed = SendBatch::new();
    while !stopped.load(std::sync::atomic::Ordering::Acquire) {
        let sleep = overlay.run_timers().unwrap_or(DEADLINE);
        // Timers that others set are noticed within this time.
        let sleep = sleep.min(Duration::from_millis(20));
        wait_readable(overlay.socket(), wake, Some(sleep)).unwrap();
        overlay.socket().recv(&mut batch).unwrap();
        for datagram in batch.datagrams() {
            if let Some(packet) = dataplane::open(
                overlay,
                &mut Run::default(),
                datagram.from.into(),
                datagram.ecn,
                datagram.payload,
                &mut relayed,
                clock::now(),
            ) {
                let _ = out.send(packet.to_vec());
            }
        }
        relayed.flush(overlay.socket()).unwrap();
    }
}

fn pair(fleet: &Fleet) -> (Machine, Machine) {
    let (a, b) = (
        Machine::start(fleet, "cinnabar"),
        Machine::start(fleet, "galena"),
    );
    a.apply(&fleet.roster(7));
    b.apply(&fleet.roster(7));
    (a, b)
}

#[tokio::test]
async fn a_ping_goes_there_and_back_and_the_peers_show_as_connected() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let (a, b) = pair(&fleet);
    a.overlay.add_candidates(&name("galena"), &[b.endpoint()]);
    let outcome = a.overlay.ping(&name("galena"), DEADLINE).await;
    let PingOutcome::Answered { endpoint, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(endpoint, Some(b.endpoint()));
    assert_eq!(a.overlay.links()[&name("galena")].reason, Reason::Direct);
    // The other side learnt the endpoint from the handshake.
    let link = &b.overlay.links()[&name("cinnabar")];
    assert_eq!(
        (link.reason, link.endpoint),
        (Reason::Direct, Some(a.endpoint()))
    );
}

#[tokio::test]
async fn a_packet_waits_for_an_endpoint_and_arrives() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let (a, b) = pair(&fleet);
    let sent = packet(&fleet, "cinnabar", "galena");
    a.overlay.handle_packet(&sent).unwrap();
    let wanted = name("galena");
    a.hear(&News::NeedEndpoints(wanted.clone())).await;
    a.overlay.add_candidates(&wanted, &[b.endpoint()]);
    assert_eq!(b.packets.recv_timeout(DEADLINE).unwrap(), sent);
}

#[tokio::test]
async fn the_answer_to_the_first_packet_finds_the_session_that_it_came_on() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let a = Machine::start(&fleet, "cinnabar");
    a.apply(&fleet.roster(7));
    let identity = fleet.seed_of("galena");
    let socket = UdpSocket::bind(0).unwrap();
    let agent_address = network().prefix().agent_address();
    let (b, _news) = Overlay::new(identity, agent_address, Stamp::ZERO, vec![socket]);
    b.apply_roster(&fleet.roster(7), &identity.public());
    let endpoint = (Ipv4Addr::LOCALHOST, b.socket().port()).into();
    a.overlay.add_candidates(&name("galena"), &[endpoint]);
    a.overlay
        .handle_packet(&packet(&fleet, "cinnabar", "galena"))
        .unwrap();
    let answer = packet(&fleet, "galena", "cinnabar");
    // Nothing runs b's timers, as none may have run when the system answers a packet from the TUN.
    let (wake, mut batch) = (Wake::new().unwrap(), RecvBatch::new());
    let routed = 'received: loop {
        wait_readable(b.socket(), &wake, Some(DEADLINE)).unwrap();
        assert!(
            b.socket().recv(&mut batch).unwrap(),
            "a handshake, then data"
        );
        for datagram in batch.datagrams() {
            if dataplane::open(
                &b,
                &mut Run::default(),
                datagram.from.into(),
                datagram.ecn,
                datagram.payload,
                &mut SendBatch::new(),
                clock::now(),
            )
            .is_some()
            {
                break 'received b.forwarding.route(&answer).is_some();
            }
        }
    };
    assert!(routed);
}

#[tokio::test]
async fn a_removed_peer_is_cut_off_when_the_roster_is_applied() {
    let mut fleet = Fleet::new(&["cinnabar", "galena"]);
    let (a, b) = pair(&fleet);
    a.overlay.add_candidates(&name("galena"), &[b.endpoint()]);
    let outcome = a.overlay.ping(&name("galena"), DEADLINE).await;
    assert!(matches!(outcome, PingOutcome::Answered { .. }));
    let stray = packet(&fleet, "cinnabar", "galena");
    assert!(a.overlay.forwarding.route(&stray).is_some());
    fleet.members.remove(&name("galena"));
    a.apply(&fleet.roster(8));
    assert!(a.overlay.forwarding.route(&stray).is_none());
    assert!(a.overlay.links().is_empty());
    let short = Duration::from_millis(300);
    assert_eq!(
        b.overlay.ping(&name("cinnabar"), short).await,
        PingOutcome::Unanswered
    );
}

#[tokio::test]
async fn peers_tell_each_other_which_roster_they_hold() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let (a, b) = pair(&fleet);
    a.overlay.add_candidates(&name("galena"), &[b.endpoint()]);
    a.overlay.ping(&name("galena"), DEADLINE).await;
    a.apply(&fleet.roster(9));
    let nine = Serial::try_from(9).unwrap();
    b.hear(&News::Epoch(name("cinnabar"), nine)).await;
}

#[tokio::test]
async fn stamps_are_reserved_before_the_first_handshake() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let (overlay, mut news) = Overlay::new(
        fleet.seed_of("cinnabar"),
        network().prefix().agent_address(),
        Stamp::ZERO,
        vec![UdpSocket::bind(0).unwrap()],
    );
    overlay.run_timers();
    let first = tokio::time::timeout(DEADLINE, news.recv()).await.unwrap();
    assert!(matches!(first, Some(News::ReserveStamps(until)) if until > Stamp::ZERO));
}

#[tokio::test]
async fn a_ping_to_nobody_is_unanswered_at_once() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let (a, _b) = pair(&fleet);
    let outcome = a.overlay.ping(&name("nobody"), DEADLINE).await;
    assert_eq!(outcome, PingOutcome::Unanswered);
}

#[tokio::test]
async fn a_new_session_tells_the_roster_at_once_and_not_with_the_next_timer() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let overlay = |text| {
        let agents = network().prefix().agent_address();
        let socket = UdpSocket::bind(0).unwrap();
        let (overlay, news) = Overlay::new(fleet.seed_of(text), agents, Stamp::ZERO, vec![socket]);
        overlay.stamps_reserved(Stamp::from_nanos(u64::MAX));
        (overlay, news)
    };
    let ((a, _), (b, mut news)) = (overlay("cinnabar"), overlay("galena"));
    a.apply_roster(&fleet.roster(9), &fleet.seed_of("cinnabar").public());
    b.apply_roster(&fleet.roster(7), &fleet.seed_of("galena").public());
    let at_b = (Ipv4Addr::LOCALHOST, b.socket().port()).into();
    a.add_candidates(&name("galena"), &[at_b]);
    a.handle_packet(&packet(&fleet, "cinnabar", "galena"))
        .unwrap();
    // No timers run, and A is called for what it receives only: here, for the response.
    let (wake, mut batch) = (Wake::new().unwrap(), RecvBatch::new());
    let mut receive = |overlay: &Overlay| {
        assert!(
            wait_readable(overlay.socket(), &wake, Some(DEADLINE))
                .unwrap()
                .ready
        );
        overlay.socket().recv(&mut batch).unwrap();
        for datagram in batch.datagrams() {
            dataplane::open(
                overlay,
                &mut Run::default(),
                datagram.from.into(),
                datagram.ecn,
                datagram.payload,
                &mut SendBatch::new(),
                clock::now(),
            );
        }
    };
    receive(&b);
    receive(&a);
    let wanted = News::Epoch(name("cinnabar"), Serial::try_from(9).unwrap());
    while !std::iter::from_fn(|| news.try_recv().ok()).any(|heard| heard == wanted) {
        receive(&b);
    }
}

#[tokio::test]
async fn a_reservation_of_stamps_is_not_lost_when_the_control_plane_is_behind() {
    let fleet = Fleet::new(&["cinnabar", "galena"]);
    let agents = network().prefix().agent_address();
    let socket = UdpSocket::bind(0).unwrap();
    let (overlay, mut news) =
        Overlay::new(fleet.seed_of("cinnabar"), agents, Stamp::ZERO, vec![socket]);
    for _ in 0..NEWS_MAX {
        overlay.report(News::NeedEndpoints(name("galena")));
    }
    overlay.run_timers();
    while news.try_recv().is_ok() {}
    overlay.run_timers();
    assert!(matches!(news.try_recv(), Ok(News::ReserveStamps(_))));
    overlay.run_timers();
    assert!(news.try_recv().is_err(), "asked once");
}

#[tokio::test]
async fn machines_that_know_only_the_moon_reach_each_other_until_one_is_removed() {
    let mut fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
    let machines = ["cinnabar", "galena", "pyrite"].map(|text| Machine::start(&fleet, text));
    let [moon, a, b] = &machines;
    for machine in &machines {
        machine.apply(&fleet.roster(7));
    }
    for machine in [a, b] {
        machine
            .overlay
            .add_candidates(&name("cinnabar"), &[moon.endpoint()]);
    }
    let relaying = || moon.overlay.moon.status().expect("a controller relays");
    until("both are clients", || relaying().clients == 2).await;
    a.overlay
        .handle_packet(&packet(&fleet, "galena", "pyrite"))
        .unwrap();
    let got = b.packets.recv_timeout(DEADLINE).unwrap();
    assert_eq!(got, packet(&fleet, "galena", "pyrite"));
    assert!(relaying().relayed_frames >= 2, "{:?}", relaying());
    assert!(a.overlay.moon.status().is_none(), "no moon");

    fleet.members.remove(&name("pyrite"));
    moon.apply(&fleet.roster(8));
    assert_eq!(relaying().clients, 1);
}

/// Both ends of a stream between two machines, each carried by a task.
async fn stream(
    fleet: &Fleet,
    client: &Machine,
    moon: &Machine,
    carrier: Carrier,
) -> tokio::task::JoinSet<()> {
    let [own, expected] = ["galena", "cinnabar"].map(|text| fleet.seed_of(text));
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = match carrier {
        Carrier::Quic => StreamListener::bind_quic(listen, expected).unwrap(),
        Carrier::Tls => StreamListener::bind_tls(listen, expected).await.unwrap(),
    };
    let address = listener.local_address().unwrap();
    let accept = async { listener.accept().await.unwrap().complete().await };
    let dialling = async {
        match carrier {
            Carrier::Quic => dial_quic(address, own, expected.public().node_id()).await,
            Carrier::Tls => dial_tls(address, own, expected.public().node_id()).await,
        }
    };
    let (taken, dialled) = tokio::join!(accept, dialling);
    let mut tasks = tokio::task::JoinSet::new();
    for (machine, peer, stream) in [(client, moon, dialled), (moon, client, taken)] {
        let (overlay, peer) = (machine.overlay.clone(), peer.own.wireguard());
        let out = machine.out.clone();
        tasks.spawn(async move {
            let deliver = |packet: &[u8]| drop(out.send(packet.to_vec()));
            streams::carry(&overlay, deliver, peer, carrier, stream.unwrap()).await;
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_udp_is_reached_through_its_tls_to_the_moon() {
    is_reached_through_its_stream(Carrier::Tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_udp_is_reached_through_its_quic_to_the_moon() {
    is_reached_through_its_stream(Carrier::Quic).await;
}

async fn is_reached_through_its_stream(carrier: Carrier) {
    let fleet = Fleet::new(&["cinnabar", "galena", "pyrite"]);
    let machines = ["cinnabar", "galena", "pyrite"].map(|text| Machine::start(&fleet, text));
    let [moon, a, b] = &machines;
    for machine in &machines {
        machine.apply(&fleet.roster(7));
    }
    b.overlay
        .add_candidates(&name("cinnabar"), &[moon.endpoint()]);
    // Galena knows no endpoint at all, and tells none: all it has is the stream.
    let mut tasks = stream(&fleet, a, moon, carrier).await;
    let clients = || moon.overlay.moon.status().map(|status| status.clients);
    until("both are clients", || clients() == Some(2)).await;
    // The moon counts a client before its answer is there.
    let moons = || a.overlay.moons.borrow().clone();
    until("galena has its moon by the stream", || {
        matches!(moons()[..], [(_, Some(Remote::Stream(_)))])
    })
    .await;
    b.overlay
        .handle_packet(&packet(&fleet, "pyrite", "galena"))
        .unwrap();
    let got = a.packets.recv_timeout(DEADLINE).unwrap();
    assert_eq!(got, packet(&fleet, "pyrite", "galena"));

    tasks.shutdown().await;
    assert!(a.overlay.streams.of(&moon.own.wireguard()).is_empty());
}

/// Waits until `holds`.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect(what);
}
