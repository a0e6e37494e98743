//! `mesh inventory sign`.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use mesh_inventory::{HeadFields, Resolution, Roster, Signer, admit};
use mesh_os::file;
use mesh_types::Serial;
use serde_json::json;

use super::{key::Key, load, verify::summary};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Sign an inventory: make a roster of it
///
/// KEY is an SSH private key, an SSH public key whose private half is in the ssh-agent, or an identity of
/// `mesh keygen`. With `--previous`, the roster in force, the serial is the next one and IPv4 addresses
/// are kept.
///
/// Example: `mesh inventory sign inventory.json --key ~/.ssh/id_ed25519 --serial 1 --out roster.json`
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("order").required(true).multiple(true).args(["serial", "previous"]))]
pub(super) struct Args {
    /// The inventory, JSON or TOML; `-` for stdin
    file: PathBuf,
    /// The key to sign with
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// The roster's serial, higher than any before; by default the previous one's plus 1
    #[arg(long, value_name = "N")]
    serial: Option<Serial>,
    /// The roster in force, which this one follows
    #[arg(long, value_name = "ROSTER")]
    previous: Option<PathBuf>,
    /// Where the roster goes
    #[arg(long, value_name = "ROSTER")]
    out: PathBuf,
    /// Revision of the inventory's source, such as a git commit
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Sign although the serial jumps by over a million, or over half the members go
    #[arg(long)]
    force: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let previous = args.previous.as_deref().map(load::roster).transpose()?;
    let resolution = load::resolution(&args.file, previous.as_ref())?;
    let key = Key::load(&args.key)?;
    let signer = key.signer()?;
    warn_of_stranger(&args, &resolution, &signer);
    let fields = HeadFields {
        serial: serial(args.serial, previous.as_ref())?,
        time: now()?,
        revision: args.revision,
        previous: previous.as_ref().map(Roster::head_hash),
    };
    let unsigned = resolution
        .unsigned(fields)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let roster = key.sign(unsigned)?;
    if let Err(refused) = admit(previous.as_ref(), &roster, None, args.force) {
        let forceable = refused.is_forceable();
        let failure = Failure::new(
            Exit::Refused,
            anyhow::Error::new(refused).context("this roster would not follow the previous one"),
        );
        return Err(if forceable {
            failure.hint("pass `--force` if that is meant")
        } else {
            failure
        });
    }
    file::write_atomic(&args.out, &roster.to_file(), 0o644)
        .map_err(|error| Failure::new(Exit::Refused, error))?;
    let text = if args.json {
        let object = json!({
            "version": 1,
            "head": roster.head(),
            "headHash": roster.head_hash(),
            "signer": signer,
            "roster": args.out,
        });
        format!("{object}\n")
    } else {
        format!(
            "signed {} with {}: `{}`\n",
            summary(&roster),
            signer.fingerprint(),
            args.out.display()
        )
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

fn serial(given: Option<Serial>, previous: Option<&Roster>) -> Result<Serial, Failure> {
    match (given, previous) {
        (Some(serial), _) => Ok(serial),
        (None, Some(previous)) => previous.head().serial.next().ok_or_else(|| {
            Failure::new(Exit::Refused, anyhow!("there is no serial after the last"))
        }),
        (None, None) => Err(Failure::new(
            Exit::Usage,
            anyhow!("`--serial N` or `--previous ROSTER` is needed"),
        )),
    }
}

fn warn_of_stranger(args: &Args, resolution: &Resolution, signer: &Signer) {
    if !resolution.signers().contains(signer) {
        output::error(&format!(
            "warning: `{}` ({}) is not among `signers` of the inventory\n\
             hint: nodes trust the signers of their own configuration; add this key there and here\n\n",
            args.key.display(),
            signer.fingerprint()
        ));
    }
}

fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is before 1970")?
        .as_secs())
}
