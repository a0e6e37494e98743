//! Split DNS: the system's resolver asks the agent for the mesh's domain and reverse zones, and nothing else.
//!
//! There is one file a way of doing it ([`Backend`]). Which one a machine has is decided by a pure function
//! over [`Facts`]; this module gathers them, does what was decided, and keeps a record of it, so that it can
//! be undone when the agent is long gone. The default resolver is never touched: a way that cannot leave it
//! alone is not taken, and the reason is told.
//!
//! What is to be set ([`Split`]) must have been checked by the caller: it is done as root.

mod decision;
mod etc_resolver;
mod facts;
mod hosts;
mod lookup;
mod record;
mod replace;
mod resolvconf;
#[cfg(target_os = "linux")]
mod resolved;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use mesh_types::{NetworkId, chain};
use serde::{Deserialize, Serialize};

use self::record::{Record, Records};
pub use self::{
    decision::{Decision, Facts, Hosts, Passed, Platform, Resolvconf, decide},
    lookup::{addresses_of, lookup},
};

/// A way to make the system's resolver ask the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// systemd-resolved, by its D-Bus interface.
    Resolved,
    /// openresolv, with a local server that can split.
    Resolvconf,
    /// macOS' `/etc/resolver`.
    EtcResolver,
    /// A block of lines in `/etc/hosts`.
    Hosts,
}

/// What the configuration says of the way to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The best that this machine has.
    #[default]
    Auto,
    /// systemd-resolved or nothing.
    Resolved,
    /// openresolv or nothing.
    Resolvconf,
    /// The hosts file or nothing.
    Hosts,
    /// Nothing: somebody else does it.
    None,
}

/// A [`Choice`] that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is `auto`, `resolved`, `resolvconf`, `hosts` or `none`")]
pub struct ParseChoiceError;

/// What the resolver is to ask of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The network.
    pub network: NetworkId,
    /// Interface of the mesh.
    pub interface: String,
    /// Where the agent answers, on port 53.
    pub server: Ipv6Addr,
    /// Whether it does; without, only the hosts file is of use.
    pub answering: bool,
    /// The domain, without a dot at its end.
    pub domain: String,
    /// The reverse zones, without a dot at their ends.
    pub reverse: Vec<String>,
    /// The names of each address, the one to be shown for it first. For the hosts file.
    pub names: Vec<(IpAddr, Vec<String>)>,
    /// A name that the agent answers, and the address it has: this machine's own.
    pub probe: (String, IpAddr),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How.
    pub backend: Backend,
    /// The better ways, and why not.
    pub passed: Vec<Passed>,
}

/// Why a resolver was not set.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no way on this machine.
    #[error("this machine has no way to ask for one domain alone: {}", reasons(.0))]
    NoWay(Vec<Passed>),
    /// The record of what is set cannot be kept, so nothing is set.
    #[error("cannot keep the record of what is set in `{}`", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was set before in another way cannot be undone.
    #[error(transparent)]
    Undo(#[from] UndoError),
}

/// Why what was set is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot undo what was set in {backend}: {reason}")]
pub struct UndoError {
    /// Where it is set.
    pub backend: Backend,
    /// What went wrong, with the next step.
    pub reason: String,
}

