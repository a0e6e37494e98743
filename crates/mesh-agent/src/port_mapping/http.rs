//! One question by HTTP to a router: bounded in time and in bytes, and never to anyone else, whatever the
//! answer says.

use std::{io, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use mesh_wire::gateway::upnp::{DOCUMENT_BYTES_MAX, Url};
use tokio::{net::TcpStream, time::timeout};

/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The TCP ports on which routers take questions, and which the confined agent may connect to. miniupnpd takes
/// any port where none is configured; most routers that have it speak PCP or NAT-PMP besides.
pub(crate) const PORTS: [u16; 20] = [
    1780,  // Broadcom's
    1900,  // TP-Link's
    2048,  // Trendchip's
    2189,  // pfSense and OPNsense
    2828,  // miniupnpd as Debian configures it
    2869,  // Windows, Linksys
    5000,  // OpenWrt, Netgear
    5431,  // Broadcom's
    37215, // Huawei's
    37443, // Huawei's
    49000, // FRITZ!Box
    49152, // libupnp: the first that is free from here on
    49153, 49154, 49155, // libupnp
    52869, // Realtek's
    52881, // Realtek's
    56688, // Netgear's
    65530, // D-Link's
    65535, // D-Link's
];

/// HTTP's status and the body, or why there is none.
pub(super) type Answered = Result<(u16, Vec<u8>), String>;

/// Asks for `url`: a POST of SOAP's action and body, or a GET.
pub(super) async fn ask(url: Url, soap: Option<(String, String)>) -> Answered {
    match timeout(PATIENCE, exchange(&url, soap)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer from {} in {PATIENCE:?}", url.host)),
    }
}

async fn exchange(url: &Url, soap: Option<(String, String)>) -> Answered {
    let host = url.host;
    let stream = TcpStream::connect(host).await.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            let port = host.port();
            format!("the agent confines itself and may not connect to TCP port {port}")
        } else {
            format!("cannot connect to {host}: {error}")
        }
    })?;
    let broken = |error: hyper::Error| format!("{host} speaks no HTTP: {error}");
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut request = Request::builder()
        .uri(&url.path)
        .header(header::HOST, host.to_string())
        .header(header::CONNECTION, "close");
    let body = match soap {
        None => Full::default(),
        Some((action, body)) => {
            request = request
                .method("POST")
                .header(header::CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
                .header("SOAPAction", action);
            Full::new(Bytes::from(body))
        }
    };
    let request = request
        .body(body)
        .map_err(|error| format!("{host} describes itself at no proper place: {error}"))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|error| format!("{host}: {error}"))?;
        Ok((status, body.to_bytes().to_vec()))
    };
    // The connection's work is done beside the question, and is dropped with it.
    tokio::pin!(connection, talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        ended = &mut connection => match ended {
            // What was read before the end is still to be taken.
            Ok(()) => talk.await,
            Err(error) => Err(broken(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    /// A router that takes one question, which is returned, and gives one answer.
    async fn router(answer: Vec<u8>) -> (Url, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") && !question.ends_with(b"</x>") {
                let mut buffer = [0; 1024];
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    length => question.extend(&buffer[..length]),
                }
            }
            // Whoever asks may have heard enough.
            let _ = stream.write_all(&answer).await;
            String::from_utf8(question).unwrap()
        });
        let url = Url {
            host: SocketAddrV4::new([127, 0, 0, 1].into(), port),
            path: "/d.xml".to_owned(),
        };
        (url, task)
    }

    #[tokio::test]
    async fn a_question_is_asked_and_its_answer_taken() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<r/>";
        let (url, asked) = router(answer.into()).await;
        assert_eq!(ask(url, None).await, Ok((200, b"<r/>".to_vec())));
        assert!(asked.await.unwrap().starts_with("GET /d.xml HTTP/1.1\r\n"));
        // As older routers answer: the end of the connection is that of the answer.
        let answer = "HTTP/1.0 500 Internal Server Error\r\n\r\n<f/>";
        let (url, asked) = router(answer.into()).await;
        let soap = Some(("\"x#y\"".to_owned(), "<x></x>".to_owned()));
        assert_eq!(ask(url, soap).await, Ok((500, b"<f/>".to_vec())));
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("POST /d.xml HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\n<x></x>"), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_none() {
        let body = vec![b'x'; 4 * DOCUMENT_BYTES_MAX];
        let answer = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), body].concat();
        let (url, _asked) = router(answer).await;
        assert!(ask(url, None).await.is_err());
        let head = [
            b"HTTP/1.1 200 OK\r\nX: ".to_vec(),
            vec![b'x'; 2 * HEAD_BYTES_MAX],
        ]
        .concat();
        let (url, _asked) = router(head).await;
        assert!(ask(url, None).await.is_err());
        let (url, _asked) = router(b"no HTTP\r\n\r\n".to_vec()).await;
        assert!(ask(url, None).await.is_err());
    }

    #[tokio::test]
    async fn nobody_is_asked_elsewhere() {
        let (elsewhere, asked) = router(Vec::new()).await;
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
            elsewhere.host
        );
        let (url, _asked) = router(answer.into()).await;
        assert_eq!(ask(url, None).await, Ok((302, Vec::new())));
        assert!(!asked.is_finished());
        asked.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_says_nothing_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = Url {
            host: SocketAddrV4::new([127, 0, 0, 1].into(), port),
            path: "/".to_owned(),
        };
        let reason = ask(url, None).await.unwrap_err();
        assert!(reason.starts_with("no answer from 127.0.0.1:"), "{reason}");
    }
}
