//! Real QUIC over loopback.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use mesh_types::{IdentitySeed, Serial};
use mesh_wire::control::{
    ATTACHMENT_BYTES_MAX, DecodeError, ErrorCode, FrameError, MESSAGE_BYTES_MAX, Notice, Reply,
    Request,
};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::*;

/// Far above what anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

fn identity(number: u8) -> IdentitySeed {
    IdentitySeed::from_bytes([number; 32])
}

fn server() -> (Server, SocketAddr) {
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity(1)).unwrap();
    let address = server.local_address();
    (server, address)
}

async fn accept(server: &Server) -> Client {
    let handshake = timeout(DEADLINE, server.accept()).await.unwrap().unwrap();
    handshake.complete().await.unwrap()
}

async fn pair() -> (Server, Client, Connection) {
    let (server, address) = server();
    let seed = identity(2);
    let connect = connect_to(
        std::slice::from_ref(&address),
        Some(&seed),
        Expect::OneOf(vec![identity(1).public().node_id()]),
    );
    let (client, connection) = tokio::join!(accept(&server), connect);
    (server, client, connection.unwrap())
}

#[tokio::test]
async fn both_sides_prove_their_keys_and_a_question_is_answered() {
    let (_server, client, connection) = pair().await;
    assert_eq!(client.node_id(), Some(identity(2).public().node_id()));
    assert_eq!(connection.server(), identity(1).public().node_id());
    assert_eq!(
        connection.local_port(),
        Some(client.remote_address().port())
    );
    assert!(client.remote_address().is_ipv4());

    let roster = vec![7; 3 * 1024 * 1024];
    let request = Request::Push { force: true };
    let serve = async {
        let mut question = client.next_question().await.unwrap();
        assert_eq!(question.request().await.unwrap(), request);
        assert_eq!(question.attachment_bytes(), roster.len());
        let pushed = question.attachment(ATTACHMENT_BYTES_MAX).await.unwrap();
        assert_eq!(pushed, roster);
        question.answer(&Reply::Done, b"attached").await.unwrap();
    };
    let (reply, ()) = tokio::join!(connection.request(&request, &roster), serve);
    let (reply, attachment) = reply.unwrap();
    assert_eq!(reply, Reply::Done);
    assert_eq!(attachment, b"attached");
}

#[tokio::test]
async fn a_client_without_a_key_may_ask() {
    let (server, address) = server();
    let addresses = [address];
    let connect = connect_to(&addresses, None, Expect::Any);
    let (client, connection) = tokio::join!(accept(&server), connect);
    let connection = connection.unwrap();
    assert_eq!(client.node_id(), None);
    assert_eq!(connection.server(), identity(1).public().node_id());

    let request = Request::Push { force: false };
    let serve = async {
        let question = client.next_question().await.unwrap();
        question.answer(&Reply::UpToDate, &[]).await.unwrap();
    };
    let (reply, ()) = tokio::join!(connection.request(&request, b"x"), serve);
    assert_eq!(reply.unwrap().0, Reply::UpToDate);
}

#[tokio::test]
async fn a_server_with_another_key_is_refused_and_named() {
    let (server, address) = server();
    let seed = identity(2);
    let addresses = [address];
    let expected = Expect::OneOf(vec![identity(3).public().node_id()]);
    let connect = connect_to(&addresses, Some(&seed), expected);
    let accept = async { server.accept().await.unwrap().complete().await };
    let (client, connection) = tokio::join!(accept, connect);
    assert!(client.is_err(), "the server learns nothing of the client");
    let error = connection.unwrap_err();
    let key = identity(1).public().node_id();
    assert!(matches!(error, ConnectError::Unexpected { found, .. } if found == key));
}

