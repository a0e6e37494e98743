//! The `utun` control: names, and the header before each packet.

use super::sockaddr::{AF_INET, AF_INET6};

/// The name of the kernel control (`UTUN_CONTROL_NAME`).
pub(crate) const CONTROL: &str = "com.apple.net.utun_control";

/// Bytes before each packet: the address family, big-endian.
pub(crate) const HEADER_BYTES: usize = 4;

/// The unit to connect to for an interface `name`: 0 for any, else the number plus 1. `None` if no `utun`
/// can have this name.
pub(crate) fn unit(name: &str) -> Option<u32> {
    match name.strip_prefix("utun")? {
        "" | "%d" => Some(0),
        digits if digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.len() <= 5 => {
            // `utun07` would be made as `utun7`.
            let number: u32 = digits.parse().ok()?;
            (number.to_string() == digits).then_some(number + 1)
        }
        _ => None,
    }
}

/// The header of `packet`; `None` if it is no IP packet.
pub(crate) fn header(packet: &[u8]) -> Option<[u8; HEADER_BYTES]> {
    let family = match packet.first()? >> 4 {
        4 => AF_INET,
        6 => AF_INET6,
        _ => return None,
    };
    Some([0, 0, 0, family])
}
