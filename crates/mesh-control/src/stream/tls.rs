//! Over TLS on TCP.

use std::{io, net::SocketAddr, sync::Arc};

use mesh_types::{IdentitySeed, NodeId};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    ALPN, DatagramReceiver, DatagramSender, HANDSHAKE_TIMEOUT, Stream, StreamError, frames,
    frames::FrameReader,
};
use crate::crypto::{Expect, client_tls, server_tls, shown_key};

pub(super) struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

pub(super) struct Handshake {
    tcp: TcpStream,
    acceptor: TlsAcceptor,
}

pub(super) struct Sender {
    pub(super) write: Box<dyn AsyncWrite + Send + Unpin>,
    frames: Vec<u8>,
}

pub(super) type Receiver = FrameReader<Box<dyn AsyncRead + Send + Unpin>>;

pub(super) async fn dial(
    address: SocketAddr,
    identity: &IdentitySeed,
    expected: NodeId,
) -> Result<Stream, StreamError> {
    let (config, unexpected) = client_tls(Some(identity), Expect::OneOf(vec![expected]), ALPN);
    let open = async {
        let connect = |source| StreamError::Connect { address, source };
        let tcp = TcpStream::connect(address).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        // Not sent: a server is its key.
        let name = ServerName::IpAddress(address.ip().into());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let tls = tls.await.map_err(|source| match unexpected.get() {
            Some(found) => StreamError::Unexpected {
                address,
                found: *found,
            },
            None => StreamError::Tls { address, source },
        })?;
        let (read, write) = tokio::io::split(tls);
        Ok(stream(expected, read, write))
    };
    match timeout(HANDSHAKE_TIMEOUT, open).await {
        Ok(opened) => opened,
        Err(_) => Err(StreamError::TimedOut { address }),
    }
}

impl Listener {
    pub(super) async fn bind(listen: SocketAddr, identity: &IdentitySeed) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(server_tls(identity, ALPN))),
        })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<(Handshake, SocketAddr)> {
        let (tcp, remote) = self.listener.accept().await?;
        let acceptor = self.acceptor.clone();
        Ok((Handshake { tcp, acceptor }, remote))
    }
}

impl Handshake {
    pub(super) async fn complete(self, address: SocketAddr) -> Result<Stream, StreamError> {
        let failed = |source| StreamError::Tls { address, source };
        self.tcp.set_nodelay(true).map_err(failed)?;
        let tls = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(self.tcp))
            .await
            .map_err(|_| StreamError::TimedOut { address })?
            .map_err(failed)?;
        let peer = shown_key(tls.get_ref().1.peer_certificates());
        let peer = peer.ok_or(StreamError::NoKey { address })?;
        let (read, write) = tokio::io::split(tls);
        Ok(stream(peer, read, write))
    }
}

fn stream(
    peer: NodeId,
    read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
) -> Stream {
    let sender = Sender {
        write: Box::new(write),
        frames: Vec::new(),
    };
    Stream {
        peer,
        sender: DatagramSender(super::Sender::Tls(sender)),
        receiver: DatagramReceiver(super::Receiver::Tls(FrameReader::new(Box::new(read)))),
    }
}

impl Sender {
    pub(super) async fn send<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        self.frames.clear();
        for datagram in datagrams {
            frames::push(&mut self.frames, datagram);
        }
        self.write.write_all(&self.frames).await?;
        self.write.flush().await
    }
}

pub(super) async fn receive(receiver: &mut Receiver) -> io::Result<Option<&mut [u8]>> {
    let datagram = receiver.next().await?;
    Ok(datagram.map(|range| receiver.at(range)))
}
