//! Real TLS over loopback.

use std::net::Ipv4Addr;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn identity(number: u8) -> IdentitySeed {
    IdentitySeed::from_bytes([number; 32])
}

async fn listener() -> (StreamListener, SocketAddr) {
    let listener = StreamListener::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity(1)).await;
    let listener = listener.unwrap();
    let address = listener.local_address().unwrap();
    (listener, address)
}

/// A client's and a server's end.
async fn pair() -> (Stream, Stream) {
    let (listener, address) = listener().await;
    let accept = async { listener.accept().await.unwrap().complete().await.unwrap() };
    let client = identity(2);
    let dialled = dial(address, &client, identity(1).public().node_id());
    let (server, client) = timeout(DEADLINE, async { tokio::join!(accept, dialled) })
        .await
        .unwrap();
    (client.unwrap(), server)
}

async fn receive(stream: &mut Stream) -> Option<Vec<u8>> {
    let received = timeout(DEADLINE, stream.receiver.receive()).await.unwrap();
    received.unwrap().map(|datagram| datagram.to_vec())
}

#[tokio::test]
async fn both_sides_prove_their_keys_and_datagrams_of_any_length_arrive_whole() {
    let (mut client, mut server) = pair().await;
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
async fn what_is_empty_or_too_long_is_passed_over() {
    let (mut client, mut server) = pair().await;
    let long = vec![0; DATAGRAM_BYTES_MAX + 1];
    let datagrams = [b"".as_slice(), &long, b"short"];
    client.sender.send(datagrams).await.unwrap();
    assert_eq!(
        receive(&mut server).await.as_deref(),
        Some(b"short".as_slice())
    );
}

#[tokio::test]
async fn a_server_with_another_key_is_not_taken() {
    let (listener, address) = listener().await;
    let accept = async { listener.accept().await.unwrap().complete().await };
    let client = identity(2);
    let dialled = dial(address, &client, identity(3).public().node_id());
    let (server, client) = tokio::join!(accept, dialled);
    assert!(server.is_err());
    let Err(StreamError::Unexpected { found, .. }) = client else {
        panic!("taken");
    };
    assert_eq!(found, identity(1).public().node_id());
}

#[tokio::test]
async fn a_client_without_a_key_is_turned_away() {
    let (listener, address) = listener().await;
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
async fn a_stream_that_ends_within_a_datagram_is_an_error_and_between_two_is_not() {
    let (client, mut server) = pair().await;
    let Stream {
        mut sender,
        receiver,
        ..
    } = client;
    sender.send([b"last".as_slice()]).await.unwrap();
    sender.write.shutdown().await.unwrap();
    assert_eq!(
        receive(&mut server).await.as_deref(),
        Some(b"last".as_slice())
    );
    assert_eq!(receive(&mut server).await, None);
    drop(receiver);

    let (client, mut server) = pair().await;
    let Stream { mut sender, .. } = client;
    sender.write.write_all(&[0, 9, 1, 2, 3]).await.unwrap();
    sender.write.shutdown().await.unwrap();
    assert!(
        timeout(DEADLINE, server.receiver.receive())
            .await
            .unwrap()
            .is_err()
    );
}
