//! Asks as programs do.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The addresses that libc finds for `name`, waiting at most `limit`.
///
/// # Errors
///
/// What libc says, or that it did not answer in time.
pub fn lookup(name: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
    let (sender, answer) = mpsc::channel();
    let asked = (name.to_owned(), 0);
    // libc cannot be told when to give up; the thread ends by itself.
    thread::spawn(move || {
        let found = asked.to_socket_addrs().map(|all| {
            let mut found: Vec<_> = all.map(|address| address.ip()).collect();
            found.sort_unstable();
            found.dedup();
            found
        });
        let _ = sender.send(found.map_err(|error| error.to_string()));
    });
    answer
        .recv_timeout(limit)
        .unwrap_or_else(|_| Err(format!("no answer in {} s", limit.as_secs())))
}

/// The addresses of the interface `name`; none if there is no such interface.
///
/// # Errors
///
/// What the system says.
pub fn addresses_of(name: &str) -> io::Result<BTreeSet<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let found = all.filter(|entry| entry.interface_name == name);
    Ok(found
        .filter_map(|entry| {
            let address = entry.address?;
            let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            v6.or_else(|| address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())))
        })
        .collect())
}

/// Whether the server at `server` finds `address` for `name`, asked again until `limit` has passed.
pub(super) fn server_finds(server: IpAddr, name: &str, address: IpAddr, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let started = Instant::now();
        // As long as a busy server may take; an absent one refuses at once.
        let patience = left.min(Duration::from_secs(1));
        if ask(server, name, address, patience).unwrap_or(false) {
            return true;
        }
        // A server that starts anew refuses meanwhile.
        thread::sleep(Duration::from_millis(100).saturating_sub(started.elapsed()));
    }
    false
}

fn ask(server: IpAddr, name: &str, address: IpAddr, patience: Duration) -> io::Result<bool> {
    let local: SocketAddr = match server {
        IpAddr::V4(_) => ([127, 0, 0, 1], 0).into(),
        IpAddr::V6(_) => ([0, 0, 0, 0, 0, 0, 0, 1u16], 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(patience))?;
    let Some(query) = query(name, address) else {
        return Ok(false);
    };
    socket.send(&query)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(says(&answer[..length], &query, address))
}

/// A question for the addresses of the family of `address` (RFC 1035 section 4.1); `None` for what is no
/// name.
fn query(name: &str, address: IpAddr) -> Option<Vec<u8>> {
    // An identifier, recursion desired, one question.
    let mut bytes = vec![0x6d, 0x68, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    let kind: u8 = if address.is_ipv4() { 1 } else { 28 };
    bytes.extend([0, 0, kind, 0, 1]);
    Some(bytes)
}

/// Whether `answer` is one to `query`, without an error, and holds `address`. No more is read of it: it
/// comes from this machine's own server, and all that follows is a choice between two ways.
fn says(answer: &[u8], query: &[u8], address: IpAddr) -> bool {
    let is_answer = answer.len() > query.len()
        && answer[..2] == query[..2]
        && answer[2] & 0x80 != 0
        && answer[3] & 0x0f == 0;
    let data: &[u8] = match &address {
        IpAddr::V4(address) => &address.octets(),
        IpAddr::V6(address) => &address.octets(),
    };
    is_answer
        && answer[query.len()..]
            .windows(data.len())
            .any(|window| window == data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libc_finds_this_machine() {
        let found = lookup("localhost", Duration::from_secs(10)).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(!found.is_empty());
    }

    #[test]
    fn an_interface_tells_its_addresses() {
        let loopback = if cfg!(target_os = "linux") {
            "lo"
        } else {
            "lo0"
        };
        let found = addresses_of(loopback).unwrap();
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
        assert!(addresses_of("mesh-no-such").unwrap().is_empty());
    }

    #[test]
    fn an_answer_counts_if_it_holds_the_address() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let query = query("a.mesh", address).unwrap();
        assert_eq!(query[12..], *b"\x01a\x04mesh\0\0\x01\0\x01");
        let mut answer = query.clone();
        answer[2] |= 0x80;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 7]);
        assert!(says(&answer, &query, address));
        assert!(!says(&answer, &query, "192.0.2.8".parse().unwrap()));
        // No such name.
        answer[3] |= 3;
        assert!(!says(&answer, &query, address));
        assert!(!says(&[], &query, address));
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        for name in ["", "a..b", &"x".repeat(64)] {
            assert_eq!(query(name, address), None);
        }
    }
}
