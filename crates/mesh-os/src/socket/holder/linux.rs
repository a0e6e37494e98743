//! Finds the process that has a port, through `/proc` (proc(5), `/proc/net/udp`).

use std::{fs, path::Path};

use super::super::{Holder, Transport};

/// A line of `/proc/net/udp` and the like.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    port: u16,
    uid: u32,
    inode: u64,
}

/// The value of `st` in `/proc/net/tcp` of a socket that listens.
const TCP_LISTEN: &str = "0A";

/// Looks through the lists of sockets, then through the processes' descriptors.
pub(super) fn find(transport: Transport, port: u16) -> Holder {
    let names = match transport {
        Transport::Udp => ["udp", "udp6"],
        Transport::Tcp => ["tcp", "tcp6"],
    };
    let entry = names.iter().find_map(|name| {
        // Of this thread, which may be in another network namespace than the process.
        let list = fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok()?;
        list.lines()
            .filter_map(|line| parse(line, transport))
            .find(|entry| entry.port == port)
    });
    let Some(entry) = entry else {
        return Holder::Unknown;
    };
    process_with(entry.inode).unwrap_or(Holder::OtherUser { uid: entry.uid })
}

fn parse(line: &str, transport: Transport) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let uid = fields.nth(3)?;
    let inode = fields.nth(1)?;
    if transport == Transport::Tcp && state != TCP_LISTEN {
        return None;
    }
    let (_, port) = local.rsplit_once(':')?;
    Some(Entry {
        port: u16::from_str_radix(port, 16).ok()?,
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

fn process_with(inode: u64) -> Option<Holder> {
    let link = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some((pid, entry.path()))
    });
    for (pid, dir) in pids {
        if has_open(&dir, &link) {
            let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            return Some(Holder::Process {
                name: name.trim_end().to_owned(),
                pid,
            });
        }
    }
    None
}

fn has_open(process: &Path, link: &str) -> bool {
    let Ok(fds) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    fds.flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_lists_are_read() {
        let udp = "  488: 00000000:1061 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 23456 2 0000000000000000 0";
        let expected = Entry {
            port: 4193,
            uid: 998,
            inode: 23456,
        };
        assert_eq!(parse(udp, Transport::Udp), Some(expected));
        let connected = "   1: 0100007F:0016 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(parse(connected, Transport::Tcp), None);
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
        assert_eq!(parse(header, Transport::Udp), None);
        assert_eq!(parse("", Transport::Udp), None);
    }
}
