//! Makes the machine's resolver ask the agent: the small privileged step beside the confined daemon.
//!
//! The agent writes down what it answers ([`Names`]). Here, in another process and as root, that file is
//! read as the word of a less privileged process: it counts only as far as the configuration and the stored
//! roster, whose signature is checked again, say the same ([`check`]). Then [`mesh_os::resolver`] sets it.
//!
//! The command `mesh resolver` calls this, and on macOS the agent's parent process.

mod status;
mod untrusted;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use mesh_api::{NAMES_BELL, NAMES_FILE, Names};
use mesh_os::{
    file::{self, ReadFileError},
    resolver::{self, Applied, ApplyError, Backend, Choice, Machine, UndoError},
};

pub use self::{
    status::{Lookup, NotTaken, Status, status},
    untrusted::{Untrusted, check},
};
use crate::{
    config::Config,
    stored::{LoadRosterError, StoredRoster},
};

/// The most that is read of the names: more than 100 000 machines' worth.
const NAMES_BYTES_MAX: usize = 32 << 20;

/// How long an agent that is started anew may be without names.
const RESTART_LIMIT: Duration = Duration::from_secs(5);

/// How often is looked for them.
const RESTART_INTERVAL: Duration = Duration::from_millis(50);

/// How long is waited where the bell cannot be silenced: who starts us for as long as it is there would do
/// so again at once, and for ever.
const BELL_PAUSE: Duration = Duration::from_secs(1);

/// What [`apply`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The resolver asks the agent.
    Set(Applied),
    /// There is nothing to ask.
    Nothing {
        /// Why.
        reason: &'static str,
        /// Where something was set until now.
        undone: Vec<Backend>,
    },
}

/// Why the resolver was not set.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The agent's names cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// They are no names.
    // What the parser says may quote the file, which may be a link to a secret.
    #[error("`{}` does not hold an agent's names", .0.display())]
    Malformed(PathBuf),
    /// The agent says what the configuration or the roster does not.
    #[error("`{}` is not believed", .path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Untrusted,
    },
    /// The roster that the names must agree with cannot be read or is not by a signer.
    #[error("the stored roster does not vouch for the agent's names: {0}")]
    Roster(String),
    /// What this machine's interfaces have is unknown.
    #[error("cannot read the interfaces' addresses")]
    Addresses(#[source] io::Error),
    /// The resolver cannot be set.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// What is set cannot be undone.
    #[error(transparent)]
    Undo(#[from] UndoError),
}

/// Makes `machine`'s resolver ask as the agent's names say, or nothing if there are none. With `wait`, an
/// agent without names is given five seconds to write them, as one that restarts does.
///
/// # Errors
///
/// [`ResolverError`]; what was set before is then still set.
pub fn apply(config: &Config, machine: &Machine, wait: bool) -> Result<Outcome, ResolverError> {
    if config.resolver == Choice::None {
        return nothing(
            config,
            machine,
            "the configuration says `resolver = \"none\"`",
        );
    }
    let path = names_path(config);
    // Before anything is read: what changes later rings anew.
    answer_bell(&path.with_file_name(NAMES_BELL));
    if wait {
        wait_for(&path);
    }
    let Some(names) = read_names(&path)? else {
        return nothing(config, machine, "the agent has no names");
    };
    let roster = StoredRoster::in_dir(&config.state_dir)
        .load(&config.network, &config.signers)
        .map_err(|error: LoadRosterError| ResolverError::Roster(crate::chain(&error)))?
        .ok_or_else(|| ResolverError::Roster("there is none".to_owned()))?;
    let local = resolver::addresses_of(&names.interface).map_err(ResolverError::Addresses)?;
    if local.is_empty() {
        return nothing(config, machine, "the agent does not run");
    }
    let split = check(&names, config, &roster, &local)
        .map_err(|source| ResolverError::Untrusted { path, source })?;
    Ok(Outcome::Set(machine.apply(&split, config.resolver)?))
}

/// Takes back whatever was set on `machine`, and says where; `config` is asked for the network if there is one.
///
/// # Errors
///
/// [`UndoError`].
pub fn undo(config: Option<&Config>, machine: &Machine) -> Result<Vec<Backend>, UndoError> {
    machine.undo(config.map(|config| &config.network))
}

/// Reads the names that an agent wrote; `None` if there are none.
fn read_names(path: &Path) -> Result<Option<Names>, ResolverError> {
    let bytes = match file::read_bounded_unlinked(path, NAMES_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    match serde_json::from_slice(&bytes) {
        Ok(names) => Ok(Some(names)),
        Err(_) => Err(ResolverError::Malformed(path.to_owned())),
    }
}

fn nothing(
    config: &Config,
    machine: &Machine,
    reason: &'static str,
) -> Result<Outcome, ResolverError> {
    let undone = undo(Some(config), machine)?;
    Ok(Outcome::Nothing { reason, undone })
}

fn names_path(config: &Config) -> PathBuf {
    config.socket.with_file_name(NAMES_FILE)
}

fn answer_bell(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => thread::sleep(BELL_PAUSE),
        Ok(()) | Err(_) => {}
    }
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + RESTART_LIMIT;
    while !path.exists() && Instant::now() < deadline {
        thread::sleep(RESTART_INTERVAL);
    }
}

#[cfg(test)]
mod tests;
