use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mesh_lab::wait_until;
use mesh_types::{IdentitySeed, WireguardPublicKey};

use crate::{OURS, THEIRS, namespace::Namespace};

/// A `wireguard-go` process and its device, stopped when dropped.
pub(crate) struct WireguardGo {
    process: Child,
    device: String,
    port: u16,
}

impl WireguardGo {
    /// Starts it in the namespace, on a free port.
    pub(crate) fn start(namespace: &Namespace, label: &str) -> Self {
        Self::start_on(namespace, &format!("mwg{}{label}", std::process::id()), 0)
    }

    fn start_on(namespace: &Namespace, device: &str, port: u16) -> Self {
        let process = namespace
            .command("wireguard-go")
            .args(["-f", device])
            .env("LOG_LEVEL", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut peer = Self {
            process,
            device: device.to_owned(),
            port,
        };
        // The socket is there when the process is ready to be configured.
        wait_until(Duration::from_secs(10), || {
            assert_eq!(peer.process.try_wait().unwrap(), None, "it has ended");
            let is_there = peer.control_socket().exists();
            is_there.then_some(()).ok_or("wireguard-go did not start")
        })
        .unwrap();
        let mut set = Command::new("wg")
            .args(["set", device, "listen-port", &port.to_string()])
            .args(["private-key", "/dev/stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let private = BASE64_STANDARD.encode(identity().static_secret().as_bytes());
        set.stdin
            .take()
            .unwrap()
            .write_all(private.as_bytes())
            .unwrap();
        assert!(set.wait().unwrap().success());
        let address = format!("{THEIRS}/64");
        namespace.run("ip", &["address", "add", &address, "dev", device, "nodad"]);
        namespace.run("ip", &["link", "set", device, "mtu", "1280", "up"]);
        peer.port = peer.show("listen-port").trim().parse().unwrap();
        peer
    }

    /// Makes us its peer.
    pub(crate) fn configure(&self, ours: &WireguardPublicKey, endpoint: Option<SocketAddr>) {
        let (key, allowed) = (ours.to_string(), format!("{OURS}/128"));
        let mut set = Command::new("wg");
        set.args(["set", &self.device, "peer", &key, "allowed-ips", &allowed]);
        if let Some(endpoint) = endpoint {
            set.args(["endpoint", &endpoint.to_string()]);
        }
        assert!(set.status().unwrap().success());
    }

    /// Ends the process as a crash does, and starts another with the same key and port.
    pub(crate) fn restart(self, namespace: &Namespace, ours: &WireguardPublicKey) -> Self {
        let (device, port) = (self.device.clone(), self.port);
        drop(self);
        let peer = Self::start_on(namespace, &device, port);
        peer.configure(ours, None);
        peer
    }

    pub(crate) fn public_key(&self) -> WireguardPublicKey {
        let key = identity().public().wireguard();
        assert_eq!(self.show("public-key").trim(), key.to_string());
        key
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// When `wg` says the last handshake was, in nanoseconds since 1970 as far as it tells: whole
    /// seconds; zero before the first.
    pub(crate) fn latest_handshake(&self) -> u64 {
        self.fields("latest-handshakes")[0]
    }

    /// Bytes received and sent, as `wg` counts them.
    pub(crate) fn transfer(&self) -> (u64, u64) {
        let fields = self.fields("transfer");
        (fields[0], fields[1])
    }

    /// The numbers after the peer's key.
    fn fields(&self, what: &str) -> Vec<u64> {
        self.show(what)
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap())
            .collect()
    }

    fn show(&self, what: &str) -> String {
        let output = Command::new("wg")
            .args(["show", &self.device, what])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn control_socket(&self) -> PathBuf {
        PathBuf::from(format!("/var/run/wireguard/{}.sock", self.device))
    }
}

impl Drop for WireguardGo {
    fn drop(&mut self) {
        // `ip netns exec` becomes the program, so this is wireguard-go itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(self.control_socket());
    }
}

fn identity() -> IdentitySeed {
    IdentitySeed::from_bytes([0x77; 32])
}
