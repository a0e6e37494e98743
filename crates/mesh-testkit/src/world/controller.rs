//! A controller's process: the real core, moved as the controller's shell would.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use mesh_controller::core::{By, ClientId, Core, Effect, Hello, Judgement, Mode, Now};
use mesh_core::Now as Clocks;
use mesh_inventory::roster::Roster;
use mesh_wire::control::{Notice, Reply, Request};

use super::{
    HostId,
    channels::{ChannelId, Message},
    rosters::{self, Published},
};
use crate::node::NETWORK;

/// What a controller does to a connection.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few exist at a time, and in a simulation only"
)]
pub(super) enum Act {
    Send(ChannelId, Message),
    Close(ChannelId),
}

/// A controller on a host.
pub(super) struct Controller {
    pub(super) host: HostId,
    /// What decides; `None` while its process does not run.
    core: Option<Core>,
    /// The roster on its disk.
    pub(super) disk: Option<Arc<Published>>,
    /// Connections of those that it has admitted.
    admitted: BTreeSet<ChannelId>,
}

impl Controller {
    pub(super) const fn new(host: HostId) -> Self {
        Self {
            host,
            core: None,
            disk: None,
            admitted: BTreeSet::new(),
        }
    }

    pub(super) const fn runs(&self) -> bool {
        self.core.is_some()
    }

    /// Ends its process: nothing is left but identity and disk.
    pub(super) fn stop(&mut self) {
        self.core = None;
        self.admitted.clear();
    }

    /// Starts it.
    pub(super) fn start(&mut self, now: Clocks) {
        self.stop();
        let own = rosters::public(self.host);
        let mode = Mode::Roster("roster.json".into());
        let trusted = rosters::signers();
        let core = Core::new(NETWORK, own, mode, trusted, Default::default(), clocks(now));
        self.core = Some(core);
        if let Some(disk) = self.disk.clone() {
            self.install(&disk, now);
        }
    }

    /// Puts a roster on its disk, and in force if its process runs.
    pub(super) fn take(&mut self, published: &Arc<Published>, now: Clocks) -> Vec<Act> {
        self.disk = Some(Arc::clone(published));
        self.install(published, now)
    }

    fn install(&mut self, published: &Published, now: Clocks) -> Vec<Act> {
        let Some(core) = &mut self.core else {
            return Vec::new();
        };
        let by = By::File("roster.json".into());
        let verified = Roster::verify(&published.file, &NETWORK, &rosters::signers());
        let (judgement, _) = core.judge(clocks(now), verified, &by);
        let Judgement::Accept(roster) = judgement else {
            return Vec::new();
        };
        let (effects, _) = core.install(clocks(now), roster);
        let serial = published.serial();
        let mut acts = self.perform(effects);
        let told = self.admitted.iter();
        acts.extend(told.map(|to| Act::Send(*to, Message::Notice(Notice::Roster { serial }))));
        acts
    }

    /// A client asks something.
    pub(super) fn answer(
        &mut self,
        channel: ChannelId,
        client: HostId,
        source: SocketAddr,
        request: Request,
        now: Clocks,
    ) -> Vec<Act> {
        let Some(core) = &mut self.core else {
            return Vec::new();
        };
        let (id, at) = (ClientId(channel.0), clocks(now));
        let mut file = None;
        let (reply, effects) = match &request {
            Request::Hello {
                identity,
                name,
                release,
                serial,
                head,
                endpoints,
            } => {
                let hello = Hello {
                    identity: *identity,
                    name: name.clone(),
                    release: release.clone(),
                    serial: *serial,
                    head: head.clone(),
                    endpoints: endpoints.clone(),
                };
                let proven = Some(rosters::public(client).node_id());
                let outcome = core.hello(at, id, proven, source, hello);
                (outcome.reply, outcome.effects)
            }
            Request::Roster { have } => {
                let (reply, attached) = core.roster_for(at, id, *have);
                if let Reply::Roster { serial } = reply {
                    core.gave(id, serial);
                }
                file = attached;
                (reply, Vec::new())
            }
            Request::Report { endpoints } => (core.report(at, id, source, endpoints), Vec::new()),
            Request::Endpoints { peer } => {
                let outcome = core.endpoints(at, id, source, peer);
                (outcome.reply, outcome.effects)
            }
            Request::Push { .. } | Request::Join { .. } => {
                unreachable!("agents push nothing, and are members")
            }
        };
        let is_welcome = matches!(reply, Reply::Welcome { .. });
        let is_refused = matches!(reply, Reply::Refused { .. });
        let mut acts = self.perform(effects);
        acts.push(Act::Send(channel, Message::Answer(request, reply, file)));
        if is_welcome {
            self.admitted.insert(channel);
        }
        if is_refused {
            acts.push(Act::Close(channel));
        }
        acts
    }

    /// A connection is over.
    pub(super) fn lost(&mut self, channel: ChannelId, now: Clocks) {
        self.admitted.remove(&channel);
        if let Some(core) = &mut self.core {
            core.disconnected(clocks(now), ClientId(channel.0));
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Vec<Act> {
        let mut acts = Vec::new();
        for effect in effects {
            let (id, notice) = match effect {
                Effect::Notify(id, notice) => {
                    acts.push(Act::Send(ChannelId(id.0), Message::Notice(notice)));
                    continue;
                }
                Effect::Cut(id, reason) => (id, Some(Notice::Refused { reason })),
                Effect::Replace(id) => (id, None),
            };
            let channel = ChannelId(id.0);
            self.admitted.remove(&channel);
            acts.extend(notice.map(|notice| Act::Send(channel, Message::Notice(notice))));
            acts.push(Act::Close(channel));
        }
        acts
    }
}

fn clocks(now: Clocks) -> Now {
    Now {
        millis: now.wall.as_millis(),
        instant: now.instant,
    }
}
