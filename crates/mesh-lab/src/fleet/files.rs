//! What a fleet has on disk.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use mesh_os::file;
use mesh_types::{IdentitySeed, NetworkId, PublicIdentity};
use rand::{RngCore as _, rngs::OsRng};
use serde_json::Value;
use zeroize::Zeroizing;

/// A machine's files, all in one directory.
#[derive(Clone, Debug)]
pub struct MachineFiles {
    dir: PathBuf,
}

/// Makes the machines' identities.
pub(super) struct Secrets<'a> {
    dir: &'a Path,
}

/// A directory for a fleet, which daemons may enter after they changed their user.
pub(super) fn make_dir() -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("mesh-lab-").tempdir()?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// The machines of an inventory that run an agent: neither switched off nor guests.
pub(super) fn running_machines(inventory: &Value) -> anyhow::Result<Vec<String>> {
    let machines = inventory["machines"]
        .as_object()
        .context("an inventory without machines")?;
    let runs = |machine: &Value| {
        machine["enabled"] != Value::Bool(false) && machine["machineClass"] != "external"
    };
    let running = machines.iter().filter(|(_, machine)| runs(machine));
    Ok(running.map(|(name, _)| name.clone()).collect())
}

impl<'a> Secrets<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    pub(super) fn make(&mut self, name: &str) -> anyhow::Result<PublicIdentity> {
        let files = MachineFiles::new(self.dir, name);
        fs::create_dir_all(files.dir.join("mesh"))?;
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(bytes.as_mut_slice());
        let seed = IdentitySeed::from_bytes(*bytes);
        file::write_once(&files.identity_path(), seed.to_line().as_bytes(), 0o600)?;
        Ok(seed.public())
    }
}

impl MachineFiles {
    pub(super) fn new(dir: &Path, name: &str) -> Self {
        Self {
            dir: dir.join(name),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its identity.
    pub fn identity_path(&self) -> PathBuf {
        self.dir.join("identity")
    }

    /// Its agent's configuration.
    pub fn agent_config_path(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// Its agent's local socket.
    pub fn agent_socket(&self) -> PathBuf {
        // A directory called `mesh` is what the daemons take for their own.
        self.dir.join("mesh/agent.sock")
    }

    /// Where its agent keeps its state.
    pub fn agent_state_dir(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// Its controller's configuration.
    pub fn controller_config_path(&self) -> PathBuf {
        self.dir.join("controller.toml")
    }

    /// Its controller's local socket.
    pub fn controller_socket(&self) -> PathBuf {
        self.dir.join("mesh/controller.sock")
    }

    /// Where its controller keeps its state.
    pub fn controller_state_dir(&self) -> PathBuf {
        self.dir.join("controller")
    }

    /// What a daemon has printed.
    pub fn log_path(&self, daemon: &str) -> PathBuf {
        self.dir.join(daemon).with_extension("log")
    }

    pub(super) fn write_agent_config(
        &self,
        network: &NetworkId,
        signer: &str,
        controller: SocketAddr,
    ) -> anyhow::Result<()> {
        let text = format!(
            "network = \"{network}\"\nsigners = [\"{signer}\"]\ncontrollers = [\"{controller}\"]\n\
             identity_file = \"{}\"\nstate_dir = \"{}\"\nsocket = \"{}\"\n",
            self.identity_path().display(),
            self.agent_state_dir().display(),
            self.agent_socket().display(),
        );
        file::write_atomic(&self.agent_config_path(), text.as_bytes(), 0o644)?;
        Ok(())
    }

    pub(super) fn write_controller_config(
        &self,
        network: &NetworkId,
        signer: &str,
        source: &str,
        source_path: &Path,
    ) -> anyhow::Result<()> {
        let text = format!(
            "network = \"{network}\"\nsigners = [\"{signer}\"]\n{source} = \"{}\"\n\
             identity_file = \"{}\"\nstate_dir = \"{}\"\nsocket = \"{}\"\n",
            source_path.display(),
            self.identity_path().display(),
            self.controller_state_dir().display(),
            self.controller_socket().display(),
        );
        file::write_atomic(&self.controller_config_path(), text.as_bytes(), 0o644)?;
        Ok(())
    }
}
