//! What a rule speaks of: protocols and ports.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A protocol above IP: `tcp`, `udp`, `icmp`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for IPv4, ICMPv6 for IPv6.
    Icmp,
    /// Another one, by its number (IANA, Assigned Internet Protocol Numbers).
    Other(u8),
}

/// Why a text is no protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not `tcp`, `udp`, `icmp` or a number up to 255")]
pub struct ParseProtocolError;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Protocol {
    /// Whether the protocol with this number is meant.
    pub const fn is(self, number: u8) -> bool {
        match self {
            Self::Icmp => number == ICMP || number == ICMPV6,
            Self::Tcp | Self::Udp | Self::Other(_) => number == self.number(),
        }
    }

    /// Its number; ICMPv6's for ICMP.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Icmp => ICMPV6,
            Self::Other(number) => number,
        }
    }

    /// All numbers that are meant.
    pub const fn numbers(self) -> &'static [u8] {
        const ALL: [u8; 256] = {
            let mut all = [0; 256];
            let mut number = 0;
            while number < 256 {
                all[number] = number as u8;
                number += 1;
            }
            all
        };
        match self {
            Self::Icmp => &[ICMP, ICMPV6],
            Self::Tcp | Self::Udp | Self::Other(_) => {
                let (_, from) = ALL.split_at(self.number() as usize);
                from.split_at(1).0
            }
        }
    }

    /// Whether it has ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "icmp" => Self::Icmp,
            number => match number.parse().map_err(|_| ParseProtocolError)? {
                TCP => Self::Tcp,
                UDP => Self::Udp,
                ICMP | ICMPV6 => Self::Icmp,
                other => Self::Other(other),
            },
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

/// Ports from the first to the last: `22`, `8000-8999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a port from 1 to 65535, or two of them as in `8000-8999`")]
pub struct ParsePortsError;

impl PortRange {
    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = ParsePortsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port| digits && *port != 0)
        };
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(ParsePortsError),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

macro_rules! text_in_json {
    ($($kind:ty: $error:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    )*};
}

text_in_json!(Protocol: ParseProtocolError, PortRange: ParsePortsError);

/// A question to the rules: packets of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The protocol's number.
    pub protocol: u8,
    /// The port that they go to; `None`: the protocol has none.
    pub port: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_from_one_to_another() {
        for good in ["1", "22", "65535", "8000-8999"] {
            assert_eq!(good.parse::<PortRange>().unwrap().to_string(), good);
        }
        assert_eq!("7-7".parse::<PortRange>().unwrap().to_string(), "7");
        for bad in [
            "", "0", "65536", "-1", "+1", "1-", "-", "9-8", "1-2-3", " 1", "http",
        ] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn protocols_are_named_or_numbered() {
        for (text, shown) in [
            ("tcp", "tcp"),
            ("6", "tcp"),
            ("17", "udp"),
            ("1", "icmp"),
            ("58", "icmp"),
            ("47", "47"),
        ] {
            assert_eq!(text.parse::<Protocol>().unwrap().to_string(), shown);
        }
        assert_eq!(Protocol::Other(47).numbers(), [47]);
        assert_eq!(Protocol::Icmp.numbers(), [1, 58]);
        for bad in ["", "TCP", "256", "ospf", "-1"] {
            assert!(bad.parse::<Protocol>().is_err(), "{bad}");
        }
    }
}
