//! Echoes from inside a namespace (RFC 792, RFC 4443 section 4).

use std::{
    io,
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_types::InternetSum;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

pub(crate) const ECHO_REQUEST: u8 = 128;
pub(crate) const ECHO_REPLY: u8 = 129;

/// The same two of IPv4's ICMP.
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;

/// How long one echo is waited for before the next is sent.
const PERIOD: Duration = Duration::from_millis(200);

/// Sends echoes from one namespace. One at a time: a pinger is for one thread.
#[derive(Debug)]
pub struct Pinger {
    /// Raw sockets; the type of UDP's serves for its safe calls.
    ipv4: UdpSocket,
    ipv6: UdpSocket,
    identifier: u16,
    sequence: AtomicU16,
}

impl Pinger {
    /// Opens raw sockets in `namespace`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn new(namespace: &Namespace) -> anyhow::Result<Self> {
        let open = |domain, protocol| {
            let socket = namespace.run(|| {
                Socket::new(domain, Type::RAW, Some(protocol))
                    .context("cannot open a socket for ICMP")
            })?;
            anyhow::Ok(socket.into())
        };
        Ok(Self {
            ipv4: open(Domain::IPV4, Protocol::ICMPV4)?,
            ipv6: open(Domain::IPV6, Protocol::ICMPV6)?,
            identifier: new_identifier(),
            sequence: AtomicU16::new(0),
        })
    }

    /// Sends echoes, five a second, until one is answered; returns its round trip, or `None` if none was
    /// answered within `patience`.
    ///
    /// # Errors
    ///
    /// What the socket gives. An unreachable destination is no error but no answer.
    pub fn ping(
        &self,
        to: impl Into<IpAddr>,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let to = to.into();
        let deadline = Instant::now() + patience;
        loop {
            let sent = Instant::now();
            let Some(left) = deadline.checked_duration_since(sent) else {
                return Ok(None);
            };
            if let Some(rtt) = self.once(to, left.min(PERIOD))? {
                return Ok(Some(rtt));
            }
            // An unreachable destination is told at once; a pause keeps this from spinning.
            std::thread::sleep(PERIOD.saturating_sub(sent.elapsed()).min(left));
        }
    }

    /// Sends one echo and waits at most `patience` for its answer.
    ///
    /// # Errors
    ///
    /// As [`Pinger::ping`].
    pub fn once(
        &self,
        to: impl Into<IpAddr>,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let to = to.into();
        let (socket, request, reply) = match to {
            IpAddr::V4(_) => (&self.ipv4, ECHO_REQUEST_V4, ECHO_REPLY_V4),
            IpAddr::V6(_) => (&self.ipv6, ECHO_REQUEST, ECHO_REPLY),
        };
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let request = message(request, self.identifier, sequence);
        let sent = Instant::now();
        if socket.send_to(&request, (to, 0)).is_err() {
            return Ok(None);
        }
        let expected = message(reply, self.identifier, sequence);
        let mut buffer = [0; 64];
        loop {
            let Some(left) = patience
                .checked_sub(sent.elapsed())
                .filter(|left| !left.is_zero())
            else {
                return Ok(None);
            };
            socket.set_read_timeout(Some(left))?;
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let received = without_header(&buffer[..length], to);
                    if from.ip() == to && answers(received, &expected) {
                        return Ok(Some(sent.elapsed()));
                    }
                }
                Err(error) if is_no_answer(&error) => {}
                Err(error) => return Err(error).context("cannot receive an echo"),
            }
        }
    }
}

/// An identifier that no other pinger of this process has.
pub(crate) fn new_identifier() -> u16 {
    static IDENTIFIERS: AtomicU16 = AtomicU16::new(1);
    IDENTIFIERS.fetch_add(1, Ordering::Relaxed)
}

/// An echo. On a raw ICMPv6 socket the kernel makes its checksum another (RFC 3542 section 3.1).
fn message(kind: u8, identifier: u16, sequence: u16) -> [u8; 8] {
    let ([i0, i1], [s0, s1]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    let mut message = [kind, 0, 0, 0, i0, i1, s0, s1];
    let checksum = InternetSum::default().with(&message).checksum();
    message[2..4].copy_from_slice(&checksum);
    message
}

/// A raw socket of IPv4 gives the header, too.
fn without_header(received: &[u8], from: IpAddr) -> &[u8] {
    let header_bytes = match received {
        [first, ..] if from.is_ipv4() => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    received.get(header_bytes..).unwrap_or_default()
}

/// Whether `received` is `expected`, whatever its checksum.
fn answers(received: &[u8], expected: &[u8; 8]) -> bool {
    received.len() == expected.len()
        && received[..2] == expected[..2]
        && received[4..] == expected[4..]
}

/// What a wait may end with instead of an echo.
pub(crate) fn is_no_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
