use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::MachineName;

/// The id of a network: 16 random bytes, written as 32 lower-case hex digits.
///
/// Made once, kept as a literal in the inventory, never derived from a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkId([u8; 16]);

/// Text that is no network id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a network id: 32 of `0`-`9` and `a`-`f`", .0.escape_debug())]
pub struct ParseNetworkIdError(String);

/// The /48 of a network (RFC 4193): `fd`, then 40 bits of a hash of the network id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Ipv6Net);

/// An address that no machine may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A pinned address lies outside the network's prefix.
    #[error("`{address}` is outside the network's prefix `{prefix}`")]
    OutsidePrefix {
        /// The pinned address.
        address: Ipv6Addr,
        /// The network's prefix.
        prefix: Prefix,
    },
    /// The address lies in subnet `ffff`, which belongs to the agents themselves.
    #[error("`{0}` is in the subnet that the agents use among themselves")]
    AgentSubnet(Ipv6Addr),
    /// The interface id is all zero or reserved (RFC 5453).
    #[error("the interface id of `{0}` is reserved (RFC 5453)")]
    ReservedInterfaceId(Ipv6Addr),
}

impl NetworkId {
    /// The id with these bytes; for a new network they are random.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes, in the order of its hex digits.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The network's /48: `fd`, then the first 40 bits of SHA-256 of `mesh-prefix-v1\n<network id>`.
    pub fn prefix(&self) -> Prefix {
        let hash = Sha256::digest(format!("mesh-prefix-v1\n{self}"));
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&hash[..5]);
        Prefix(Ipv6Net::new_assert(Ipv6Addr::from(octets), 48))
    }

    /// The address of the machine called `name`: subnet 0 of the prefix, then the first 64 bits of
    /// SHA-256 of `mesh-address-v1\n<network id>\n<name>`.
    ///
    /// # Errors
    ///
    /// [`AddressError::ReservedInterfaceId`] for about one name in 2^56; the remedy is to pin one.
    pub fn address_of(&self, name: &MachineName) -> Result<Ipv6Addr, AddressError> {
        let hash = Sha256::digest(format!("mesh-address-v1\n{self}\n{name}"));
        let mut octets = self.prefix().0.network().octets();
        octets[8..].copy_from_slice(&hash[..8]);
        let address = Ipv6Addr::from(octets);
        self.prefix().check(address)?;
        Ok(address)
    }
}

impl FromStr for NetworkId {
    type Err = ParseNetworkIdError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkIdError> {
        let digits = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() != 32 || !digits {
            return Err(ParseNetworkIdError(text.to_owned()));
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| ParseNetworkIdError(text.to_owned()))
    }
}

impl TryFrom<String> for NetworkId {
    type Error = ParseNetworkIdError;

    fn try_from(text: String) -> Result<Self, ParseNetworkIdError> {
        text.parse()
    }
}

impl From<NetworkId> for String {
    fn from(id: NetworkId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

impl Prefix {
    /// The prefix as a network.
    pub const fn net(self) -> Ipv6Net {
        self.0
    }

    /// Whether an address is one of the mesh's.
    pub fn holds(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V6(address) => self.0.contains(&address),
            IpAddr::V4(_) => false,
        }
    }

    /// `<prefix>:ffff::1`, source and destination of what agents say to each other inside the tunnel.
    /// No machine ever has it.
    pub fn agent_address(self) -> Ipv6Addr {
        let mut segments = self.0.network().segments();
        segments[3] = 0xffff;
        segments[7] = 1;
        Ipv6Addr::from(segments)
    }

    /// Whether a machine may have `address`, derived or pinned.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if it is outside the prefix, in subnet `ffff`, or has an interface id that is
    /// zero or reserved by RFC 5453.
    pub fn check(self, address: Ipv6Addr) -> Result<(), AddressError> {
        if !self.0.contains(&address) {
            return Err(AddressError::OutsidePrefix {
                address,
                prefix: self,
            });
        }
        if address.segments()[3] == 0xffff {
            return Err(AddressError::AgentSubnet(address));
        }
        let [.., a, b, c, d] = address.segments();
        let interface_id =
            u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d);
        // RFC 5453: zero is the subnet-router anycast address; the two ranges are Ethernet-block
        // reserved identifiers and subnet anycast addresses.
        let reserved = interface_id == 0
            || (0x0200_5eff_fe00_0000..=0x0200_5eff_feff_ffff).contains(&interface_id)
            || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&interface_id);
        if reserved {
            return Err(AddressError::ReservedInterfaceId(address));
        }
        Ok(())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> NetworkId {
        "000102030405060708090a0b0c0d0e0f".parse().unwrap()
    }

    #[test]
    fn the_documented_network_has_the_documented_prefix_and_address() {
        assert_eq!(example().prefix().to_string(), "fdc3:582e:db61::/48");
        let cinnabar = "cinnabar".parse().unwrap();
        let expected: Ipv6Addr = "fdc3:582e:db61:0:f785:d658:d2e9:df7d".parse().unwrap();
        assert_eq!(example().address_of(&cinnabar), Ok(expected));
        let agent: Ipv6Addr = "fdc3:582e:db61:ffff::1".parse().unwrap();
        assert_eq!(example().prefix().agent_address(), agent);
    }

    #[test]
    fn a_network_id_is_32_lower_case_hex_digits() {
        assert_eq!(example().to_string(), "000102030405060708090a0b0c0d0e0f");
        for bad in [
            "",
            "00",
            "000102030405060708090A0B0C0D0E0F",
            &"g".repeat(32),
            &"0".repeat(33),
        ] {
            assert!(bad.parse::<NetworkId>().is_err(), "{bad}");
        }
        assert!(format!("+{}", "0".repeat(31)).parse::<NetworkId>().is_err());
    }

    #[test]
    fn pins_stay_inside_the_prefix_and_off_reserved_addresses() {
        let prefix = example().prefix();
        let check = |text: &str| prefix.check(text.parse().unwrap());
        assert_eq!(check("fdc3:582e:db61::2"), Ok(()));
        assert_eq!(check("fdc3:582e:db61:7::2"), Ok(()));
        assert!(matches!(
            check("fdc3:582e:db62::2"),
            Err(AddressError::OutsidePrefix { .. })
        ));
        assert!(matches!(
            check("fdc3:582e:db61:ffff::2"),
            Err(AddressError::AgentSubnet(_))
        ));
        for reserved in [
            "fdc3:582e:db61::",
            "fdc3:582e:db61:0:200:5eff:fe00:1",
            "fdc3:582e:db61:0:fdff:ffff:ffff:ff80",
            "fdc3:582e:db61:0:fdff:ffff:ffff:ffff",
        ] {
            assert!(matches!(
                check(reserved),
                Err(AddressError::ReservedInterfaceId(_))
            ));
        }
    }
}
