//! Real TLS and QUIC over loopback.

use std::{net::Ipv4Addr, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::*;
use crate::crypto::{Expect, client_tls};

const DEADLINE: Duration = Duration::from_secs(20);

fn identity(number: u8) -> IdentitySeed {
    IdentitySeed::from_bytes([number; 32])
}

const CARRIERS: [Carrier; 2] = [Carrier::Tls, Carrier::Quic];

#[derive(Clone, Copy, Debug)]
enum Carrier {
    Tls,
    Quic,
}

async fn listener(carrier: Carrier) -> (StreamListener, SocketAddr) {
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = match carrier {
        Carrier::Tls => StreamListener::bind_tls(listen, &identity(1)).await,
        Carrier::Quic => StreamListener::bind_quic(listen, &identity(1)),
    };
    let listener = listener.unwrap();
    let address = listener.local_address().unwrap();
    (listener, address)
}

async fn dial(
    carrier: Carrier,
    address: SocketAddr,
    client: u8,
    server: u8,
) -> Result<Stream, StreamError> {
    let (own, expected) = (identity(client), identity(server).public().node_id());
    match carrier {
        Carrier::Tls => dial_tls(address, &own, expected).await,
        Carrier::Quic => dial_quic(address, &own, expected).await,
    }
}

/// A client's and a server's end.
async fn pair(carrier: Carrier) -> (Stream, Stream) {
    let (listener, address) = listener(carrier).await;
    let accept = async { listener.accept().await.unwrap().complete().await.unwrap() };
    let dialled = dial(carrier, address, 2, 1);
    let (server, client) = timeout(DEADLINE, async { tokio::join!(accept, dialled) })
        .await
        .unwrap();
    (client.unwrap(), server)
}

fn write_half(sender: &mut DatagramSender) -> &mut (impl tokio::io::AsyncWrite + Unpin) {
    match &mut sender.0 {
        Sender::Tls(sender) => &mut sender.write,
        Sender::Quic(_) => panic!("not over TLS"),
    }
}

async fn receive(stream: &mut Stream) -> Option<Vec<u8>> {
    let received = timeout(DEADLINE, stream.receiver.receive()).await.unwrap();
    received.unwrap().map(|datagram| datagram.to_vec())
}

#[tokio::test]
async fn both_sides_prove_their_keys_and_datagrams_of_any_length_arrive_whole() {
    let (mut client, mut server) = pair(Carrier::Tls).await;
    assert_eq!(client.peer, identity(1).public().node_id());
    assert_eq!(server.peer, identity(2).public().node_id());
    let datagrams: Vec<Vec<u8>> = [1, 2, 1_300, 65_535, 3, 65_535, 65_535]
        .into_iter()
        .enumerate()
        .map(|(index, length)| vec![u8::try_from(index).unwrap(); length])
        .collect();
    // More than the buffers between hold, so both sides go at once.
    let sending = async {
        let all = datagrams.iter().map(Vec::as_slice);
        client.sender.send(all).await.unwrap();
        for datagram in &datagrams {
            client.sender.send([datagram.as_slice()]).await.unwrap();
        }
    };
    let receiving = async {
        for datagram in datagrams.iter().chain(&datagrams) {
            assert_eq!(receive(&mut server).await.as_ref(), Some(datagram));
        }
    };
    tokio::join!(sending, receiving);
    server.sender.send([b"back".as_slice()]).await.unwrap();
    assert_eq!(
        receive(&mut client).await.as_deref(),
        Some(b"back".as_slice())
    );
}

#[tokio::test]
async fn quic_loses_no_datagram_for_its_length_while_it_finds_out_what_the_network_carries() {
    let (mut client, mut server) = pair(Carrier::Quic).await;
    assert_eq!(client.peer, identity(1).public().node_id());
    assert_eq!(server.peer, identity(2).public().node_id());
    let largest = |stream: &Stream| match &stream.sender.0 {
        Sender::Quic(sender) => sender.max_datagram_bytes(),
        Sender::Tls(_) => panic!("over TLS"),
    };
    // Nothing is known of the network yet: QUIC's least, less its own headers.
    let least = largest(&client);
    assert!((1_100..1_200).contains(&least), "{least}");
    // Both kinds take turns, the longest among them; each is answered before the next, as theirs is no one
    // order.
    for round in 0_u8..40 {
        for length in [1, least, least + 1, 1_332, 1_472, 65_535] {
            let datagram = vec![round; length];
            client.sender.send([datagram.as_slice()]).await.unwrap();
            let got = receive(&mut server).await.unwrap();
            server.sender.send([got.as_slice()]).await.unwrap();
            assert_eq!(receive(&mut client).await, Some(datagram));
        }
    }
    // By then it is: loopback carries more than QUIC looks for.
    let most = largest(&client);
    assert!(most > 1_380, "{most}");
}

#[tokio::test]
async fn what_waits_for_a_slow_network_is_bounded_and_the_oldest_gives_way() {
    let (mut client, mut server) = pair(Carrier::Quic).await;
    // 16 MB in one go, before QUIC has sent anything.
    let datagrams: Vec<[u8; 1_000]> = (0_u32..16_000)
        .map(|number| {
            let mut datagram = [0; 1_000];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            datagram
        })
        .collect();
    let all = datagrams.iter().map(<[u8; 1_000]>::as_slice);
    client.sender.send(all).await.unwrap();
    let mut got = Vec::new();
    let collect = async {
        // Any of them may be lost on the way, so the end is said until it is heard.
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                datagram = server.receiver.receive() => {
                    let datagram = datagram.unwrap().unwrap();
                    match datagram.first_chunk() {
                        Some(number) => got.push(u32::from_be_bytes(*number)),
                        None => return,
                    }
                }
                _ = ticks.tick() => client.sender.send([b"end".as_slice()]).await.unwrap(),
            }
        }
    };
    timeout(DEADLINE, collect).await.unwrap();
    assert!(got.len() < 16_000 / 4, "{} were kept", got.len());
    assert!(got.iter().any(|number| *number >= 15_000), "{got:?}");
}

