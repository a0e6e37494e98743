//! `mesh keygen`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use mesh_inventory::Signer;
use mesh_os::{
    file::{self, WriteFileError},
    identity::{self, ReadIdentityError},
};
use mesh_types::{IdentitySeed, MachineName, PublicIdentity};
use rand::{RngCore as _, rngs::OsRng};
use zeroize::Zeroizing;

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Make a machine's identity, or show its public half
///
/// The identity is a secret that stays on its machine: the file can be read by its owner alone, and is
/// never overwritten. What others need is the public identity, which this prints; it belongs into the
/// inventory as the machine's `publicKey`.
///
/// Example: `mesh keygen --machine cinnabar --out /var/lib/mesh/identity`
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["out", "public"]))]
pub(crate) struct Args {
    /// Write a new identity to FILE, which must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the public identity of the one in FILE
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
    /// Show it as an entry of an inventory for the machine NAME
    #[arg(long, value_name = "NAME", conflicts_with = "ssh")]
    machine: Option<MachineName>,
    /// Show its Ed25519 half as an SSH public key, as lists of allowed signers have it
    #[arg(long, requires = "public")]
    ssh: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let identity = match (&args.out, &args.public) {
        (Some(path), _) => generate(path)?,
        (None, Some(path)) => read_identity(path)?.public(),
        (None, None) => {
            return Err(Failure::new(Exit::Usage, anyhow!("nothing to do"))
                .hint("pass `--out FILE` or `--public FILE`"));
        }
    };
    output::answer(&render(&args, &identity))?;
    Ok(Exit::Done)
}

fn render(args: &Args, identity: &PublicIdentity) -> String {
    if args.json {
        let answer = serde_json::json!({
            "version": 1,
            "machine": args.machine,
            "publicKey": identity,
            "ssh": Signer::from(*identity).to_openssh(),
        });
        return format!("{answer}\n");
    }
    if args.ssh {
        return format!("{}\n", Signer::from(*identity).to_openssh());
    }
    match &args.machine {
        Some(name) => format!("\"{name}\": {{ \"publicKey\": \"{identity}\" }}\n"),
        None => format!("{identity}\n"),
    }
}

/// Writes a new identity to `path`, where nothing may be, and returns its public half.
///
/// # Errors
///
/// A [`Failure`] that names what is there, or what the system said.
pub(crate) fn generate(path: &Path) -> Result<PublicIdentity, Failure> {
    let seed = random_seed()?;
    match file::write_once(path, seed.to_line().as_bytes(), 0o600) {
        Ok(()) => Ok(seed.public()),
        Err(error @ WriteFileError::Exists(_)) => {
            let hint = format!(
                "an identity is made once; `mesh keygen --public {}` shows the one that is there",
                path.display()
            );
            Err(Failure::new(Exit::Refused, error).hint(hint))
        }
        Err(error @ (WriteFileError::Directory(_) | WriteFileError::Io { .. })) => {
            Err(Failure::new(Exit::Refused, error))
        }
    }
}

/// A seed that is nobody else's.
///
/// # Errors
///
/// A [`Failure`] if the system gives no random bytes.
pub(crate) fn random_seed() -> Result<IdentitySeed, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
    Ok(IdentitySeed::from_bytes(*bytes))
}

/// Reads an identity file, which must be closed to others.
///
/// # Errors
///
/// A [`Failure`] with [`Exit::Usage`] that names what is wrong with the file.
pub(crate) fn read_identity(path: &Path) -> Result<IdentitySeed, Failure> {
    identity::read_identity(path).map_err(|error| {
        let malformed = matches!(error, ReadIdentityError::Malformed(_));
        let failure = Failure::new(Exit::Usage, error);
        if malformed {
            failure.hint("`mesh keygen --out FILE` makes a new identity in another file")
        } else {
            failure
        }
    })
}
