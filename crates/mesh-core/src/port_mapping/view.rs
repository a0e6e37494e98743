//! What is known of a mapping, and why there is none, for people.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use mesh_types::Instant;
use mesh_wire::gateway::upnp;

/// By what a port was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingProtocol {
    /// PCP.
    Pcp,
    /// NAT-PMP.
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}
/// Why no port is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// The configuration says so.
    SwitchedOff,
    /// No real interface leads to a router by IPv4.
    NoRouter,
    /// This machine's own address is public.
    NotNeeded(Ipv4Addr),
    /// It is being asked for.
    Asking,
    /// The router answers none of the protocols.
    Silent(Ipv4Addr),
    /// The router refuses.
    Refused(MappingProtocol, u16),
    /// The router's own address is not public: what it maps, the next router does not.
    BehindNat(Ipv4Addr),
    /// What the router answered makes no sense.
    Nonsense(MappingProtocol),
    /// The router could not be asked by HTTP.
    Http(String),
    /// It was given back.
    Released,
}

/// What is known of the mapping, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingView {
    /// The router that is asked; `None`: none.
    pub router: Option<Ipv4Addr>,
    /// The mapping, or why there is none.
    pub mapped: Result<MappedView, Unmapped>,
}

/// A mapping, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedView {
    /// By what.
    pub protocol: MappingProtocol,
    /// Where this machine is reached.
    pub external: SocketAddrV4,
    /// When the lease ends; `None`: never.
    pub until: Option<Instant>,
}
impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff => f.write_str("switched off: `port_mapping = false`"),
            Self::NoRouter => f.write_str("no interface leads to a router by IPv4"),
            Self::NotNeeded(ip) => write!(f, "not needed: {ip} is public"),
            Self::Asking => f.write_str("the router is being asked"),
            Self::Silent(ip) => {
                write!(
                    f,
                    "the router {ip} answers neither PCP nor NAT-PMP nor UPnP"
                )
            }
            Self::Refused(protocol, code) => {
                write!(f, "the router refuses, by {protocol} with {code}")?;
                match meaning(*protocol, *code) {
                    Some(meaning) => write!(f, " ({meaning})"),
                    None => Ok(()),
                }
            }
            Self::BehindNat(ip) => write!(
                f,
                "the router's own address {ip} is not public: it is behind a NAT itself"
            ),
            Self::Nonsense(protocol) => {
                write!(f, "the router's answers by {protocol} make no sense")
            }
            Self::Http(reason) => write!(f, "the router cannot be asked by UPnP: {reason}"),
            Self::Released => f.write_str("given back"),
        }
    }
}

fn meaning(protocol: MappingProtocol, code: u16) -> Option<&'static str> {
    match (protocol, code) {
        (MappingProtocol::Pcp | MappingProtocol::NatPmp, 1) => Some("unknown version"),
        (MappingProtocol::Pcp | MappingProtocol::NatPmp, 2) => Some("not authorised"),
        (MappingProtocol::NatPmp, 3) | (MappingProtocol::Pcp, 7) => Some("it has no network"),
        (MappingProtocol::NatPmp, 4) | (MappingProtocol::Pcp, 8) => Some("out of ports"),
        (MappingProtocol::Upnp, 606) => Some("not authorised"),
        (MappingProtocol::Upnp, upnp::refusal::CONFLICT) => Some("the ports are taken"),
        _ => None,
    }
}
