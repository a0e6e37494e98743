//! An endpoint, as [`tunnel`](crate::tunnel) and [`reflect`](crate::reflect) write it: 16 bytes of IPv6 address, an IPv4
//! address mapped into it (RFC 4291 section 2.5.5.2), and 2 bytes of port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub(crate) const ENDPOINT_BYTES: usize = 18;

/// All zero if there is none.
pub(crate) fn emit_endpoint(endpoint: Option<SocketAddr>) -> [u8; ENDPOINT_BYTES] {
    let mut bytes = [0; ENDPOINT_BYTES];
    if let Some(endpoint) = endpoint {
        let address = match endpoint.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        bytes[..16].copy_from_slice(&address.octets());
        bytes[16..].copy_from_slice(&endpoint.port().to_be_bytes());
    }
    bytes
}

/// `None` if nothing can be sent there: no address or no port.
pub(crate) fn parse_endpoint(bytes: &[u8; ENDPOINT_BYTES]) -> Option<SocketAddr> {
    let address = Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical();
    let port = u16::from_be_bytes(*bytes.last_chunk()?);
    (port != 0 && !address.is_unspecified()).then(|| SocketAddr::new(address, port))
}