#[tokio::test]
async fn what_is_empty_or_too_long_is_passed_over() {
    for carrier in CARRIERS {
        let (mut client, mut server) = pair(carrier).await;
        let long = vec![0; DATAGRAM_BYTES_MAX + 1];
        let datagrams = [b"".as_slice(), &long, b"short"];
        client.sender.send(datagrams).await.unwrap();
        assert_eq!(
            receive(&mut server).await.as_deref(),
            Some(b"short".as_slice()),
            "{carrier:?}"
        );
    }
}

#[tokio::test]
async fn a_server_with_another_key_is_not_taken() {
    for carrier in CARRIERS {
        let (listener, address) = listener(carrier).await;
        let accept = async { listener.accept().await.unwrap().complete().await };
        let (server, client) = tokio::join!(accept, dial(carrier, address, 2, 3));
        assert!(server.is_err(), "{carrier:?}");
        let Err(StreamError::Unexpected { found, .. }) = client else {
            panic!("taken over {carrier:?}");
        };
        assert_eq!(found, identity(1).public().node_id());
    }
}

#[tokio::test]
async fn a_client_without_a_key_is_turned_away() {
    let (listener, address) = listener(Carrier::Tls).await;
    let accept = async { listener.accept().await.unwrap().complete().await };
    let keyless = async {
        let expect = Expect::OneOf(vec![identity(1).public().node_id()]);
        let (config, _) = client_tls(None, expect, ALPN);
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    };
    let (server, _client) = tokio::join!(accept, keyless);
    assert!(matches!(server.err(), Some(StreamError::NoKey { .. })));
}

#[tokio::test]
async fn a_client_without_a_key_is_turned_away_over_quic() {
    let (listener, address) = listener(Carrier::Quic).await;
    let accept = async { listener.accept().await.unwrap().complete().await };
    let keyless = quic::dial_without_key(address, identity(1).public().node_id());
    let (server, _client) = tokio::join!(accept, keyless);
    assert!(matches!(server.err(), Some(StreamError::NoKey { .. })));
}

#[tokio::test]
async fn a_client_over_quic_can_be_made_to_prove_its_address() {
    let (listener, address) = listener(Carrier::Quic).await;
    let accept = async {
        let first = listener.accept().await.unwrap();
        assert!(first.prove_address().is_none(), "proven from the start");
        let again = listener.accept().await.unwrap();
        let again = again.prove_address().expect("proven by now");
        again.complete().await
    };
    let (server, client) = tokio::join!(accept, dial(Carrier::Quic, address, 2, 1));
    assert!(server.is_ok() && client.is_ok());
}

#[tokio::test]
async fn a_stream_that_the_other_side_closes_ends_without_an_error() {
    let (client, mut server) = pair(Carrier::Quic).await;
    drop(client);
    assert_eq!(receive(&mut server).await, None);
}

#[tokio::test]
async fn a_stream_that_ends_within_a_datagram_is_an_error_and_between_two_is_not() {
    let (client, mut server) = pair(Carrier::Tls).await;
    let Stream {
        mut sender,
        receiver,
        ..
    } = client;
    sender.send([b"last".as_slice()]).await.unwrap();
    write_half(&mut sender).shutdown().await.unwrap();
    assert_eq!(
        receive(&mut server).await.as_deref(),
        Some(b"last".as_slice())
    );
    assert_eq!(receive(&mut server).await, None);
    drop(receiver);

    let (client, mut server) = pair(Carrier::Tls).await;
    let Stream { mut sender, .. } = client;
    let write = write_half(&mut sender);
    write.write_all(&[0, 9, 1, 2, 3]).await.unwrap();
    write.shutdown().await.unwrap();
    assert!(
        timeout(DEADLINE, server.receiver.receive())
            .await
            .unwrap()
            .is_err()
    );
}
