//! The agent's configuration file.

mod endpoint;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh_inventory::{inventory::parse_rate, roster::Signer};
use mesh_os::{
    paths,
    resolver::Choice,
    tun::{Offload, QUEUES_MAX, usual_queues},
};
use mesh_types::{MachineName, NetworkId, Serial};
use serde::Deserialize;
use toml::de::DeTable;

pub use endpoint::{HostPort, ParseHostPortError};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = paths::AGENT_CONFIG;

/// The keys of the file, in the order of the documentation.
const KEYS: [&str; 21] = [
    "network",
    "signers",
    "controllers",
    "identity_file",
    "listen",
    "interface",
    "state_dir",
    "socket",
    "group",
    "min_serial",
    "name",
    "user",
    "confine",
    "dns",
    "resolver",
    "relay_listen",
    "relay_rate",
    "port_mapping",
    "offload",
    "queues",
    "metrics_listen",
];

/// What the file must say.
const REQUIRED: [&str; 3] = ["network", "signers", "controllers"];

/// The longest interface name that Linux takes, in bytes (`IFNAMSIZ` less the terminating zero).
const INTERFACE_BYTES_MAX: usize = 15;

/// The agent's configuration, parsed and checked before anything is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `network`: the network's id. Required.
    pub network: NetworkId,
    /// `signers`: who may sign rosters, SSH public keys or `mesh1` identities. Required.
    pub signers: Vec<Signer>,
    /// `controllers`: `host:port` of each controller. Required; may be empty on a machine that only
    /// ever serves from its stored roster and hears of newer ones from its peers.
    pub controllers: Vec<HostPort>,
    /// `identity_file`: the file that `mesh keygen` wrote. Default: the credential `identity` that the
    /// service manager gave, else `/etc/mesh/identity`.
    pub identity_file: PathBuf,
    /// `listen`: the UDP address of the data plane. Default `[::]:4193`, IPv4 included.
    pub listen: SocketAddr,
    /// `interface`: the TUN device's name. Default `mesh0`; on macOS the first free `utun`.
    pub interface: String,
    /// `state_dir`: where the roster in force is kept. Default `/var/lib/mesh/agent`; see
    /// [`mesh_os::paths`] for other systems.
    pub state_dir: PathBuf,
    /// `socket`: the local API's UNIX socket. Default `/run/mesh/agent.sock`; see
    /// [`mesh_os::paths`] for other systems.
    pub socket: PathBuf,
    /// `group`: whose members may use the socket. Default: `mesh`, if there is that group.
    pub group: Option<String>,
    /// `min_serial`: the lowest serial of a roster to take. Default: any.
    pub min_serial: Option<Serial>,
    /// `name`: the name to claim, and to derive an address from, before the first roster. Default:
    /// the first label of the host's name is claimed, and no address is set before the first roster.
    pub name: Option<MachineName>,
    /// `user`: the account to change to. Default: `mesh` if there is one, else `nobody`.
    pub user: Option<String>,
    /// `confine`: whether the agent takes from itself what it does not need after its start. Default: true.
    pub confine: bool,
    /// `dns`: whether names are answered on port 53 of the mesh address. Default true.
    pub dns: bool,
    /// `resolver`: how this machine's resolver is made to ask the agent. Default `auto`.
    pub resolver: Choice,
    /// `relay_listen`: TCP and UDP address on which a moon takes streams of clients without UDP, over TLS and
    /// QUIC, usually `[::]:443`. Default: none.
    pub relay_listen: Option<SocketAddr>,
    /// `relay_rate`: what a moon relays for all its clients together, in bytes a second. Default: what the line of
    /// a usual server carries, 125 MB/s.
    pub relay_rate: Option<u64>,
    /// `port_mapping`: whether the router is asked for a port by PCP, NAT-PMP or UPnP. Default true.
    pub port_mapping: bool,
    /// `offload`: what the TUN device does in the kernel's place. Default: as much as the kernel offers.
    pub offload: Offload,
    /// `queues`: into how many queues the device and the port are split when they are made. Default: a quarter of the
    /// processors, 1 to 4.
    pub queues: usize,
    /// `metrics_listen`: the TCP address, on loopback or inside the mesh, on which Prometheus finds metrics. Default:
    /// none.
    pub metrics_listen: Option<SocketAddr>,
}

