//! The keys that sign rosters.

use std::{
    env,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use mesh_inventory::{Roster, Signer, Unsigned};
use mesh_os::file;
use mesh_types::IdentitySeed;
use ssh_agent_client_rs::{Client, Identity};
use ssh_key::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::super::keygen;
use crate::failure::{Exit, Failure};

/// The largest key file that is read, in bytes.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// A key that can sign.
pub(super) enum Key {
    /// A `mesh1` identity.
    Identity(IdentitySeed),
    /// An SSH private key.
    Ssh(Box<PrivateKey>),
    /// An SSH key whose private half is in an ssh-agent.
    Agent(Box<PublicKey>),
}

impl Key {
    /// Reads an identity file, an SSH private key, or an SSH public key whose private half is in the
    /// ssh-agent.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with [`Exit::Usage`] that says what to do about the file.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let usage = |error: anyhow::Error| Failure::new(Exit::Usage, error);
        let bytes = file::read_bounded(path, KEY_BYTES_MAX).map_err(|error| usage(error.into()))?;
        let bytes = Zeroizing::new(bytes);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(usage(no_key(path)));
        };
        if text.starts_with("mesh1-seed-") {
            return keygen::read_identity(path).map(Self::Identity);
        }
        if let Ok(key) = PublicKey::from_openssh(text.trim()) {
            return Ok(Self::Agent(Box::new(key)));
        }
        if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            // For the check of its permissions.
            let bytes =
                file::read_secret(path, KEY_BYTES_MAX).map_err(|error| usage(error.into()))?;
            let key = PrivateKey::from_openssh(bytes.as_slice())
                .with_context(|| format!("`{}` is a broken SSH private key", path.display()))
                .map_err(usage)?;
            return from_private(path, key);
        }
        let failure = usage(no_key(path));
        Err(if text.contains("PRIVATE KEY-----") {
            failure.hint(format!(
                "`ssh-keygen -p -f {}` rewrites it in OpenSSH's own form",
                path.display()
            ))
        } else {
            failure
        })
    }

    /// The key as rosters name their signer.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the key is of a kind that cannot sign rosters.
    pub(super) fn signer(&self) -> Result<Signer, Failure> {
        let key = match self {
            Self::Identity(seed) => return Ok(seed.public().into()),
            Self::Ssh(key) => key.public_key(),
            Self::Agent(key) => key.as_ref(),
        };
        Signer::try_from(key.clone()).map_err(|error| Failure::new(Exit::Usage, error))
    }

    /// Signs a roster.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the key, or the agent that has it, does not sign.
    pub(super) fn sign(&self, unsigned: Unsigned) -> Result<Roster, Failure> {
        let signed = match self {
            Self::Identity(seed) => unsigned.sign_with_seed(seed),
            Self::Ssh(key) => unsigned.sign_with_ssh(key),
            Self::Agent(key) => {
                let signature = sign_with_agent(key, &unsigned.ssh_signed_data())?;
                unsigned.attach_ssh(key, signature)
            }
        };
        signed.map_err(|error| Failure::new(Exit::Refused, error))
    }
}

fn from_private(path: &Path, key: PrivateKey) -> Result<Key, Failure> {
    let is_token = key.algorithm().as_str().starts_with("sk-");
    if is_token || (key.is_encrypted() && agent_has(key.public_key())) {
        return Ok(Key::Agent(Box::new(key.public_key().clone())));
    }
    if !key.is_encrypted() {
        return Ok(Key::Ssh(Box::new(key)));
    }
    let hint = format!("put it into your ssh-agent: `ssh-add {}`", path.display());
    if !io::stdin().is_terminal() {
        let error = anyhow!(
            "`{}` is encrypted, and there is no terminal to ask on",
            path.display()
        );
        return Err(Failure::new(Exit::Refused, error).hint(hint));
    }
    let prompt = format!("Passphrase of `{}`: ", path.display());
    let passphrase = rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .context("cannot read the passphrase")?;
    match key.decrypt(passphrase.as_bytes()) {
        Ok(key) => Ok(Key::Ssh(Box::new(key))),
        Err(_) => {
            let error = anyhow!("this is not the passphrase of `{}`", path.display());
            Err(Failure::new(Exit::Refused, error))
        }
    }
}

/// The public keys in the ssh-agent; none where there is no agent.
pub(super) fn agent_keys() -> Vec<PublicKey> {
    let Some(mut agent) = agent_socket().and_then(|socket| Client::connect(&socket).ok()) else {
        return Vec::new();
    };
    let identities = agent.list_all_identities().unwrap_or_default();
    identities
        .into_iter()
        .filter_map(|identity| match identity {
            Identity::PublicKey(key) => Some(key.into_owned()),
            Identity::Certificate(_) => None,
        })
        .collect()
}

fn agent_has(key: &PublicKey) -> bool {
    agent_keys()
        .iter()
        .any(|held| held.key_data() == key.key_data())
}

fn sign_with_agent(key: &PublicKey, data: &[u8]) -> Result<ssh_key::Signature, Failure> {
    let refused = |error: anyhow::Error| {
        Failure::new(Exit::Refused, error)
            .hint("`ssh-add -l` lists the keys that it has, `ssh-add KEY` adds one")
    };
    let Some(socket) = agent_socket() else {
        let error = anyhow!(
            "the private half of this key would be in an ssh-agent, and SSH_AUTH_SOCK names none"
        );
        return Err(refused(error));
    };
    let mut agent = Client::connect(&socket)
        .with_context(|| format!("cannot reach the ssh-agent at `{}`", socket.display()))
        .map_err(refused)?;
    agent
        .sign(key, data)
        .context("the ssh-agent does not sign with this key")
        .map_err(refused)
}

fn agent_socket() -> Option<PathBuf> {
    env::var_os("SSH_AUTH_SOCK")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn no_key(path: &Path) -> anyhow::Error {
    anyhow!(
        "`{}` is neither an SSH key nor an identity of `mesh keygen`",
        path.display()
    )
}
