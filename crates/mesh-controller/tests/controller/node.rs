//! A controller in this process, and clients of it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_control::{Closed, Connection, Expect, connect_to};
use mesh_controller::{Config, Running};
use mesh_inventory::roster::Roster;
use mesh_types::Serial;
use mesh_wire::control::{ErrorCode, Notice, Reply, Request};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::fleet::{ADMIN, CONTROLLER, identity, network};

/// Far above what anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct TestController {
    pub(crate) address: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The configuration of a controller whose files are in `dir`; `more` is TOML.
pub(crate) fn config(dir: &Path, more: &str) -> Config {
    let key = dir.join("identity");
    if !key.exists() {
        mesh_os::file::write_once(&key, identity(CONTROLLER).to_line().as_bytes(), 0o600).unwrap();
    }
    let text = format!(
        "network = '{}'\nsigners = ['{}']\nidentity_file = 'identity'\nlisten = '127.0.0.1:0'\nstate_dir = 'state'\nsocket = 'socket'\n{more}\n",
        network(),
        identity(ADMIN).public(),
    );
    let path = dir.join("controller.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

impl TestController {
    pub(crate) async fn start(dir: &Path, more: &str) -> Self {
        Self::run(config(dir, more)).await
    }

    pub(crate) async fn run(config: Config) -> Self {
        let socket = config.socket.clone();
        let running = Running::start(config).await.unwrap();
        let (address, http) = (running.address(), running.http_address());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(running.run_until(stopped));
        Self {
            address,
            http,
            socket,
            stop,
            task,
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    /// A connection with this identity, or with none.
    pub(crate) async fn connect(&self, number: Option<u8>) -> TestClient {
        let seed = number.map(identity);
        let expected = Expect::OneOf(vec![identity(CONTROLLER).public().node_id()]);
        let connection = connect_to(&[self.address], seed.as_ref(), expected)
            .await
            .unwrap();
        TestClient { connection }
    }

    /// A connection of an admitted machine.
    pub(crate) async fn join(&self, number: u8, serial: Option<u64>) -> TestClient {
        let client = self.connect(Some(number)).await;
        let reply = client.hello(number, serial).await;
        assert!(matches!(reply, Reply::Welcome { .. }), "{reply:?}");
        client
    }

    pub(crate) async fn push(&self, file: &[u8], force: bool) -> Reply {
        let client = self.connect(None).await;
        client.ask(&Request::Push { force }, file).await
    }

    pub(crate) async fn push_well(&self, roster: &Roster) {
        let reply = self.push(&roster.to_file(), false).await;
        assert!(matches!(reply, Reply::Accepted { serial, .. } if serial == roster.head().serial));
    }

    /// Asks the local socket.
    pub(crate) async fn get(&self, path: &str) -> Value {
        http_get(UnixStream::connect(&self.socket).await.unwrap(), path).await
    }

    /// Tells the local socket.
    pub(crate) async fn post(&self, path: &str) -> Value {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        http_ask(stream, "POST", path).await
    }

    /// Asks for the status until it is as wanted.
    pub(crate) async fn status_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let mut last = Value::Null;
        let ask = async {
            loop {
                ticks.tick().await;
                last = self.get("/v1/status").await;
                if wanted(&last) {
                    return last.clone();
                }
            }
        };
        let answer = timeout(DEADLINE, ask).await;
        answer.unwrap_or_else(|_| panic!("the status stays {last:#}"))
    }
}

pub(crate) async fn http_get(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> Value {
    http_ask(stream, "GET", path).await
}

pub(crate) async fn http_ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
) -> Value {
    let question = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

pub(crate) struct TestClient {
    pub(crate) connection: Connection,
}

impl TestClient {
    pub(crate) async fn ask(&self, request: &Request, attachment: &[u8]) -> Reply {
        self.ask_for_file(request, attachment).await.0
    }

    pub(crate) async fn ask_for_file(
        &self,
        request: &Request,
        attachment: &[u8],
    ) -> (Reply, Vec<u8>) {
        let answer = timeout(DEADLINE, self.connection.request(request, attachment)).await;
        answer.unwrap().unwrap()
    }

    pub(crate) async fn hello(&self, number: u8, serial: Option<u64>) -> Reply {
        self.hello_holding(number, serial, None).await
    }

    /// A hello of a machine that holds the roster with this serial and head.
    pub(crate) async fn hello_holding(
        &self,
        number: u8,
        serial: Option<u64>,
        head: Option<String>,
    ) -> Reply {
        let request = Request::Hello {
            identity: identity(number).public(),
            name: Some(format!("claims-{number}").parse().unwrap()),
            release: "0.1.0".to_owned(),
            serial: serial.map(|serial| Serial::try_from(serial).unwrap()),
            head,
            endpoints: vec![SocketAddr::from(([192, 0, 2, number], 4193))],
        };
        self.ask(&request, &[]).await
    }

    pub(crate) async fn notice(&self) -> Notice {
        let notice = timeout(DEADLINE, self.connection.next_notice()).await;
        notice.unwrap().unwrap()
    }

    pub(crate) async fn closed(&self) -> Closed {
        timeout(DEADLINE, self.connection.closed()).await.unwrap()
    }
}

pub(crate) fn serial(number: u64) -> Serial {
    Serial::try_from(number).unwrap()
}

#[track_caller]
pub(crate) fn assert_error(reply: Reply, expected: ErrorCode, words: &str) {
    let Reply::Error { code, message } = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(code, expected, "{message}");
    assert!(message.contains(words), "{message}");
}