/// The machine whose resolver is meant.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    /// A machine whose files are below `root`, with neither D-Bus nor programs.
    pub fn with_files_in(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// What speaks for and against each way on this machine.
    pub fn facts(&self) -> Facts {
        facts::gather(&self.root)
    }

    /// In which ways something is set, as far as was recorded.
    pub fn in_force(&self) -> Vec<Backend> {
        let records = Records::read(&self.root);
        records.set.iter().map(Record::backend).collect()
    }

    /// Makes the resolver ask as `split` says, in the best way of `choice`, and undoes what was set in any
    /// other. May be called again: what is right already stays as it is.
    ///
    /// [`Choice::None`] has no way; call [`Machine::undo`] for it.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; what was set before may then still be set.
    pub fn apply(&self, split: &Split, choice: Choice) -> Result<Applied, ApplyError> {
        let kept = |source| ApplyError::Record {
            path: Records::path(&self.root),
            source,
        };
        let _lock = record::lock(&self.root).map_err(kept)?;
        let before = Records::read(&self.root);
        let Decision { usable, mut passed } = decide(choice, split.answering, &self.facts());
        for backend in usable {
            let record = self.record(backend, split);
            // Before the deed: who dies in between leaves a record of too much, never of too little.
            before.with(&record).write(&self.root).map_err(kept)?;
            match self.set(backend, split) {
                Ok(()) => {
                    self.undo_all(before.set.iter().filter(|old| **old != record))?;
                    self.undo_unrecorded(backend, &split.network)?;
                    Records::of(record).write(&self.root).map_err(kept)?;
                    return Ok(Applied { backend, passed });
                }
                Err(reason) => passed.push(Passed { backend, reason }),
            }
        }
        Err(ApplyError::NoWay(passed))
    }

    /// Takes back whatever was set, and says in which ways. Goes by the record; where a crash or a reboot
    /// took that, by the marks of `network` in files, or of any network if it is `None`.
    ///
    /// # Errors
    ///
    /// [`UndoError`]; the record is then still there, for another attempt.
    pub fn undo(&self, network: Option<&NetworkId>) -> Result<Vec<Backend>, UndoError> {
        let _lock = record::lock(&self.root);
        let before = Records::read(&self.root);
        self.undo_all(before.set.iter())?;
        let mut undone: Vec<_> = before.set.iter().map(Record::backend).collect();
        for (backend, marked) in [
            (Backend::Hosts, hosts::is_marked(&self.root, network)),
            (
                Backend::EtcResolver,
                etc_resolver::is_marked(&self.root, network),
            ),
        ] {
            if marked {
                self.unmark(backend, network)?;
                undone.push(backend);
            }
        }
        Records::remove(&self.root);
        Ok(undone)
    }

    fn set(&self, backend: Backend, split: &Split) -> Result<(), String> {
        match backend {
            #[cfg(target_os = "linux")]
            Backend::Resolved => resolved::set(split),
            #[cfg(not(target_os = "linux"))]
            Backend::Resolved => Err("there is none on this system".to_owned()),
            Backend::Resolvconf => resolvconf::set(&self.root, split),
            Backend::EtcResolver => etc_resolver::set(&self.root, split),
            Backend::Hosts => hosts::set(&self.root, split).map_err(|error| chain(&error)),
        }
    }

    fn record(&self, backend: Backend, split: &Split) -> Record {
        match backend {
            Backend::Resolved => Record::Resolved {
                interface: split.interface.clone(),
                index: nix::net::if_::if_nametoindex(split.interface.as_str()).unwrap_or(0),
            },
            Backend::Resolvconf => Record::Resolvconf {
                key: resolvconf::key(&split.interface),
            },
            Backend::EtcResolver => Record::EtcResolver {
                network: split.network,
            },
            Backend::Hosts => Record::Hosts {
                network: split.network,
            },
        }
    }

    fn undo_all<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Result<(), UndoError> {
        for record in records {
            match record {
                #[cfg(target_os = "linux")]
                Record::Resolved { interface, index } => resolved::revert(interface, *index)
                    .map_err(|reason| UndoError {
                        backend: Backend::Resolved,
                        reason,
                    })?,
                #[cfg(not(target_os = "linux"))]
                Record::Resolved { .. } => {}
                Record::Resolvconf { key } => {
                    resolvconf::remove(key).map_err(|reason| UndoError {
                        backend: Backend::Resolvconf,
                        reason,
                    })?;
                }
                Record::EtcResolver { network } => {
                    self.unmark(Backend::EtcResolver, Some(network))?;
                }
                Record::Hosts { network } => self.unmark(Backend::Hosts, Some(network))?,
            }
        }
        Ok(())
    }

    /// Files outlive a reboot, the record does not: what an earlier boot left in the ways that were not
    /// taken.
    fn undo_unrecorded(&self, taken: Backend, network: &NetworkId) -> Result<(), UndoError> {
        for backend in [Backend::Hosts, Backend::EtcResolver] {
            if backend != taken {
                self.unmark(backend, Some(network))?;
            }
        }
        Ok(())
    }

    fn unmark(&self, backend: Backend, network: Option<&NetworkId>) -> Result<(), UndoError> {
        let result = match backend {
            Backend::Hosts => hosts::remove(&self.root, network).map_err(|error| chain(&error)),
            Backend::EtcResolver => etc_resolver::remove(&self.root, network),
            Backend::Resolved | Backend::Resolvconf => Ok(()),
        };
        result.map_err(|reason| UndoError { backend, reason })
    }
}

impl Backend {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolved => "systemd-resolved",
            Self::Resolvconf => "resolvconf",
            Self::EtcResolver => "/etc/resolver",
            Self::Hosts => "/etc/hosts",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Choice {
    /// As the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Resolved => "resolved",
            Self::Resolvconf => "resolvconf",
            Self::Hosts => "hosts",
            Self::None => "none",
        }
    }
}

impl FromStr for Choice {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        [
            Self::Auto,
            Self::Resolved,
            Self::Resolvconf,
            Self::Hosts,
            Self::None,
        ]
        .into_iter()
        .find(|choice| choice.as_str() == text)
        .ok_or(ParseChoiceError)
    }
}

fn reasons(passed: &[Passed]) -> String {
    let each: Vec<_> = passed
        .iter()
        .map(|passed| format!("{} ({})", passed.backend, passed.reason))
        .collect();
    each.join("; ")
}

#[cfg(test)]
mod tests;
