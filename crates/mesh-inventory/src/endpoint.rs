//! Underlay endpoints as an inventory writes them.

use std::net::{IpAddr, Ipv6Addr};

/// An endpoint's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(String),
}

/// Reads `host:port`; an IPv6 address stands in brackets.
///
/// # Errors
///
/// What is wrong, as a sentence without a full stop.
pub(crate) fn parse(text: &str) -> Result<(Host, u16), String> {
    let bare_ipv6 = text.parse::<Ipv6Addr>().is_ok();
    if bare_ipv6 {
        return Err(format!(
            "`{text}` has no port; an IPv6 address with one is written `[{text}]:4193`"
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!(
            "`{}` has no port; write `host:4193`",
            text.escape_debug()
        ));
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 && !text.ends_with(&format!(":+{port}")) => port,
        _ => {
            return Err(format!(
                "`{}` is not a port: 1 to 65535",
                port.escape_debug()
            ));
        }
    };
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return match inner.parse::<Ipv6Addr>() {
            Ok(address) => Ok((Host::Address(address.into()), port)),
            Err(_) => Err(format!("`{}` is not an IPv6 address", inner.escape_debug())),
        };
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok((Host::Address(address), port));
    }
    if is_host_name(host) {
        return Ok((Host::Name(host.to_owned()), port));
    }
    Err(format!(
        "`{}` is neither an address nor a host name",
        host.escape_debug()
    ))
}

/// Labels of letters, digits, `-` and `_`, 253 characters at most; not a number, which would be a
/// mistyped address.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    host.len() <= 253 && host.split('.').all(label) && !host.rsplit('.').next().is_some_and(numeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for good in [
            "a.example:1",
            "192.0.2.1:4193",
            "[2001:db8::1]:65535",
            "host-1:80",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "a:",
            "a:0",
            "a:+1",
            "a:65536",
            "2001:db8::1",
            "[a]:1",
            "192.0.2.256:1",
            "a b:1",
            ":1",
            "a..b:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
