//! Who is a member of a fleet, and who says so.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::Context as _;
use mesh_types::{AGENT_PORT, CONTROLLER_PORT};
use serde_json::Value;

use super::{Fleet, files::MachineFiles};

impl Fleet {
    /// Writes into the inventory where every machine's agent can be reached, for fleets whose agents are
    /// to find each other without a controller.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn set_static_endpoints(&mut self) -> anyhow::Result<()> {
        for name in self.names() {
            let endpoint = format!("{}:{AGENT_PORT}", self.lab.address(&name)?);
            self.inventory["machines"][&name]["mesh"]["endpoints"] = Value::from(vec![endpoint]);
        }
        self.write_inventory()
    }

    /// Makes these machines moons at the addresses that they have, and gives every agent the roster that says
    /// so, for fleets that run no controller.
    ///
    /// # Errors
    ///
    /// As [`Fleet::store_rosters`].
    pub fn set_moons(&mut self, moons: &[&str]) -> anyhow::Result<()> {
        for name in moons {
            let ipv4 = format!("{}:{AGENT_PORT}", self.lab.address(name)?);
            let ipv6 = format!("[{}]:{AGENT_PORT}", self.lab.address_v6(name)?);
            self.inventory["machines"][name]["mesh"]["endpoints"] = Value::from(vec![ipv6, ipv4]);
            self.inventory["instances"]["mesh"]["roles"]["moon"]["machines"][name] =
                Value::Object(Default::default());
        }
        self.write_inventory()?;
        self.store_rosters(1)
    }

    /// Signs the inventory as the controller would, into the file `roster.json` of [`Fleet::dir`].
    ///
    /// # Errors
    ///
    /// `mesh inventory sign` fails.
    pub fn sign_roster(&self, serial: u64) -> anyhow::Result<PathBuf> {
        let key_path = self.machine(&self.controller_name)?.files.identity_path();
        self.sign_roster_with(&key_path, serial)
    }

    fn sign_roster_with(&self, key_path: &Path, serial: u64) -> anyhow::Result<PathBuf> {
        let roster_path = self.dir.path().join("roster.json");
        let output = Command::new(&self.program)
            .args([
                "inventory",
                "sign",
                "--serial",
                &serial.to_string(),
                "--key",
            ])
            .arg(key_path)
            .arg("--out")
            .arg(&roster_path)
            .arg(self.inventory_path())
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "`mesh inventory sign` failed: {words}"
        );
        Ok(roster_path)
    }

    /// Makes an admin with an SSH key of their own the only signer, before anything is started: the
    /// controller takes `roster.json`, signed with serial 1, and what is pushed. Returns the key's path.
    ///
    /// # Errors
    ///
    /// `ssh-keygen` or `mesh inventory sign` fails.
    pub fn sign_as_admin(&mut self) -> anyhow::Result<PathBuf> {
        let key_path = self.dir.path().join("admin");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f"])
            .arg(&key_path)
            .status()
            .context("cannot run `ssh-keygen`")?;
        anyhow::ensure!(made.success(), "`ssh-keygen` failed");
        let public = std::fs::read_to_string(key_path.with_extension("pub"))?;
        self.inventory["network"]["signers"] = Value::from(vec![public.trim()]);
        self.write_inventory()?;
        let roster_path = self.sign_roster_with(&key_path, 1)?;
        for name in self.names() {
            self.write_agent_config(&name)?;
        }
        let files = &self.machine(&self.controller_name)?.files;
        files.write_controller_config(&self.network, &self.signer(), "roster", &roster_path)?;
        Ok(key_path)
    }

    /// Signs the inventory as the admin of [`Fleet::sign_as_admin`] whose key is at `key_path`, to follow the
    /// roster `previous`, into the file `out`.
    ///
    /// # Errors
    ///
    /// `mesh inventory sign` fails.
    pub fn sign_next(&self, key_path: &Path, previous: &Path, out: &Path) -> anyhow::Result<()> {
        let output = Command::new(&self.program)
            .args(["inventory", "sign"])
            .arg(self.inventory_path())
            .arg("--key")
            .arg(key_path)
            .arg("--previous")
            .arg(previous)
            .arg("--out")
            .arg(out)
            .output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "`mesh inventory sign` failed: {words}"
        );
        Ok(())
    }

    /// Runs `mesh inventory push` of a roster to the controller, on the machine `from`.
    ///
    /// # Errors
    ///
    /// The program cannot be started; a refusal is in the output.
    pub fn push(&self, from: &str, roster: &Path) -> anyhow::Result<Output> {
        let address = self.lab.address(&self.controller_name)?;
        let mut command = Command::new(&self.program);
        command.args(["inventory", "push"]).arg(roster);
        command.arg("--controller");
        command.arg(format!("{address}:{CONTROLLER_PORT}"));
        self.run_on(from, &mut command)
    }

    /// Gives every agent the roster of the inventory, as if it had been told of it before.
    ///
    /// # Errors
    ///
    /// As [`Fleet::sign_roster`].
    pub fn store_rosters(&self, serial: u64) -> anyhow::Result<()> {
        let roster_path = self.sign_roster(serial)?;
        for machine in self.machines.values() {
            let dir = machine.files.agent_state_dir();
            std::fs::create_dir_all(&dir)?;
            std::fs::copy(&roster_path, dir.join("roster.json"))?;
        }
        Ok(())
    }

    /// The file that the controller watches.
    pub fn inventory_path(&self) -> PathBuf {
        self.dir.path().join("inventory.json")
    }

    /// The inventory as it was last written.
    pub fn inventory(&self) -> &Value {
        &self.inventory
    }

    /// Changes the inventory in the controller's hands, atomically.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn edit_inventory(&mut self, edit: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        edit(&mut self.inventory);
        self.write_inventory()
    }

    /// The text in which signers name the controller.
    pub fn signer(&self) -> String {
        let key = &self.inventory["network"]["signers"][0];
        key.as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn write_inventory(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.inventory)?;
        mesh_os::file::write_atomic(&self.inventory_path(), &text, 0o644)?;
        Ok(())
    }

    pub(super) fn write_agent_config(&self, name: &str) -> anyhow::Result<()> {
        let controller = (self.lab.address(&self.controller_name)?, CONTROLLER_PORT);
        let files = MachineFiles::new(self.dir.path(), name);
        files.write_agent_config(&self.network, &self.signer(), controller.into())
    }

    pub(super) fn write_controller_config(&self) -> anyhow::Result<()> {
        let files = &self.machine(&self.controller_name)?.files;
        files.write_controller_config(
            &self.network,
            &self.signer(),
            "inventory",
            &self.inventory_path(),
        )
    }
}