#[tokio::test]
async fn one_socket_serves_both_families() {
    let server = Server::bind((Ipv6Addr::UNSPECIFIED, 0).into(), &identity(1)).unwrap();
    let port = server.local_address().port();
    // The first address is dead, and costs no more than its head start.
    let addresses = [
        (Ipv6Addr::LOCALHOST, 9).into(),
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    ];
    let connect = connect_to(&addresses, None, Expect::Any);
    let started = Instant::now();
    let (client, connection) = tokio::join!(accept(&server), connect);
    assert_eq!(client.remote_address().ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(connection.unwrap().remote_address().port(), port);
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn nobody_answering_is_an_error_that_names_the_address() {
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let error = connect_to(&[address], None, Expect::Any).await.unwrap_err();
    assert_eq!(error.to_string(), format!("`{address}` does not answer"));
    let none = connect_to(&[], None, Expect::Any).await.unwrap_err();
    assert!(matches!(none, ConnectError::NoAddress));
}

/// Sends `bytes` as a question, as a client that does not keep to the protocol would.
async fn raw_question(connection: &Connection, bytes: &[u8]) -> quinn::RecvStream {
    let (mut send, receive) = connection.raw().open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    receive
}

#[tokio::test]
async fn what_a_newer_client_asks_can_be_answered() {
    let (_server, client, connection) = pair().await;
    let body = br#"{"type":"teleport"}"#;
    let frame = [&[0, 0, 0, 19, 0, 0, 0, 0][..], body].concat();
    let mut receive = raw_question(&connection, &frame).await;
    let mut question = client.next_question().await.unwrap();
    let error = question.request().await.unwrap_err();
    assert!(matches!(error, ReadError::Decode(DecodeError::Unknown(tag)) if tag == "teleport"));
    let reply = Reply::Error {
        code: ErrorCode::Unsupported,
        message: "unknown".into(),
    };
    let (answered, read) = tokio::join!(
        question.answer(&reply, &[]),
        framing::read_message::<Reply>(&mut receive)
    );
    answered.unwrap();
    assert_eq!(read.unwrap().0, reply);
}

#[tokio::test]
async fn frames_that_are_too_long_or_too_short_are_refused() {
    let (_server, client, connection) = pair().await;
    let too_long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap();
    let header = [too_long.to_be_bytes(), [0; 4]].concat();
    let _stream = raw_question(&connection, &header).await;
    let mut question = client.next_question().await.unwrap();
    let error = question.request().await.unwrap_err();
    assert!(matches!(error, ReadError::Frame(FrameError::Message(n)) if n == too_long));

    let _stream = raw_question(&connection, &[0, 0, 0, 9, 0, 0, 0, 0, b'{']).await;
    let mut question = client.next_question().await.unwrap();
    let error = question.request().await.unwrap_err();
    assert!(matches!(error, ReadError::CutShort));

    // An attachment within the protocol's bounds and above this question's.
    let body = br#"{"type":"push","force":false}"#;
    let frame = [&[0, 0, 0, 29, 0, 0, 1, 0][..], body].concat();
    let _stream = raw_question(&connection, &frame).await;
    let mut question = client.next_question().await.unwrap();
    question.request().await.unwrap();
    let error = question.attachment(255).await.unwrap_err();
    assert!(matches!(
        error,
        ReadError::Attachment {
            found: 256,
            max: 255
        }
    ));
}

#[tokio::test]
async fn a_client_that_opens_streams_and_says_nothing_gets_few_and_harms_nobody() {
    let (server, client, connection) = pair().await;
    let mut opened = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), connection.raw().open_bi()).await {
        let (mut send, receive) = stream.unwrap();
        send.write_all(&[0]).await.unwrap();
        opened.push((send, receive));
        assert!(opened.len() <= 8, "streams without bound");
    }
    assert_eq!(opened.len(), 8);
    assert!(connection.raw().max_datagram_size().is_none());
    let uni = timeout(Duration::from_millis(300), connection.raw().open_uni());
    assert!(uni.await.is_err(), "a client has nothing to say unasked");

    let addresses = [server.local_address()];
    let other = connect_to(&addresses, None, Expect::Any);
    let (other_client, other) = tokio::join!(accept(&server), other);
    let other = other.unwrap();
    let serve = async {
        let question = other_client.next_question().await.unwrap();
        question.answer(&Reply::Done, &[]).await.unwrap();
    };
    let request = Request::Roster { have: None };
    let (reply, ()) = tokio::join!(other.request(&request, &[]), serve);
    assert_eq!(reply.unwrap().0, Reply::Done);
    drop(client);
}

#[tokio::test]
async fn notices_arrive_and_unknown_ones_are_passed_over() {
    let (_server, client, connection) = pair().await;
    let mut stream = client.raw().open_uni().await.unwrap();
    let body = br#"{"type":"dance"}"#;
    let frame = [&[0, 0, 0, 16, 0, 0, 0, 0][..], body].concat();
    stream.write_all(&frame).await.unwrap();
    stream.finish().unwrap();
    let notice = Notice::Roster {
        serial: Serial::FIRST,
    };
    let (notified, read) = tokio::join!(client.notify(&notice), connection.next_notice());
    notified.unwrap();
    assert_eq!(read.unwrap(), notice);
}

