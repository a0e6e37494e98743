//! Sockets beside the agent's own: the one with which it measures for how long a NAT holds a mapping, and a
//! moon's second port, which answers where it sees a client, and from which it knocks.

use std::{net::SocketAddr, sync::Arc};

use mesh_os::{clock, socket};
use mesh_wire::reflect::REFLECT_BYTES;
use tokio::{net::UdpSocket, sync::mpsc};
use tracing::{debug, info};

use crate::{agent::Agent, netcheck, overlay};

/// What the engine wants done with the socket of a measurement.
#[derive(Debug)]
pub(crate) enum Measuring {
    /// Send, from a new socket or the one that there is.
    Send {
        to: SocketAddr,
        data: [u8; REFLECT_BYTES],
        fresh: bool,
    },
    /// It is not needed any more.
    Over,
}

/// Sends and receives for the engine's measurements, for ever.
pub(crate) async fn serve(agent: Arc<Agent>, mut wanted: mpsc::Receiver<Measuring>) {
    let mut socket: Option<UdpSocket> = None;
    let mut bytes = [0; 64];
    loop {
        let wanted = tokio::select! {
            wanted = wanted.recv() => wanted,
            received = receive(socket.as_ref(), &mut bytes) => {
                // An error is about something sent before: what is not answered shows by itself.
                if let Ok((length, from)) = received {
                    agent.overlay.handle_measured(from, &bytes[..length]);
                }
                continue;
            }
        };
        match wanted {
            Some(Measuring::Send { to, data, fresh }) => {
                if fresh {
                    socket = netcheck::bind(to.is_ipv6()).await.ok();
                }
                if let Some(socket) = &socket
                    && let Err(error) = socket.send_to(&data, to).await
                {
                    debug!(%error, "could not send");
                }
            }
            Some(Measuring::Over) => socket = None,
            // The sender lives as long as the agent.
            None => return std::future::pending().await,
        }
    }
}

async fn receive(
    socket: Option<&UdpSocket>,
    bytes: &mut [u8],
) -> std::io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(bytes).await,
        None => std::future::pending().await,
    }
}

/// Answers on a second port while this machine is a moon, for ever.
pub(crate) async fn serve_other_port(agent: Arc<Agent>) {
    let mut roster = agent.roster.subscribe();
    while !agent.overlay.moon.is_on() {
        if roster.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    let Some(socket) = bind_other() else {
        return std::future::pending().await;
    };
    let mut bytes = [0; 64];
    let other = agent.overlay.set_other_socket(socket);
    loop {
        let Ok((length, from)) = other.recv_from(&mut bytes).await else {
            continue;
        };
        let from = overlay::plain(from);
        let answer = agent
            .overlay
            .moon
            .reflect(from.into(), &bytes[..length], clock::now());
        if let Some(answer) = answer {
            // To where it came from, in the socket's own terms.
            let _ = other.send_to(&answer, overlay::mapped(&other, from)).await;
        }
    }
}

fn bind_other() -> Option<UdpSocket> {
    let any = |text: &str| text.parse().expect("an address and a port");
    // A machine without IPv6 has IPv4 alone.
    let bound = socket::bind_udp(any("[::]:0")).or_else(|_| socket::bind_udp(any("0.0.0.0:0")));
    let socket = bound.ok()?;
    socket.set_nonblocking(true).ok()?;
    let socket = UdpSocket::from_std(socket).ok()?;
    info!(
        port = socket.local_addr().ok()?.port(),
        "answering clients on a second port"
    );
    Some(socket)
}
