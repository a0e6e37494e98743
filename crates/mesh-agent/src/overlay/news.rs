//! What the engine tells, and to whom it is passed on.

use std::{net::SocketAddr, time::Duration};

use mesh_core::{Event, MTU_BASE, Now, Stamp};
use mesh_types::{MachineName, Serial};
use tracing::{debug, info, warn};

use super::{KnockAnswer, Overlay, State, mapped};
use crate::measure::Measuring;

/// What the engine tells the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A peer is wanted, and where it is reached is not known, or no more.
    NeedEndpoints(MachineName),
    /// A peer holds a roster with this serial.
    Epoch(MachineName, Serial),
    /// A session with a peer was made at this endpoint.
    Reached(MachineName, SocketAddr),
    /// Stamps up to this are to be reserved on disk.
    ReserveStamps(Stamp),
}

impl Overlay {
    pub(super) fn tell(&self, state: &mut State, event: Event, now: Now) {
        let name = |state: &State, key| state.directory.name(key).cloned();
        match event {
            Event::NeedEndpoints { peer } => {
                if let Some(name) = name(state, &peer) {
                    self.report(News::NeedEndpoints(name));
                }
            }
            Event::EpochNotice { peer, serial, .. } => {
                if let (Some(name), Ok(serial)) = (name(state, &peer), Serial::try_from(serial)) {
                    self.report(News::Epoch(name, serial));
                }
            }
            Event::ReserveStamps { until } => state.unreserved = Some(until),
            Event::ProbeReply {
                peer,
                id,
                rtt_micros,
                via,
            } => {
                if let Some(waiting) = state.pings.remove(&(peer, id)) {
                    // Whoever waited may have given up.
                    let _ = waiting.send((Duration::from_micros(rtt_micros), via));
                }
            }
            Event::Measure { to, data, fresh } => {
                self.measure(Measuring::Send { to, data, fresh });
            }
            Event::Measured => self.measure(Measuring::Over),
            Event::MoonsWanted => self.moons_wanted.notify_one(),
            Event::KnockFromOtherPort { to, data } => {
                if let Some(other) = self.other.get()
                    && let Err(error) = other.try_send_to(&data, mapped(other, to))
                {
                    debug!(%error, "could not knock");
                }
            }
            Event::KnockAnswered {
                peer,
                id,
                agreed,
                other_port,
            } => {
                if let Some(waiting) = state.knocks.remove(&(peer, id)) {
                    // Whoever waited may have given up.
                    let _ = waiting.send(KnockAnswer {
                        id,
                        agreed,
                        other_port,
                    });
                }
            }
            Event::SessionEstablished { peer, via, .. } => {
                if let Some(peer) = name(state, &peer) {
                    debug!(%peer, ?via, "session established");
                    if let Some(endpoint) = via.udp() {
                        self.report(News::Reached(peer, endpoint));
                    }
                }
                state.tell_epoch_to(&peer, now);
            }
            Event::PeerUnresponsive { peer, .. } => {
                if let Some(peer) = name(state, &peer) {
                    info!(%peer, "peer does not answer");
                }
            }
            Event::MtuChanged { peer, mtu } => {
                if let Some(peer) = name(state, &peer) {
                    debug!(%peer, mtu, "size of packets changed");
                }
                self.mtus.send_modify(|mtus| {
                    match mtu {
                        MTU_BASE => mtus.remove(&peer),
                        mtu => mtus.insert(peer, mtu),
                    };
                });
            }
            Event::ClockDiffers { peer, ahead_millis } => {
                if let Some(peer) = name(state, &peer) {
                    warn!(%peer, ahead_millis, "clocks differ");
                }
            }
            other => debug!(?other, "an event that this release does not act on"),
        }
    }

    fn measure(&self, wanted: Measuring) {
        // What is lost is not answered, and so tried again.
        let _ = self.measuring.try_send(wanted);
    }

    pub(super) fn report(&self, news: News) {
        if self.news.try_send(news).is_err() {
            debug!("the control plane is behind; news dropped");
        }
    }
}
