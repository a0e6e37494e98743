//! Asks a daemon on its local socket: HTTP/1.1 over a UNIX socket, one JSON object an answer.

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use crate::failure::{Exit, Failure};

/// The largest answer that is read, in bytes: the status of a fleet of 25 000 fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A daemon on this machine.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// What it is called: `agent` or `controller`.
    name: &'static str,
    socket: PathBuf,
}

impl Daemon {
    /// The agent that listens on `socket`.
    pub(crate) fn agent(socket: impl Into<PathBuf>) -> Self {
        Self {
            name: "agent",
            socket: socket.into(),
        }
    }

    /// The controller that listens on `socket`.
    pub(crate) fn controller(socket: impl Into<PathBuf>) -> Self {
        Self {
            name: "controller",
            socket: socket.into(),
        }
    }

    /// Asks for `path_and_query`; the answer may take `limit`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with [`Exit::Unreachable`] if the daemon cannot be asked, with [`Exit::Refused`] and
    /// its own words if it refuses.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        limit: Duration,
    ) -> Result<T, Failure> {
        self.ask(Method::GET, path_and_query, limit).await
    }

    /// As [`Daemon::get`], for what changes something or sends packets.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        limit: Duration,
    ) -> Result<T, Failure> {
        self.ask(Method::POST, path_and_query, limit).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path_and_query: &str,
        limit: Duration,
    ) -> Result<T, Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(error))?;
        let request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(HOST, "mesh")
            .body(Empty::new())
            .context("this question cannot be asked")?;
        let answer = timeout(limit, exchange(stream, request)).await;
        let (status, body) = answer
            .map_err(|_| anyhow!("it did not answer within {} s", limit.as_secs()))
            .flatten()
            .map_err(|error| self.silent(error))?;
        if !status.is_success() {
            return Err(self.refusal(&body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let error = anyhow::Error::new(error).context(format!(
                "the {} at `{}` gave an answer that this release does not understand",
                self.name,
                self.socket.display()
            ));
            Failure::new(Exit::Refused, error)
                .hint("restart it, so that it runs the same release as this command")
        })
    }

    fn unreachable(&self, error: io::Error) -> Failure {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let socket = self.socket.display();
        let error = anyhow::Error::new(error)
            .context(format!("cannot reach the mesh {} at `{socket}`", self.name));
        let hint = if denied {
            denied_hint(mesh_os::unix::group_of(&self.socket).as_deref())
        } else {
            format!(
                "start it with `systemctl start mesh-{}` or `mesh {} run`, or pass `--socket PATH`",
                self.name, self.name
            )
        };
        Failure::new(Exit::Unreachable, error).hint(hint)
    }

    fn silent(&self, error: anyhow::Error) -> Failure {
        let error = error.context(format!(
            "no answer from the mesh {} at `{}`",
            self.name,
            self.socket.display()
        ));
        Failure::new(Exit::Unreachable, error)
    }

    fn refusal(&self, body: &[u8]) -> Failure {
        let error = match serde_json::from_slice::<mesh_api::Error>(body) {
            Ok(refusal) => anyhow!(refusal.error),
            Err(_) => anyhow!("the mesh {} does not know this question", self.name),
        };
        Failure::new(Exit::Refused, error)
    }
}

/// The next step for who may not use a socket of `group`.
fn denied_hint(group: Option<&str>) -> String {
    match group {
        Some(group) if group != "root" => format!(
            "only root and the group `{group}` may ask: use `sudo`, or join with `sudo usermod -aG {group} $USER` and log in again"
        ),
        Some(_) | None => {
            "only root may ask: use `sudo`, or name a `group` in the daemon's configuration"
                .to_owned()
        }
    }
}

/// Runs what asks a daemon.
///
/// # Errors
///
/// What `future` gives, and a [`Failure`] if the system has no resources for a runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(future)
}

/// One question of HTTP/1.1, and what is answered: the status and at most 64 MiB.
///
/// # Errors
///
/// What the connection gives.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| anyhow!(error))?;
        anyhow::Ok((status, body.to_bytes()))
    };
    // The connection moves the bytes while the answer is awaited, and ends with it or after it.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;
    use crate::failure::render;

    /// Answers one question with `response`.
    async fn serve(listener: UnixListener, response: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(response.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    }

    async fn ask(response: &str) -> (Result<serde_json::Value, Failure>, String) {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = Daemon::controller(&socket);
        let (answer, request) = tokio::join!(
            daemon.get("/v1/status?a=b", Duration::from_secs(10)),
            serve(listener, response)
        );
        (answer, request)
    }

    #[tokio::test]
    async fn an_answer_is_read() {
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"version\":1}";
        let (answer, request) = ask(response).await;
        assert_eq!(answer.unwrap(), serde_json::json!({"version": 1}));
        assert!(request.starts_with("GET /v1/status?a=b HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_daemons_words() {
        let response = "HTTP/1.1 404 Not Found\r\ncontent-length: 37\r\n\r\n{\"version\":1,\"error\":\"no such peer\"} ";
        let failure = ask(response).await.0.unwrap_err();
        assert_eq!(render(&failure), "error: no such peer\n");
    }

    #[test]
    fn whoever_may_not_ask_is_told_which_group_may() {
        assert!(denied_hint(Some("mesh")).contains("usermod -aG mesh $USER"));
        assert!(denied_hint(Some("root")).contains("name a `group`"));
        assert!(denied_hint(None).contains("use `sudo`"));
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_an_error_with_the_next_step() {
        let room = tempfile::tempdir().unwrap();
        let daemon = Daemon::agent(room.path().join("s"));
        let limit = Duration::from_secs(10);
        let failure = daemon
            .get::<serde_json::Value>("/", limit)
            .await
            .unwrap_err();
        let text = render(&failure).replace(&*room.path().to_string_lossy(), "ROOM");
        assert_eq!(
            text,
            "error: cannot reach the mesh agent at `ROOM/s`\n  caused by: No such file or directory (os error 2)\nhint: start it with `systemctl start mesh-agent` or `mesh agent run`, or pass `--socket PATH`\n"
        );
    }
}
