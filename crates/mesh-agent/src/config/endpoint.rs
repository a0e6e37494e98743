use std::{fmt, net::SocketAddr, str::FromStr};

/// A `host:port` as people write it: a DNS name or an address (IPv6 in brackets), not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort(String);

/// Text that is no `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a `host:port`, such as `mesh.example.org:4194` or `[2001:db8::1]:4194`")]
pub struct ParseHostPortError;

impl HostPort {
    /// The text, which `tokio::net::lookup_host` takes as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPort {
    type Err = ParseHostPortError;

    fn from_str(text: &str) -> Result<Self, ParseHostPortError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0)
                .then(|| Self(text.to_owned()))
                .ok_or(ParseHostPortError);
        }
        let (host, port) = text.rsplit_once(':').ok_or(ParseHostPortError)?;
        let port: u16 = port.parse().map_err(|_| ParseHostPortError)?;
        let is_host = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if port == 0 || !is_host {
            return Err(ParseHostPortError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_both_needed() {
        for good in [
            "mesh.example.org:4194",
            "cinnabar:1",
            "192.0.2.1:4194",
            "[2001:db8::1]:4194",
        ] {
            assert_eq!(good.parse::<HostPort>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "cinnabar",
            ":4194",
            "cinnabar:",
            "cinnabar:0",
            "192.0.2.1:0",
            "cinnabar:65536",
            "2001:db8::1:4194:x",
            "2001:db8::1",
            "http://cinnabar:4194",
            "a b:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }
}
