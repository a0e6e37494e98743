//! A fleet of real processes: a controller, and an agent on every machine.

mod client;
mod files;
mod look;
mod membership;

use std::{
    collections::BTreeMap,
    io,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use mesh_types::NetworkId;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::Value;

use self::files::{MachineFiles, Secrets};
use crate::{
    namespace::Namespace, network::Lab, ping::Pinger, process::Cage, process::Process,
    wait::wait_until,
};

/// How long a daemon may take to start or to stop.
pub const DAEMON_PATIENCE: Duration = Duration::from_secs(10);

/// The reference fleet's inventory, without keys and signers.
const REFERENCE: &str = include_str!("../../../tests/fleet/inventory.json");

/// A controller and agents, each a process of its own in a network namespace of its own.
///
/// Whatever is not switched off and is no guest runs an agent; the first machine with the role of a
/// controller runs that too, and signs the inventory, which it watches.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    network: NetworkId,
    inventory: Value,
    controller_name: String,
    machines: BTreeMap<String, Machine>,
    controller: Option<Process>,
    pub(crate) lab: Lab,
    // Dropped after the processes in it, and the directory last.
    cage: Cage,
    dir: tempfile::TempDir,
}

/// Ends all processes of a fleet and removes its files, while its owner is busy with something else.
#[derive(Clone, Debug)]
pub struct CleanUp {
    first: Pid,
    dir: PathBuf,
}

#[derive(Debug)]
struct Machine {
    files: MachineFiles,
    address: Ipv6Addr,
    pinger: Pinger,
    agent: Option<Process>,
}

impl Fleet {
    /// Prepares the reference fleet, with fresh keys, for the `mesh` program at `program`: files,
    /// namespaces and links, and no process yet.
    ///
    /// # Errors
    ///
    /// What the system says; [`crate::sandbox::enter`] comes first.
    pub fn reference(program: &Path) -> anyhow::Result<Self> {
        let inventory = serde_json::from_str(REFERENCE).context("the reference inventory")?;
        Self::prepare(program, inventory, "cinnabar")
    }

    /// Prepares a fleet of `names`, the first of which is the controller too.
    ///
    /// # Errors
    ///
    /// As [`Fleet::reference`].
    pub fn of(program: &Path, names: &[&str]) -> anyhow::Result<Self> {
        let mut inventory: Value = serde_json::from_str(REFERENCE)?;
        let machines = names
            .iter()
            .map(|name| ((*name).to_owned(), Value::Object(Default::default())));
        inventory["machines"] = Value::Object(machines.collect());
        let first = names.first().context("a fleet needs a machine")?;
        let mut controllers = serde_json::Map::new();
        controllers.insert((*first).to_owned(), Value::Object(Default::default()));
        inventory["instances"]["mesh"]["roles"]["controller"]["machines"] =
            Value::Object(controllers);
        Self::prepare(program, inventory, first)
    }

    fn prepare(program: &Path, mut inventory: Value, controller: &str) -> anyhow::Result<Self> {
        let network: NetworkId = inventory["network"]["id"]
            .as_str()
            .context("an inventory without network id")?
            .parse()?;
        let dir = files::make_dir()?;
        let names = files::running_machines(&inventory)?;
        let mut lab = Lab::new()?;
        let mut secrets = Secrets::new(dir.path());
        for name in &names {
            lab.add(name)?;
            let public = secrets.make(name)?;
            inventory["machines"][name]["publicKey"] = public.to_string().into();
        }
        let signer = inventory["machines"][controller]["publicKey"].clone();
        inventory["network"]["signers"] = Value::Array(vec![signer]);
        let mut fleet = Self {
            program: program.to_owned(),
            network,
            inventory,
            controller_name: controller.to_owned(),
            machines: BTreeMap::new(),
            controller: None,
            lab,
            cage: Cage::new()?,
            dir,
        };
        fleet.write_inventory()?;
        for name in &names {
            let machine = fleet.prepare_machine(name)?;
            fleet.machines.insert(name.clone(), machine);
        }
        fleet.write_controller_config()?;
        Ok(fleet)
    }

