//! What a router is asked.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use mesh_wire::gateway::{
    self, nat_pmp, pcp,
    upnp::{self, Url},
};

use super::{GatewayAsk, LEASE, Lease, MappingProtocol, PortMapper};

impl PortMapper {
    pub(super) fn suggested(&self) -> SocketAddrV4 {
        let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.port);
        self.external().unwrap_or(none)
    }

    pub(super) fn ask_all(&mut self, only: Option<MappingProtocol>) {
        let Some(gateway) = self.gateway else {
            return;
        };
        let wanted = |protocol| only.is_none_or(|only| only == protocol);
        if wanted(MappingProtocol::Pcp) && self.answers.no_pcp.is_none() {
            let bytes = self.pcp_question(gateway.local, self.suggested(), seconds(LEASE));
            self.send(gateway::PORT, bytes);
        }
        if wanted(MappingProtocol::NatPmp) && self.answers.nat_pmp.is_none() {
            self.send(gateway::PORT, nat_pmp::address_request().to_vec());
        }
        if wanted(MappingProtocol::Upnp) && self.answers.upnp.is_none() {
            let bytes = upnp::search().to_vec();
            // To the router alone, which host firewalls know the answer of; and to the group, which some
            // routers listen to only.
            self.send(upnp::PORT, bytes.clone());
            self.push(GatewayAsk::Datagram {
                to: SocketAddrV4::new(upnp::GROUP, upnp::PORT),
                bytes,
            });
        }
    }

    pub(super) fn ask_nat_pmp(&mut self) {
        let bytes = nat_pmp::map_request(self.port, self.suggested().port(), seconds(LEASE));
        self.send(gateway::PORT, bytes.to_vec());
    }

    pub(super) fn ask_whether_it_is_there(&mut self) {
        let Some(gateway) = self.gateway else {
            return;
        };
        match self.protocol() {
            Some(MappingProtocol::Pcp) => {
                self.send(gateway::PORT, pcp::announce_request(gateway.local).to_vec());
            }
            Some(MappingProtocol::NatPmp) => {
                self.send(gateway::PORT, nat_pmp::address_request().to_vec());
            }
            Some(MappingProtocol::Upnp) | None => {}
        }
    }

    pub(super) fn ask_to_release(&mut self, lease: &Lease) {
        let Some(gateway) = self.gateway else {
            return;
        };
        match (lease.protocol, &lease.service) {
            (MappingProtocol::Pcp, _) => {
                let bytes = self.pcp_question(gateway.local, lease.external, 0);
                self.send(gateway::PORT, bytes);
            }
            (MappingProtocol::NatPmp, _) => {
                self.send(
                    gateway::PORT,
                    nat_pmp::map_request(self.port, 0, 0).to_vec(),
                );
            }
            (MappingProtocol::Upnp, Some(service)) => {
                let external_port = lease.external.port();
                let soap = service.question(upnp::Action::Delete { external_port });
                self.ask_http(service.url.clone(), Some(soap));
            }
            (MappingProtocol::Upnp, None) => {}
        }
    }

    fn pcp_question(&self, local: Ipv4Addr, external: SocketAddrV4, seconds: u32) -> Vec<u8> {
        pcp::map_request(local, self.nonce, self.port, external, seconds).to_vec()
    }

    fn send(&mut self, port: u16, bytes: Vec<u8>) {
        if let Some(gateway) = self.gateway {
            self.push(GatewayAsk::Datagram {
                to: SocketAddrV4::new(gateway.address, port),
                bytes,
            });
        }
    }

    /// Returns what the answer comes with.
    pub(super) fn ask_http(&mut self, url: Url, soap: Option<(String, String)>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.push(GatewayAsk::Http { id, url, soap });
        id
    }

    /// At most four a round: whoever drains the queue after each call never meets this bound.
    fn push(&mut self, ask: GatewayAsk) {
        const ASKS_MAX: usize = 32;
        if self.asks.len() < ASKS_MAX {
            self.asks.push_back(ask);
        }
    }
}

pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