#[tokio::test]
async fn a_message_whose_end_travels_alone_is_taken_as_any_other() {
    let (_server, client, connection) = pair().await;
    let mut stream = client.raw().open_uni().await.unwrap();
    let body = br#"{"type":"roster","serial":1}"#;
    let frame = [&[0, 0, 0, 28, 0, 0, 0, 0][..], body].concat();
    let write = async {
        stream.write_all(&frame).await.unwrap();
        // A question there and back: by then the client has read the message.
        let ask = connection.request(&Request::Roster { have: None }, &[]);
        let serve = async {
            let mut question = client.next_question().await.unwrap();
            question.request().await.unwrap();
            question.answer(&Reply::Done, &[]).await
        };
        let (asked, served) = tokio::join!(ask, serve);
        asked.unwrap();
        served.unwrap();
        stream.finish().unwrap();
        stream.stopped().await.unwrap()
    };
    let (notice, stopped) = tokio::join!(connection.next_notice(), write);
    assert!(matches!(notice, Ok(Notice::Roster { .. })), "{notice:?}");
    assert_eq!(stopped, None, "the client turned it down");
}

#[tokio::test]
async fn the_reason_for_a_close_reaches_the_client() {
    let (_server, client, connection) = pair().await;
    client.close(CloseCode::NotAdmitted, "no such key");
    assert_eq!(
        connection.closed().await,
        Closed::ByPeer {
            code: CloseCode::NotAdmitted,
            reason: "no such key".into()
        }
    );
    let error = connection.next_notice().await.unwrap_err();
    assert!(matches!(error, Closed::ByPeer { .. }));
}

#[tokio::test]
async fn a_server_that_goes_down_says_so() {
    let (server, _client, connection) = pair().await;
    let (closed, ()) = tokio::join!(connection.closed(), server.shutdown());
    assert!(matches!(
        closed,
        Closed::ByPeer {
            code: CloseCode::GoingAway,
            ..
        }
    ));
}

/// Carries packets between one client and the server of the moment, so that a server can be cut off
/// from one packet to the next as a killed process is.
async fn carry(front: UdpSocket, mut server: watch::Receiver<SocketAddr>) {
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut client = None;
    let (mut from_client, mut from_server) = ([0; 2048], [0; 2048]);
    loop {
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut from_client) => {
                client = Some(from);
                let to = *server.borrow_and_update();
                let _ = back.send_to(&from_client[..length], to).await;
            }
            Ok((length, from)) = back.recv_from(&mut from_server) => {
                if from == *server.borrow() {
                    let _ = front.send_to(&from_server[..length], client.unwrap()).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_a_killed_server_learns_of_its_restart_at_the_next_keepalive() {
    let (before, address) = server();
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addresses = [front.local_addr().unwrap()];
    let (switch, target) = watch::channel(address);
    let carrier = tokio::spawn(carry(front, target));
    let connect = connect_to(&addresses, None, Expect::Any);
    let (client, connection) = tokio::join!(accept(&before), connect);
    let connection = connection.unwrap();
    // An answered question shows that both sides are past the handshake.
    let serve = async {
        let question = client.next_question().await.unwrap();
        question.answer(&Reply::Done, &[]).await.unwrap();
    };
    let request = Request::Roster { have: None };
    let (reply, ()) = tokio::join!(connection.request(&request, &[]), serve);
    reply.unwrap();

    let (_after, address) = server();
    switch.send(address).unwrap();
    let started = Instant::now();
    let closed = timeout(DEADLINE, connection.closed()).await.unwrap();
    assert_eq!(closed, Closed::Reset);
    assert!(started.elapsed() < KEEP_ALIVE + Duration::from_secs(2));
    carrier.abort();
}

#[tokio::test]
async fn many_clients_are_served_at_once() {
    const CLIENTS: u8 = 100;
    let (server, address) = server();
    let serve = async {
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            let handshake = server.accept().await.unwrap();
            tasks.spawn(async move {
                let client = handshake.complete().await.unwrap();
                let mut question = client.next_question().await.unwrap();
                question.request().await.unwrap();
                question.answer(&Reply::UpToDate, &[]).await.unwrap();
                client.closed().await
            });
        }
        tasks.join_all().await
    };
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(async move {
            let seed = identity(number);
            let connection = connect_to(&[address], Some(&seed), Expect::Any)
                .await
                .unwrap();
            let request = Request::Roster { have: None };
            let (reply, _) = connection.request(&request, &[]).await.unwrap();
            connection.close().await;
            reply
        });
    }
    let (ended, replies) = timeout(DEADLINE, async { tokio::join!(serve, clients.join_all()) })
        .await
        .unwrap();
    assert_eq!(ended.len(), usize::from(CLIENTS));
    assert!(replies.iter().all(|reply| *reply == Reply::UpToDate));
}
