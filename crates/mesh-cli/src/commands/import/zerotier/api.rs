//! The API of the ZeroTier service on this machine: HTTP/1.1 on loopback, with a token.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use http_body_util::Empty;
use hyper::{Request, StatusCode, header::HOST};
use mesh_os::file;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use zeroize::Zeroizing;

use super::{
    super::draft::parse_json,
    members::{self, Network},
};
use crate::{
    client::{block_on, exchange},
    failure::{Exit, Failure},
};

/// Where ZeroTier keeps the token: Linux, NixOS, macOS.
const TOKEN_FILES: [&str; 2] = [
    "/var/lib/zerotier-one/authtoken.secret",
    "/Library/Application Support/ZeroTier/One/authtoken.secret",
];

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest token file, in bytes: ZeroTier writes 24.
const TOKEN_BYTES_MAX: usize = 1024;

/// Asks the controller at `api` for the network and its members.
///
/// # Errors
///
/// A [`Failure`]: nothing answers, the token is refused, or this is not the network's controller.
pub(super) fn ask(
    api: SocketAddr,
    token_file: Option<&Path>,
    network: Option<&str>,
) -> Result<Network, Failure> {
    let service = Service {
        api,
        token: token(token_file)?,
    };
    block_on(service.network(network))
}

struct Service {
    api: SocketAddr,
    token: Zeroizing<String>,
}

impl Service {
    async fn network(&self, wanted: Option<&str>) -> Result<Network, Failure> {
        let networks = self.get("/controller/network").await?;
        let networks: Vec<&str> = networks
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let id = match (wanted, networks.as_slice()) {
            (Some(id), known) if known.contains(&id) => id,
            (None, [only]) => only,
            (_, []) => {
                let error = anyhow!("the ZeroTier service on this machine controls no network");
                return Err(Failure::new(Exit::Refused, error).hint(
                    "run this on the machine that does, or give what another API says with `--file`",
                ));
            }
            (Some(id), known) => {
                let error = anyhow!(
                    "the ZeroTier service on this machine does not control network `{}`",
                    id.escape_debug()
                );
                return Err(Failure::new(Exit::Usage, error)
                    .hint(format!("it controls {}", known.join(", "))));
            }
            (None, known) => {
                let error = anyhow!(
                    "the ZeroTier service on this machine controls {} networks",
                    known.len()
                );
                return Err(Failure::new(Exit::Usage, error)
                    .hint(format!("choose with `--network`: {}", known.join(", "))));
            }
        };
        let network = self.get(&format!("/controller/network/{id}")).await?;
        let listed = self
            .get(&format!("/controller/network/{id}/member"))
            .await?;
        let mut list = Vec::new();
        // Each member's node address, and how often it was changed.
        for node in listed
            .as_object()
            .into_iter()
            .flat_map(|members| members.keys())
        {
            list.push(
                self.get(&format!("/controller/network/{id}/member/{node}"))
                    .await?,
            );
        }
        members::network(&json!({ "network": network, "members": list }))
            .context("the ZeroTier service gave an answer that is not understood")
            .map_err(Failure::from)
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = Request::get(path)
            .header(HOST, self.api.to_string())
            .header("X-ZT1-Auth", self.token.as_str())
            .body(Empty::new())
            .context("ZeroTier's token or answer has characters that HTTP cannot carry")?;
        let asked = async {
            let stream = TcpStream::connect(self.api).await?;
            exchange(stream, request).await
        };
        let (status, body) = timeout(PATIENCE, asked)
            .await
            .map_err(|_| anyhow!("it did not answer within {} s", PATIENCE.as_secs()))
            .flatten()
            .with_context(|| format!("no answer from the ZeroTier service at {}", self.api))
            .map_err(|error| {
                Failure::new(Exit::Unreachable, error)
                    .hint("start `zerotier-one`, or name its port with `--api 127.0.0.1:PORT`")
            })?;
        match status {
            StatusCode::OK => {
                parse_json(&format!("what the ZeroTier service says at {path}"), &body)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let error = anyhow!("the ZeroTier service refuses the token");
                Err(Failure::new(Exit::Refused, error)
                    .hint("`--token-file` names its `authtoken.secret`"))
            }
            StatusCode::NOT_FOUND => {
                let error = anyhow!("the ZeroTier service does not know `{path}`");
                Err(Failure::new(Exit::Refused, error)
                    .hint("run this on the machine that controls the network"))
            }
            other => Err(anyhow!("the ZeroTier service answers {other} to `{path}`").into()),
        }
    }
}

fn token(named: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let path = named.map(Path::to_owned).or_else(|| {
        TOKEN_FILES
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    });
    let Some(path) = path else {
        let error = anyhow!(
            "there is no ZeroTier service on this machine: no token in {}",
            TOKEN_FILES.join(" or ")
        );
        return Err(Failure::new(Exit::Unreachable, error).hint(
            "run this as root on the network's controller, or use `--token-file` or `--file`",
        ));
    };
    let bytes = file::read_bounded(&path, TOKEN_BYTES_MAX)
        .map(Zeroizing::new)
        .map_err(|error| {
            Failure::new(Exit::Usage, error).hint("only root may read it: use `sudo`")
        })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Failure::new(
            Exit::Usage,
            anyhow!("`{}` is no ZeroTier token", path.display()),
        )
    })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::failure::render;

    /// A ZeroTier service that knows `answers`, for want of a real one in any package.
    async fn serve(listener: TcpListener, answers: Vec<(&'static str, Value)>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap();
            let allowed = request
                .to_ascii_lowercase()
                .contains("x-zt1-auth: secret\r\n");
            let found = answers.iter().find(|(known, _)| *known == path);
            let (status, body) = match found {
                _ if !allowed => ("401 Unauthorized", "{}".to_owned()),
                Some((_, value)) => ("200 OK", value.to_string()),
                None => ("404 Not Found", "{}".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    async fn asked(token: &str, answers: Vec<(&'static str, Value)>) -> Result<Network, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Service {
            api: listener.local_addr().unwrap(),
            token: Zeroizing::new(token.to_owned()),
        };
        tokio::select! {
            network = service.network(None) => network,
            () = serve(listener, answers) => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn a_controller_tells_its_only_network() {
        let network = asked(
            "secret",
            vec![
                ("/controller/network", json!(["8056c2e21c000001"])),
                (
                    "/controller/network/8056c2e21c000001",
                    json!({ "id": "8056c2e21c000001", "name": "fleet" }),
                ),
                (
                    "/controller/network/8056c2e21c000001/member",
                    json!({ "efcc1b0947": 3 }),
                ),
                (
                    "/controller/network/8056c2e21c000001/member/efcc1b0947",
                    json!({ "id": "efcc1b0947", "authorized": true, "ipAssignments": ["10.1.2.3"] }),
                ),
            ],
        );
        let network = network.await.unwrap();
        assert_eq!(network.name, "fleet");
        assert_eq!(
            network.members[0].addresses,
            ["10.1.2.3".parse::<std::net::IpAddr>().unwrap()]
        );
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_told_with_the_next_step() {
        let failure = asked("wrong", Vec::new()).await.unwrap_err();
        assert!(render(&failure).contains("refuses the token"));
        let failure = asked("secret", vec![("/controller/network", json!([]))])
            .await
            .unwrap_err();
        assert!(render(&failure).contains("controls no network"));
        let several = json!(["8056c2e21c000001", "8056c2e21c000002"]);
        let failure = asked("secret", vec![("/controller/network", several)])
            .await
            .unwrap_err();
        assert!(render(&failure).contains("choose with `--network`"));
    }
}
