//! Reading inventories and rosters from files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use mesh_inventory::{
    Inventory, Report, Resolution, Roster, inventory, resolve, roster::ROSTER_BYTES_MAX,
};

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Reads a file that is not secret; `-` is stdin.
///
/// # Errors
///
/// A [`Failure`] with [`Exit::Usage`].
pub(in crate::commands) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: io::Error| {
        let error = anyhow::Error::new(error).context(format!("cannot read `{}`", path.display()));
        Failure::new(Exit::Usage, error)
    };
    let source: &mut dyn Read = if path == Path::new("-") {
        &mut io::stdin()
    } else {
        &mut File::open(path).map_err(unreadable)?
    };
    let mut bytes = Vec::new();
    // One byte more than the most, so that what is too large is found to be that.
    let limit = ROSTER_BYTES_MAX as u64 + 1;
    source
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// Reads an inventory and resolves it, with warnings shown.
///
/// # Errors
///
/// As [`bytes`], and after showing what is wrong with the inventory.
pub(in crate::commands) fn resolution(
    path: &Path,
    previous: Option<&Roster>,
) -> Result<Resolution, Failure> {
    let inventory = parse(path, &bytes(path)?)?;
    let resolution = resolve(&inventory, previous).map_err(|report| broken(path, &report))?;
    if resolution.warnings().has_warnings() {
        output::error(&format!("{}\n", resolution.warnings()));
    }
    Ok(resolution)
}

/// Reads a roster; its signature is right, but may be anyone's.
///
/// # Errors
///
/// A [`Failure`] with [`Exit::Usage`] if the file cannot be read, with [`Exit::Refused`] if it is not a
/// genuine roster.
pub(in crate::commands) fn roster(path: &Path) -> Result<Roster, Failure> {
    open_roster(path, &bytes(path)?)
}

/// An inventory or a roster.
pub(in crate::commands) enum Either {
    Inventory(Box<Resolution>),
    Roster(Box<Roster>),
}

/// Reads an inventory or a roster, without showing warnings; IPv4 addresses are kept from `previous`.
///
/// # Errors
///
/// As [`resolution`] and [`roster`].
pub(in crate::commands) fn either(
    path: &Path,
    previous: Option<&Roster>,
) -> Result<Either, Failure> {
    let bytes = bytes(path)?;
    if is_roster(&bytes) {
        return open_roster(path, &bytes).map(|roster| Either::Roster(Box::new(roster)));
    }
    let inventory = parse(path, &bytes)?;
    resolve(&inventory, previous)
        .map(|resolution| Either::Inventory(Box::new(resolution)))
        .map_err(|report| broken(path, &report))
}

impl Either {
    pub(in crate::commands) fn parts(&self) -> mesh_inventory::Parts<'_> {
        match self {
            Self::Inventory(resolution) => resolution.parts(),
            Self::Roster(roster) => roster.parts(),
        }
    }

    pub(in crate::commands) fn as_roster(&self) -> Option<&Roster> {
        match self {
            Self::Inventory(_) => None,
            Self::Roster(roster) => Some(roster),
        }
    }
}

/// Shows what is wrong and ends with [`Exit::Usage`].
pub(in crate::commands) fn broken(path: &Path, report: &Report) -> Failure {
    output::error(&format!("{report}\n"));
    let errors = match report.errors() {
        1 => "one error".to_owned(),
        errors => format!("{errors} errors"),
    };
    let summary = anyhow!("the inventory `{}` has {errors}", path.display());
    Failure::new(Exit::Usage, summary)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Inventory, Failure> {
    inventory::parse(&path.display().to_string(), bytes).map_err(|report| broken(path, &report))
}

fn open_roster(path: &Path, bytes: &[u8]) -> Result<Roster, Failure> {
    Roster::open(bytes)
        .with_context(|| format!("`{}` is refused as a roster", path.display()))
        .map_err(|error| Failure::new(Exit::Refused, error))
}

/// Whether this is a roster, going by what it begins with: an inventory has neither key.
fn is_roster(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Outline {
        #[expect(dead_code, reason = "its presence is what counts")]
        head: serde::de::IgnoredAny,
        #[expect(dead_code, reason = "its presence is what counts")]
        signature: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Outline>(bytes).is_ok()
}
