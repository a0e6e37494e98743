//! The controller's configuration file.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh_inventory::roster::Signer;
use mesh_os::paths;
use mesh_types::{CONTROLLER_PORT, NetworkId};
use serde::Deserialize;

/// Where the controller's local socket is unless configured otherwise.
pub const DEFAULT_SOCKET: &str = paths::CONTROLLER_SOCKET;

/// Where the configuration is unless said otherwise.
pub const DEFAULT_CONFIG: &str = paths::CONTROLLER_CONFIG;

const KEYS: [&str; 12] = [
    "network",
    "signers",
    "identity_file",
    "inventory",
    "roster",
    "listen",
    "http_listen",
    "state_dir",
    "socket",
    "group",
    "user",
    "confine",
];

/// The controller's configuration. A file with the two required keys is
///
/// ```
/// let text = r#"
/// network = "000102030405060708090a0b0c0d0e0f"
/// signers = ["mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA"]
/// "#;
/// let config = mesh_controller::Config::parse(text).unwrap();
/// assert_eq!(config.listen.port(), 4194);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network's id. Required.
    pub network: NetworkId,
    /// SSH public keys or `mesh1` identities whose rosters are taken. Required.
    pub signers: Vec<Signer>,
    /// The identity that `mesh keygen` wrote; left out: the credential `identity` that the service manager
    /// gave, else `/etc/mesh/identity`.
    #[serde(default = "mesh_os::identity::default_path")]
    pub identity_file: PathBuf,
    /// An inventory to watch and sign; the controller's own identity must be among `signers` then.
    pub inventory: Option<PathBuf>,
    /// A signed roster to watch. Without this and `inventory`, rosters come by `mesh inventory push` only.
    pub roster: Option<PathBuf>,
    /// Where agents connect, UDP.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Where the JSON API is served over TCP, on loopback or inside the mesh; left out: nowhere.
    pub http_listen: Option<SocketAddr>,
    /// Where the state is kept.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// The local socket.
    #[serde(default = "socket")]
    pub socket: PathBuf,
    /// The group whose members may use the local socket; left out: only the controller's own user.
    pub group: Option<String>,
    /// The account to change to when started as root; left out: `mesh` if there is one, else `nobody`.
    pub user: Option<String>,
    /// Whether the controller takes from itself what it does not need after its start.
    #[serde(default = "confine")]
    pub confine: bool,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What it says is wrong; names the place.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A key that there is not.
    #[error("unknown key `{key}`{}", suggestion.map_or_else(|| format!("; the keys are `{}`", KEYS.join("`, `")), |known| format!("; did you mean `{known}`?")))]
    UnknownKey {
        /// The key.
        key: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// Two keys that exclude each other.
    #[error("`inventory` and `roster` exclude each other: leave one out")]
    TwoSources,
    /// Nobody may sign.
    #[error("`signers` is empty: nobody could sign a roster")]
    NoSigners,
    /// The JSON API would be open to others than this machine and the mesh.
    #[error("`http_listen` is `{0}`, which is neither loopback nor an address in the mesh")]
    OpenHttp(SocketAddr),
}

impl Config {
    /// Reads a configuration file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config = Self::parse(&text)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let paths = [
            Some(&mut config.identity_file),
            config.inventory.as_mut(),
            config.roster.as_mut(),
            Some(&mut config.state_dir),
            Some(&mut config.socket),
        ];
        for path in paths.into_iter().flatten() {
            *path = dir.join(&*path);
        }
        Ok(config)
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ConfigError::UnknownKey {
                key: key.clone(),
                suggestion: nearest(key),
            });
        }
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.inventory.is_some() && self.roster.is_some() {
            return Err(ConfigError::TwoSources);
        }
        if self.signers.is_empty() {
            return Err(ConfigError::NoSigners);
        }
        if let Some(address) = self.http_listen {
            let in_mesh = self.network.prefix().holds(address.ip());
            if !in_mesh && !address.ip().is_loopback() {
                return Err(ConfigError::OpenHttp(address));
            }
        }
        Ok(())
    }
}

fn nearest(key: &str) -> Option<&'static str> {
    KEYS.into_iter()
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3 + 1)
        .map(|(_, known)| known)
}

const fn confine() -> bool {
    true
}

fn listen() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, CONTROLLER_PORT).into()
}

fn state_dir() -> PathBuf {
    paths::CONTROLLER_STATE.into()
}

fn socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
network = "000102030405060708090a0b0c0d0e0f"
signers = ["mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA"]
"#;

    fn refused(addition: &str) -> String {
        Config::parse(&format!("{LEAST}{addition}"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::parse(LEAST).unwrap();
        assert_eq!(config.listen, "[::]:4194".parse().unwrap());
        assert_eq!(config.identity_file, Path::new("/etc/mesh/identity"));
        assert_eq!(config.state_dir, Path::new("/var/lib/mesh/controller"));
        assert_eq!(config.socket, Path::new("/run/mesh/controller.sock"));
        assert_eq!(config.inventory, None);
        assert_eq!(config.http_listen, None);
    }

    #[test]
    fn the_documented_example_is_a_configuration() {
        let manual = include_str!("../../../docs/controller.md");
        let (_, rest) = manual.split_once("```toml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let config = Config::parse(example).unwrap();
        let least = Config::parse(LEAST).unwrap();
        // What it sets to something else than the default is what has none.
        let stripped = Config {
            inventory: None,
            http_listen: None,
            group: None,
            user: None,
            ..config
        };
        assert_eq!(stripped, least);
    }

    #[test]
    fn wrong_keys_are_named_with_what_was_meant() {
        assert_eq!(
            refused("invetory = 'x'"),
            "unknown key `invetory`; did you mean `inventory`?"
        );
        assert!(refused("colour = 1").starts_with("unknown key `colour`; the keys are `network`"));
        assert!(refused("inventory = 'a'\nroster = 'b'").contains("exclude each other"));
        assert!(refused("http_listen = '0.0.0.0:80'").contains("neither loopback"));
        assert!(refused("listen = 'x'").contains("line 4"));
        let missing = Config::parse("").unwrap_err().to_string();
        assert!(missing.contains("missing field `network`"), "{missing}");
    }

    #[test]
    fn the_json_api_may_be_on_loopback_or_in_the_mesh() {
        for address in ["127.0.0.1:80", "[::1]:80", "[fdc3:582e:db61::1]:80"] {
            let text = format!("{LEAST}http_listen = '{address}'");
            assert!(Config::parse(&text).is_ok(), "{address}");
        }
    }
}