/// Why a configuration is refused. `Display` says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, or a value has the wrong type or form.
    #[error("`{}` is wrong{at}: {reason}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: At,
        /// What is wrong.
        reason: String,
    },
    /// The file has a key that does not exist.
    #[error("`{}` has an unknown key `{key}`{at}{}", .path.display(), did_you_mean(.suggestion))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: At,
        /// The key.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The file leaves out what has no default.
    #[error("`{}` does not say {}", .path.display(), list(.keys))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The missing keys.
        keys: Vec<&'static str>,
    },
}

/// A place in a file: ` in line N`, or nothing where it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(Option<usize>);

/// The file as TOML has it.
#[derive(Deserialize)]
struct Raw {
    network: String,
    signers: Vec<String>,
    controllers: Vec<String>,
    identity_file: Option<PathBuf>,
    listen: Option<String>,
    interface: Option<String>,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    group: Option<String>,
    min_serial: Option<u64>,
    name: Option<String>,
    user: Option<String>,
    confine: Option<bool>,
    dns: Option<bool>,
    resolver: Option<String>,
    relay_listen: Option<String>,
    relay_rate: Option<Rate>,
    port_mapping: Option<bool>,
    offload: Option<String>,
    queues: Option<usize>,
    metrics_listen: Option<String>,
}

/// Bytes a second, as a number or with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rate {
    Bytes(i64),
    Text(String),
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file, the line and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses the text of the file at `path`, which only errors name.
    ///
    /// # Errors
    ///
    /// As [`Config::load`], except for reading.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = File { text, path };
        let table = DeTable::parse(text).map_err(|error| file.wrong_toml(&error))?;
        file.check_keys(table.get_ref())?;
        let raw: Raw = toml::from_str(text).map_err(|error| file.wrong_toml(&error))?;
        file.config(raw)
    }
}

