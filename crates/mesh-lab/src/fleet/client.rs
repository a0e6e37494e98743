//! Asks a daemon on its local socket, without the program under test in between.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The object that `GET path` answers.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let line = head.lines().next().unwrap_or_default();
    anyhow::ensure!(
        line.starts_with("HTTP/1.1 200"),
        "the answer is `{line}`: {body}"
    );
    serde_json::from_str(body).context("the answer is not what it should be")
}
