//! What a program can tell of itself before it takes the place of another, without touching anything.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mesh_core::HANDOVER_FORMAT;
use mesh_os::identity::{ReadIdentityError, read_identity};
use mesh_types::Serial;

use crate::{
    config::{Config, ConfigError},
    stored::{LoadRosterError, StoredRoster},
};

/// How long another program may take to check itself, which takes well below a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The most that is read of what it printed.
const WORDS_BYTES_MAX: u64 = 2_000;

/// What a program found when it checked itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfCheck {
    /// The serial of the stored roster; `None` before the first.
    pub serial: Option<Serial>,
    /// The format in which it hands sessions on and takes them over.
    pub handover_format: u32,
}

/// Why a program must not take the place of another.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// It does not read the configuration.
    #[error("this program does not take the configuration")]
    Config(#[source] ConfigError),
    /// It does not read the identity.
    #[error("this program does not take the identity")]
    Identity(#[source] ReadIdentityError),
    /// It would start without the stored roster.
    #[error("this program does not take the stored roster")]
    Roster(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its cryptography gives wrong answers on this machine.
    #[error("this program's cryptography is wrong on this machine")]
    Cryptography(#[source] mesh_core::SelfTestError),
}

/// Checks what can be checked without opening a device or a port: configuration, identity, stored roster,
/// and the ciphers and handshakes against known answers. Opens files for reading, and nothing else.
///
/// # Errors
///
/// [`SelfCheckError`], the first that is found.
pub fn self_check(config_path: &Path) -> Result<SelfCheck, SelfCheckError> {
    mesh_core::self_test().map_err(SelfCheckError::Cryptography)?;
    let config = Config::load(config_path).map_err(SelfCheckError::Config)?;
    read_identity(&config.identity_file).map_err(SelfCheckError::Identity)?;
    let roster = StoredRoster::in_dir(&config.state_dir)
        .load(&config.network, &config.signers)
        .map_err(|error: LoadRosterError| SelfCheckError::Roster(error.into()))?;
    Ok(SelfCheck {
        serial: roster.map(|roster| roster.head().serial),
        handover_format: HANDOVER_FORMAT,
    })
}

/// Runs another program's self-check, and returns what it printed if that fails.
pub(crate) fn judge(mut command: Command) -> Result<(), String> {
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("it cannot be started: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {PATIENCE:?}"));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    if let Some(printed) = child.stderr.take() {
        let _ = printed.take(WORDS_BYTES_MAX).read_to_end(&mut words);
    }
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    Err(match words.is_empty() {
        true => status.to_string(),
        false => words,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        chain,
        testing::{Fleet, network},
    };

    #[test]
    fn another_program_is_judged_by_its_exit_and_its_words() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            judge(command)
        };
        assert_eq!(shell("exit 0"), Ok(()));
        assert_eq!(shell("echo no >&2; exit 1"), Err("no".to_owned()));
        assert!(shell("exit 3").unwrap_err().contains('3'));
        assert!(judge(Command::new("/nowhere/mesh")).is_err());
    }

    #[test]
    fn what_the_next_start_would_stumble_over_is_found() {
        let fleet = Fleet::new(&["galena"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let identity = dir.path().join("identity");
        let text = format!(
            "network = \"{}\"\nsigners = [\"{}\"]\ncontrollers = []\nidentity_file = \"{}\"\nstate_dir = \"{}\"\n",
            network(),
            fleet.signer(),
            identity.display(),
            dir.path().display(),
        );
        fs::write(&path, format!("{text}\nfrobnicate = 1\n")).unwrap();
        assert!(matches!(self_check(&path), Err(SelfCheckError::Config(_))));

        fs::write(&path, text).unwrap();
        assert!(matches!(
            self_check(&path),
            Err(SelfCheckError::Identity(_))
        ));
        fs::write(&identity, fleet.seed_of("galena").to_line().as_bytes()).unwrap();
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).unwrap();
        let found = self_check(&path).unwrap();
        assert_eq!(
            (found.serial, found.handover_format),
            (None, HANDOVER_FORMAT)
        );

        StoredRoster::in_dir(dir.path())
            .store(&fleet.roster(7))
            .unwrap();
        assert_eq!(self_check(&path).unwrap().serial.map(Serial::get), Some(7));
        fs::write(dir.path().join("roster.json"), "torn").unwrap();
        let error = self_check(&path).unwrap_err();
        assert!(chain(&error).contains("roster.json"), "{}", chain(&error));
    }
}