/// A file that is being parsed.
struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn check_keys(&self, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for key in table.keys() {
            if !KEYS.contains(&key.get_ref().as_ref()) {
                return Err(ConfigError::UnknownKey {
                    path: self.path.to_owned(),
                    at: self.line_of(key.span().start),
                    key: key.get_ref().to_string(),
                    suggestion: nearest(key.get_ref()),
                });
            }
        }
        let missing: Vec<_> = REQUIRED
            .into_iter()
            .filter(|key| !table.contains_key(*key))
            .collect();
        if !missing.is_empty() {
            return Err(ConfigError::Missing {
                path: self.path.to_owned(),
                keys: missing,
            });
        }
        Ok(())
    }

    fn config(&self, raw: Raw) -> Result<Config, ConfigError> {
        if raw.signers.is_empty() {
            return Err(self.wrong("signers", "without a signer no roster can be trusted"));
        }
        let signers = self.parse_each("signers", &raw.signers)?;
        let controllers = self.parse_each("controllers", &raw.controllers)?;
        let listen = raw.listen.unwrap_or_else(|| "[::]:4193".to_owned());
        let interface = raw.interface.unwrap_or_else(|| paths::INTERFACE.to_owned());
        if !is_interface_name(&interface) {
            return Err(self.wrong(
                "interface",
                format!("`{interface}` is no interface name: 1 to 15 of `a`-`z`, `A`-`Z`, `0`-`9`, `-`, `_` and `.`"),
            ));
        }
        Ok(Config {
            network: self.parse_one("network", &raw.network)?,
            signers,
            controllers,
            identity_file: raw
                .identity_file
                .unwrap_or_else(mesh_os::identity::default_path),
            listen: self.parse_one("listen", &listen)?,
            interface,
            state_dir: raw
                .state_dir
                .unwrap_or_else(|| PathBuf::from(paths::AGENT_STATE)),
            socket: raw
                .socket
                .unwrap_or_else(|| PathBuf::from(paths::AGENT_SOCKET)),
            group: raw.group,
            min_serial: raw
                .min_serial
                .map(|serial| {
                    Serial::try_from(serial).map_err(|error| self.wrong("min_serial", error))
                })
                .transpose()?,
            name: raw
                .name
                .map(|name| self.parse_one("name", &name))
                .transpose()?,
            user: raw.user,
            confine: raw.confine.unwrap_or(true),
            dns: raw.dns.unwrap_or(true),
            resolver: raw
                .resolver
                .map(|choice| self.parse_one("resolver", &choice))
                .transpose()?
                .unwrap_or_default(),
            relay_listen: raw
                .relay_listen
                .map(|listen| self.parse_one("relay_listen", &listen))
                .transpose()?,
            relay_rate: raw
                .relay_rate
                .map(|rate| self.parse_rate("relay_rate", &rate))
                .transpose()?,
            port_mapping: raw.port_mapping.unwrap_or(true),
            offload: raw
                .offload
                .map(|offload| self.parse_one("offload", &offload))
                .transpose()?
                .unwrap_or_default(),
            queues: match raw.queues {
                None => usual_queues(),
                Some(queues @ 1..=QUEUES_MAX) => queues,
                Some(queues) => {
                    let reason = format!("{queues}: there may be 1 to {QUEUES_MAX} here");
                    return Err(self.wrong("queues", reason));
                }
            },
            metrics_listen: raw
                .metrics_listen
                .map(|listen| self.inside("metrics_listen", &raw.network, &listen))
                .transpose()?,
        })
    }

    /// An address that nobody outside of this machine and the mesh reaches.
    fn inside(&self, key: &str, network: &str, text: &str) -> Result<SocketAddr, ConfigError> {
        let address: SocketAddr = self.parse_one(key, text)?;
        let network: NetworkId = self.parse_one("network", network)?;
        match network.prefix().holds(address.ip()) || address.ip().is_loopback() {
            true => Ok(address),
            false => Err(self.wrong(
                key,
                format!("`{text}` is neither loopback nor an address in the mesh"),
            )),
        }
    }

    fn parse_one<T>(&self, key: &str, text: &str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        text.parse()
            .map_err(|error: T::Err| self.wrong(key, format!("`{text}`: {error}")))
    }

    fn parse_rate(&self, key: &str, rate: &Rate) -> Result<u64, ConfigError> {
        let text = match rate {
            Rate::Bytes(bytes) => &bytes.to_string(),
            Rate::Text(text) => text,
        };
        parse_rate(text).ok_or_else(|| {
            let reason = "no bytes a second: a whole number, or text such as `10MiB`";
            self.wrong(key, format!("`{text}` is {reason}"))
        })
    }

    fn parse_each<T>(&self, key: &str, texts: &[String]) -> Result<Vec<T>, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        texts.iter().map(|text| self.parse_one(key, text)).collect()
    }

    fn wrong(&self, key: &str, reason: impl fmt::Display) -> ConfigError {
        let line = self.text.lines().position(|line| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        ConfigError::Wrong {
            path: self.path.to_owned(),
            at: At(line.map(|line| line + 1)),
            reason: format!("`{key}`: {reason}"),
        }
    }

    fn wrong_toml(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Wrong {
            path: self.path.to_owned(),
            at: error
                .span()
                .map_or(At(None), |span| self.line_of(span.start)),
            reason: error.message().to_owned(),
        }
    }

    fn line_of(&self, offset: usize) -> At {
        let before = self.text.as_bytes().iter().take(offset);
        At(Some(before.filter(|byte| **byte == b'\n').count() + 1))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, " in line {line}"),
            None => Ok(()),
        }
    }
}

fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn nearest(key: &str) -> Option<&'static str> {
    KEYS.into_iter()
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3 + 1)
        .map(|(_, known)| known)
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    match suggestion {
        Some(key) => format!("; did you mean `{key}`?"),
        None => format!("; the keys are {}", list(&KEYS)),
    }
}

fn list(keys: &[&str]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests;
