//! What a router answers by PCP and NAT-PMP, and what is made of it.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_types::Instant;
use mesh_wire::gateway::{nat_pmp, pcp, upnp::Url};

use super::{Lease, MappingProtocol, Phase, PortMapper, Unmapped, is_public};

/// What a router answered since it is being asked.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Why not by PCP.
    pub(super) no_pcp: Option<Unmapped>,
    pub(super) nat_pmp: Option<Result<Ipv4Addr, Unmapped>>,
    pub(super) upnp: Option<Result<Url, Unmapped>>,
}

impl Answers {
    /// Whether nothing more is to be expected.
    pub(super) fn is_refused(&self, only: Option<MappingProtocol>) -> bool {
        let pcp = self.no_pcp.is_some();
        let nat_pmp = matches!(self.nat_pmp, Some(Err(_)));
        let upnp = matches!(self.upnp, Some(Err(_)));
        match only {
            Some(MappingProtocol::Pcp) => pcp,
            Some(MappingProtocol::NatPmp) => nat_pmp,
            Some(MappingProtocol::Upnp) => upnp,
            None => pcp && nat_pmp && upnp,
        }
    }

    /// The reason that says most: what a router refuses by the best protocol that it speaks.
    pub(super) fn worst(self) -> Option<Unmapped> {
        let unknown = Unmapped::Refused(MappingProtocol::Pcp, nat_pmp::UNSUPPORTED_VERSION);
        let nat_pmp = self.nat_pmp.and_then(Result::err);
        let upnp = self.upnp.and_then(Result::err);
        self.no_pcp
            .filter(|reason| *reason != unknown)
            .into_iter()
            .chain(nat_pmp)
            .chain(upnp)
            .next()
    }
}

impl PortMapper {
    pub(super) fn handle_pcp(&mut self, response: pcp::Response, now: Instant) {
        const PCP: MappingProtocol = MappingProtocol::Pcp;
        match response {
            pcp::Response::Announce { epoch } => self.compare_epoch(PCP, epoch, now),
            pcp::Response::Mapped {
                epoch,
                nonce,
                internal_port,
                external,
                lifetime_seconds,
            } => {
                if nonce != self.nonce || internal_port != self.port {
                    return;
                }
                match &self.phase {
                    Phase::Asking { .. } => {}
                    Phase::Releasing { lease, .. } if lease.protocol == PCP => {
                        if lifetime_seconds == 0 {
                            self.phase = Phase::Resting(None);
                        }
                        return;
                    }
                    Phase::Resting(_)
                    | Phase::NatPmp { .. }
                    | Phase::Upnp(_)
                    | Phase::Releasing { .. } => return,
                }
                let (Some(external), 1..) = (external, lifetime_seconds) else {
                    self.answers.no_pcp = Some(Unmapped::Nonsense(PCP));
                    return;
                };
                self.epoch = Some((PCP, epoch, now));
                self.granted(Lease::new(PCP, external), Some(lifetime_seconds), now);
            }
            pcp::Response::Refused { result } => match &self.phase {
                Phase::Asking { .. } => {
                    self.answers
                        .no_pcp
                        .get_or_insert(Unmapped::Refused(PCP, result.into()));
                }
                Phase::Releasing { lease, .. } if lease.protocol == PCP => {
                    self.phase = Phase::Resting(None);
                }
                Phase::Resting(_)
                | Phase::NatPmp { .. }
                | Phase::Upnp(_)
                | Phase::Releasing { .. } => {}
            },
        }
    }

    pub(super) fn handle_nat_pmp(&mut self, response: nat_pmp::Response, now: Instant) {
        const NAT_PMP: MappingProtocol = MappingProtocol::NatPmp;
        match response {
            nat_pmp::Response::Address { epoch, external } => {
                let moved = self.lease.as_ref().is_some_and(|lease| {
                    lease.protocol == NAT_PMP && *lease.external.ip() != external
                });
                self.compare_epoch(NAT_PMP, epoch, now);
                if moved {
                    self.refresh(now);
                }
                let answer = if is_public(external) {
                    Ok(external)
                } else {
                    Err(Unmapped::BehindNat(external))
                };
                self.answers.nat_pmp.get_or_insert(answer);
            }
            nat_pmp::Response::Mapped {
                epoch,
                internal_port,
                external_port,
                lifetime_seconds,
            } => {
                if internal_port != self.port {
                    return;
                }
                match &self.phase {
                    Phase::NatPmp { external, .. } => {
                        let external = SocketAddrV4::new(*external, external_port);
                        if lifetime_seconds == 0 {
                            let reason = Unmapped::Nonsense(NAT_PMP);
                            return self.refused_by_nat_pmp(reason, now);
                        }
                        self.epoch = Some((NAT_PMP, epoch, now));
                        let lease = Lease::new(NAT_PMP, external);
                        self.granted(lease, Some(lifetime_seconds), now);
                    }
                    Phase::Releasing { lease, .. }
                        if lease.protocol == NAT_PMP && lifetime_seconds == 0 =>
                    {
                        self.phase = Phase::Resting(None);
                    }
                    Phase::Resting(_)
                    | Phase::Asking { .. }
                    | Phase::Upnp(_)
                    | Phase::Releasing { .. } => {}
                }
            }
            nat_pmp::Response::Refused { result } => {
                let unknown = result == nat_pmp::UNSUPPORTED_VERSION;
                match &self.phase {
                    // To the questions of PCP.
                    Phase::Asking { .. } if unknown => {
                        let reason = Unmapped::Refused(MappingProtocol::Pcp, result);
                        self.answers.no_pcp.get_or_insert(reason);
                    }
                    Phase::Asking { .. } => {
                        let reason = Unmapped::Refused(NAT_PMP, result);
                        self.answers.nat_pmp.get_or_insert(Err(reason));
                    }
                    Phase::NatPmp { .. } if !unknown => {
                        self.refused_by_nat_pmp(Unmapped::Refused(NAT_PMP, result), now);
                    }
                    Phase::Releasing { lease, .. } if lease.protocol == NAT_PMP => {
                        self.phase = Phase::Resting(None);
                    }
                    Phase::NatPmp { .. }
                    | Phase::Resting(_)
                    | Phase::Upnp(_)
                    | Phase::Releasing { .. } => {}
                }
            }
        }
    }

    pub(super) fn refused_by_nat_pmp(&mut self, reason: Unmapped, now: Instant) {
        self.answers.nat_pmp = Some(Err(reason));
        self.begin_asking(None, now);
    }

    /// Compares the router's clock with what it must be by now (RFC 6887 section 8.5).
    pub(super) fn compare_epoch(&mut self, protocol: MappingProtocol, epoch: u32, now: Instant) {
        if self.protocol().is_some_and(|used| used != protocol) {
            return;
        }
        let before = self.epoch.replace((protocol, epoch, now));
        let Some((before_protocol, before, at)) = before else {
            return;
        };
        let here = now.saturating_since(at).as_secs();
        let there = u64::from(epoch.saturating_sub(before));
        // One that went back by a second may have been overtaken by the one before.
        let lost = before.saturating_sub(epoch) > 1
            || here + 2 < there - there / 16
            || there + 2 < here - here / 16;
        if lost && before_protocol == protocol && self.lease.is_some() {
            self.refresh(now);
        }
    }
}