    fn prepare_machine(&self, name: &str) -> anyhow::Result<Machine> {
        self.write_agent_config(name)?;
        Ok(Machine {
            files: MachineFiles::new(self.dir.path(), name),
            address: self.network.address_of(&name.parse()?)?,
            pinger: Pinger::new(self.lab.namespace(name)?)?,
            agent: None,
        })
    }

    /// Starts the controller and all agents, and waits until they say that they are ready.
    ///
    /// # Errors
    ///
    /// A daemon does not start; its last words are in the error.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.spawn_controller()?;
        for name in self.names() {
            self.spawn_agent(&name)?;
        }
        self.controller_process()?.wait_ready(DAEMON_PATIENCE)?;
        for name in self.names() {
            self.agent_process(&name)?.wait_ready(DAEMON_PATIENCE)?;
        }
        Ok(())
    }

    /// The names of the machines that run an agent.
    pub fn names(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    /// The name of the machine that runs the controller.
    pub fn controller_name(&self) -> &str {
        &self.controller_name
    }

    /// A machine's network namespace.
    ///
    /// # Errors
    ///
    /// There is no machine of this name.
    pub fn namespace(&self, name: &str) -> anyhow::Result<&Namespace> {
        self.lab.namespace(name)
    }

    /// The network and its links.
    pub fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The directory of everything: `inventory.json`, and one directory a machine.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What removes the fleet without its owner's help, for a signal's handler thread.
    pub fn clean_up(&self) -> CleanUp {
        CleanUp {
            first: self.cage.first(),
            dir: self.dir.path().to_owned(),
        }
    }

    /// A machine's files.
    ///
    /// # Errors
    ///
    /// There is no machine of this name.
    pub fn files(&self, name: &str) -> anyhow::Result<&MachineFiles> {
        Ok(&self.machine(name)?.files)
    }

    /// A machine's address in the mesh.
    ///
    /// # Errors
    ///
    /// There is no machine of this name.
    pub fn address(&self, name: &str) -> anyhow::Result<Ipv6Addr> {
        Ok(self.machine(name)?.address)
    }

    /// Starts the controller and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As [`Fleet::start`].
    pub fn start_controller(&mut self) -> anyhow::Result<()> {
        self.spawn_controller()?;
        self.controller_process()?.wait_ready(DAEMON_PATIENCE)
    }

    /// Starts a machine's agent and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As [`Fleet::start`].
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        self.spawn_agent(name)?;
        self.agent_process(name)?.wait_ready(DAEMON_PATIENCE)
    }

    /// Starts the controller, ready or not.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn spawn_controller(&mut self) -> anyhow::Result<()> {
        let files = &self.machine(&self.controller_name)?.files;
        let mut command = Command::new(&self.program);
        command
            .args(["controller", "run", "--config"])
            .arg(files.controller_config_path());
        let log_path = files.log_path("controller");
        let namespace = self.lab.namespace(&self.controller_name)?;
        self.controller = Some(
            self.cage
                .start("controller", command, namespace, &log_path)?,
        );
        Ok(())
    }

    /// Starts a machine's agent, ready or not.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn spawn_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let files = &self.machine(name)?.files;
        let mut command = Command::new(&self.program);
        command
            .args(["agent", "run", "--config"])
            .arg(files.agent_config_path());
        let log_path = files.log_path("agent");
        let namespace = self.lab.namespace(name)?;
        let agent = self
            .cage
            .start(&format!("agent of {name}"), command, namespace, &log_path)?;
        self.machine_mut(name)?.agent = Some(agent);
        Ok(())
    }

    /// Starts a machine's agent under a supervisor, with a program of its own and the supervisor's
    /// directory, and waits until it is ready. [`Fleet::agent_process`] is the supervisor then.
    ///
    /// # Errors
    ///
    /// As [`Fleet::start`].
    pub fn supervise_agent(
        &mut self,
        name: &str,
        program: &Path,
        dir: &Path,
    ) -> anyhow::Result<()> {
        let files = &self.machine(name)?.files;
        let mut command = Command::new(program);
        command
            .args(["agent", "supervise", "--config"])
            .arg(files.agent_config_path())
            .arg("--dir")
            .arg(dir);
        let log_path = files.log_path("agent");
        let namespace = self.lab.namespace(name)?;
        let title = format!("supervisor of {name}");
        let agent = self.cage.start(&title, command, namespace, &log_path)?;
        self.machine_mut(name)?.agent = Some(agent);
        self.agent_process(name)?.wait_ready(DAEMON_PATIENCE)
    }

    /// The id of a machine's agent's process, or of its supervisor.
    ///
    /// # Errors
    ///
    /// It was not started.
    pub fn agent_id(&self, name: &str) -> anyhow::Result<u32> {
        let agent = self.machine(name)?.agent.as_ref();
        let agent = agent.with_context(|| format!("the agent of `{name}` was not started"))?;
        Ok(agent.id())
    }

    /// The controller's process.
    ///
    /// # Errors
    ///
    /// It was not started.
    pub fn controller_process(&mut self) -> anyhow::Result<&mut Process> {
        self.controller
            .as_mut()
            .context("the controller was not started")
    }

    /// A machine's agent's process.
    ///
    /// # Errors
    ///
    /// It was not started.
    pub fn agent_process(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        let agent = self.machine_mut(name)?.agent.as_mut();
        agent.with_context(|| format!("the agent of `{name}` was not started"))
    }

    /// Stops everything in good order: agents, then the controller.
    ///
    /// # Errors
    ///
    /// A daemon does not stop; what is left is killed on drop.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let agents = self
            .machines
            .values_mut()
            .filter_map(|machine| machine.agent.take());
        let mut processes: Vec<_> = agents.chain(self.controller.take()).collect();
        for process in &mut processes {
            if process.is_running()? {
                process.signal(Signal::SIGTERM)?;
            }
        }
        for process in &mut processes {
            process.wait(DAEMON_PATIENCE)?;
        }
        Ok(())
    }

    fn machine(&self, name: &str) -> anyhow::Result<&Machine> {
        self.machines
            .get(name)
            .with_context(|| format!("`{name}` runs no agent in this fleet"))
    }

    fn machine_mut(&mut self, name: &str) -> anyhow::Result<&mut Machine> {
        self.machines
            .get_mut(name)
            .with_context(|| format!("`{name}` runs no agent in this fleet"))
    }
}

impl CleanUp {
    /// Does so. The process should end after this: its fleet is dead.
    ///
    /// # Errors
    ///
    /// The files cannot be removed.
    pub fn run(&self) -> anyhow::Result<()> {
        // Gone already if the owner is cleaning up, too.
        let _ = kill(self.first, Signal::SIGKILL);
        // Whoever looks after the end of this process finds none of its children. One that does not die is
        // the kernel's to report.
        let _ = wait_until(DAEMON_PATIENCE, || {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => Err(status),
                Err(_) => Ok(()),
            }
        });
        // A process that is still dying may put a file in a directory that is being emptied.
        wait_until(DAEMON_PATIENCE, || {
            match std::fs::remove_dir_all(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        })
        .with_context(|| format!("cannot remove `{}`", self.dir.display()))
    }
}

/// The program that the system tests and the benches run: `MESH_BIN`.
///
/// # Errors
///
/// It is not set; the error says how to.
pub fn program_under_test() -> anyhow::Result<PathBuf> {
    std::env::var_os("MESH_BIN").map(PathBuf::from).context(
        "`MESH_BIN` does not name the `mesh` program; run `cargo xtask test`, or build it with `cargo build --release` and set it to `target/release/mesh`",
    )
}
