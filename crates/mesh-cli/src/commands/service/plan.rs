//! From what is there to what is to be done. Pure: it reads and runs nothing.

mod install;
mod uninstall;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    layout::{Daemon, Layout, Manager},
    record::Record,
};

pub(super) use install::{Start, install, paths_of_interest};
pub(super) use uninstall::uninstall;

/// What kind of machine this is, as far as services go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// systemd or launchd, and nobody else who looks after services.
    Own(Manager),
    /// Everything follows from the NixOS configuration.
    NixOs,
    /// Everything follows from the nix-darwin configuration.
    NixDarwin,
    /// Linux with another init.
    Other,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A file with this text.
    Text(String),
    /// A symbolic link to there.
    Link(PathBuf),
    /// A directory.
    Dir,
    /// A file that is no text, or something else.
    Other,
}

/// What the planner has to know of the machine.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// What kind it is.
    pub(super) system: System,
    /// The program of a package of the distribution, if there is one.
    pub(super) packaged: Option<PathBuf>,
    /// The release of the program that runs this.
    pub(super) release: &'static str,
    /// The release of the program at the constant place, where that is another one and tells.
    pub(super) release_there: Option<String>,
    /// Whether the program at the constant place is, byte for byte, the one that runs this.
    pub(super) program_is_same: bool,
    /// A directory above the program's place that somebody other than root may change.
    pub(super) loose_dir: Option<PathBuf>,
    /// What is where an installation puts things; what is missing is not in it.
    pub(super) found: BTreeMap<PathBuf, Found>,
    /// Which of the daemons' accounts there are.
    pub(super) users: BTreeSet<String>,
    /// User and group ids that are taken, where this chooses them (macOS).
    pub(super) taken_ids: BTreeSet<u32>,
    /// Whether systemd-sysusers is there.
    pub(super) has_sysusers: bool,
    /// Whether the service is loaded and not stopped.
    pub(super) is_running: bool,
    /// Whether another program than the one that runs this is in the running service's memory.
    pub(super) runs_other: bool,
    /// Whether the service starts with the machine.
    pub(super) is_enabled: bool,
    /// Whether the existing configuration is good; `None`: there is none.
    pub(super) config: Option<Result<(), String>>,
    /// What was installed before.
    pub(super) record: Record,
    /// Whether all goes below another root than `/`: nothing is started then.
    pub(super) other_root: Option<PathBuf>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// NixOS.
    #[error("this is NixOS, where services follow from the configuration")]
    NixOs,
    /// nix-darwin.
    #[error("nix-darwin looks after this Mac's services")]
    NixDarwin,
    /// No service manager.
    #[error("there is no systemd on this machine")]
    NoManager(Daemon),
    /// A package is installed.
    #[error("a package of this distribution has the program already, at `{}`", .0.display())]
    Packaged(PathBuf, &'static str),
    /// Not ours.
    #[error("`{}` is there and was not written by `mesh service install`", .0.display())]
    Foreign(PathBuf),
    /// Somebody could replace what root runs.
    #[error("`{}` can be changed by others than root, and root would run what they put there", .0.display())]
    Loose(PathBuf),
    /// The configuration cannot be used.
    #[error("`{}` is no good: {reason}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration is there, and was given.
    #[error("`{}` is there, and is never overwritten", .0.display())]
    ConfigExists(PathBuf),
}

impl Refusal {
    /// The next step.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::NixOs => "set `services.mesh.enable = true` with the flake's `nixosModules.default`; `docs/nix.md` shows how".to_owned(),
            Self::NixDarwin => "set `services.mesh.enable = true` with the flake's `darwinModules.default`; `docs/nix.md` shows how".to_owned(),
            Self::NoManager(Daemon::Agent) => "have your init run `mesh agent supervise` as root, and start it again when it ends".to_owned(),
            Self::NoManager(Daemon::Controller) => "have your init run `mesh controller run` as root, and start it again when it ends".to_owned(),
            Self::Packaged(_, service) => format!("its units are there: `systemctl enable --now {service}`; or remove the package first"),
            Self::Foreign(_) => "look at it, move it away, and run this again".to_owned(),
            Self::Loose(dir) => format!("`chown root {0} && chmod go-w {0}`, and run this again", dir.display()),
            Self::Config { .. } => "mend it, and run this again".to_owned(),
            Self::ConfigExists(path) => format!("leave out `--network`, `--signer` and `--controller`, or edit `{}`", path.display()),
        }
    }

    /// Whether the usage or configuration is what is wrong.
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::ConfigExists(_))
    }
}

impl Facts {
    /// Who starts services here, unless there is a reason to leave them to somebody else.
    fn manager(&self, daemon: Daemon) -> Result<Manager, Refusal> {
        match self.system {
            System::Own(manager) => Ok(manager),
            System::NixOs => Err(Refusal::NixOs),
            System::NixDarwin => Err(Refusal::NixDarwin),
            System::Other => Err(Refusal::NoManager(daemon)),
        }
    }

    fn is_there(&self, path: impl AsRef<Path>) -> bool {
        self.found.contains_key(path.as_ref())
    }
}

/// Where this machine has things of `daemon`.
///
/// # Errors
///
/// A [`Refusal`] where others look after services.
pub(super) fn layout(facts: &Facts, daemon: Daemon) -> Result<Layout, Refusal> {
    let layout = Layout::of(facts.manager(daemon)?, daemon);
    match &facts.packaged {
        Some(path) => Err(Refusal::Packaged(path.clone(), layout.service)),
        None => Ok(layout),
    }
}

#[cfg(test)]
mod tests;
