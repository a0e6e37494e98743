//! `mesh inventory verify`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use mesh_inventory::{Roster, allowed};
use serde_json::json;

use super::load;
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Verify a roster against a list of allowed signers
///
/// The list is OpenSSH's: `PRINCIPALS KEY` a line, as `ssh-keygen -Y verify -f` takes it. Bare keys and
/// `mesh1` identities are taken as well. Ends with 1 if the roster is forged, altered, or signed by
/// anybody else.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The roster
    roster: PathBuf,
    /// The list of allowed signers
    #[arg(long, value_name = "ALLOWED_SIGNERS")]
    allowed: PathBuf,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let list = load::bytes(&args.allowed)?;
    let allowed = std::str::from_utf8(&list)
        .map_err(anyhow::Error::new)
        .and_then(|list| Ok(allowed::parse(list)?))
        .with_context(|| format!("`{}` is no list of allowed signers", args.allowed.display()))
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let roster = load::roster(&args.roster)?;
    let Some(by) = allowed.iter().find(|one| one.signer == *roster.signer()) else {
        let error = anyhow!(
            "`{}` is refused: it is signed by {}, which `{}` does not list",
            args.roster.display(),
            roster.signer().fingerprint(),
            args.allowed.display()
        );
        return Err(Failure::new(Exit::Refused, error));
    };
    let text = if args.json {
        let object = json!({
            "version": 1,
            "head": roster.head(),
            "headHash": roster.head_hash(),
            "principals": by.principals,
            "signer": by.signer,
        });
        format!("{object}\n")
    } else {
        format!(
            "good: {}, signed by {} ({})\n",
            summary(&roster),
            by.principals,
            by.signer.fingerprint()
        )
    };
    output::answer(&text)?;
    Ok(Exit::Done)
}

/// A roster in a few words.
pub(super) fn summary(roster: &Roster) -> String {
    format!(
        "serial {} of network `{}` with {}",
        roster.head().serial,
        roster.network().name,
        super::show::count(roster.members().len(), "member"),
    )
}
