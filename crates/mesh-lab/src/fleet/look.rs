//! Looking at a fleet, from inside of its machines.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_api::{Pending, Status};

use super::{Fleet, client};
use crate::wait::wait_until;

impl Fleet {
    /// Waits until every agent is admitted and has the roster.
    ///
    /// # Errors
    ///
    /// One is not within `patience`.
    pub fn wait_admitted(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for name in self.names() {
            let left = deadline.saturating_duration_since(Instant::now());
            self.wait_status(
                &name,
                left,
                "is admitted and connected to a controller",
                |status| {
                    status.node.admitted
                        && status.roster.is_some()
                        && status
                            .controllers
                            .iter()
                            .any(|controller| controller.connected)
                },
            )?;
        }
        Ok(())
    }

    /// Runs `mesh` with `arguments` on a machine, and waits for its end.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn mesh(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        self.run_on(name, &mut command)
    }

    /// Runs `command` on a machine, and waits for its end.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn run_on(&self, name: &str, command: &mut Command) -> anyhow::Result<Output> {
        self.lab.namespace(name)?.run(|| {
            let output = command.output();
            output.with_context(|| format!("cannot run `{}`", command.get_program().display()))
        })
    }

    /// What a machine's agent says of itself and its peers.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn status(&self, name: &str) -> anyhow::Result<Status> {
        let status = client::get(&self.machine(name)?.files.agent_socket(), "/v1/status");
        status.with_context(|| format!("cannot ask the agent of `{name}`"))
    }

    /// The keys that asked the controller to join and are in no roster.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn pending(&self) -> anyhow::Result<Pending> {
        let files = &self.machine(&self.controller_name)?.files;
        client::get(&files.controller_socket(), "/v1/pending").context("cannot ask the controller")
    }

    /// Waits until a machine's status is as `wanted`; `what` completes "the machine …".
    ///
    /// # Errors
    ///
    /// It is not within `patience`; the error has its last status.
    pub fn wait_status(
        &self,
        name: &str,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        // One that does not answer is asked again: it may be starting.
        wait_until(patience, || match self.status(name) {
            Ok(status) if wanted(&status) => Ok(status),
            other => Err(Box::new(other)),
        })
        .or_else(|last| {
            anyhow::bail!(
                "waited {patience:?} in vain until `{name}` {what}; it is {}",
                serde_json::to_string_pretty(&(*last)?)?
            )
        })
    }

    /// Pings through the mesh until there is an answer; `None`: none within `patience`.
    ///
    /// # Errors
    ///
    /// There is no such machine, or its socket broke.
    pub fn ping(
        &self,
        from: &str,
        to: &str,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        self.machine(from)?
            .pinger
            .ping(self.address_of(to)?, patience)
    }

    /// Sends a single ping through the mesh; `None`: no answer within `patience`.
    ///
    /// # Errors
    ///
    /// As [`Fleet::ping`].
    pub fn ping_once(
        &self,
        from: &str,
        to: &str,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        self.machine(from)?
            .pinger
            .once(self.address_of(to)?, patience)
    }

    /// Pings between all of `names` in both directions, all sources at a time, until each pair has an
    /// answer. The keys are source and destination; `None`: no answer within `patience`.
    ///
    /// # Errors
    ///
    /// As [`Fleet::ping`].
    pub fn ping_all(
        &self,
        names: &[String],
        patience: Duration,
    ) -> anyhow::Result<BTreeMap<(String, String), Option<Duration>>> {
        let from = |source: &String| {
            let others = names.iter().filter(|name| *name != source);
            others
                .map(|to| {
                    Ok((
                        (source.clone(), to.clone()),
                        self.ping(source, to, patience)?,
                    ))
                })
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let rows = thread::scope(|scope| {
            let sources: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(move || from(name)))
                .collect();
            sources
                .into_iter()
                .map(|source| {
                    source
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<anyhow::Result<Vec<_>>>()
        });
        Ok(rows?.into_iter().flatten().collect())
    }

    fn address_of(&self, name: &str) -> anyhow::Result<Ipv6Addr> {
        Ok(self.network.address_of(&name.parse()?)?)
    }
}
