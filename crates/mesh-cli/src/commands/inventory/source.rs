//! What `check`, `show` and `resolve` take alike.

use std::path::PathBuf;

use mesh_inventory::roster::Roster;

use super::load;
use crate::failure::Failure;

/// An inventory, and how to answer.
#[derive(clap::Args)]
pub(super) struct Source {
    /// The inventory, JSON or TOML, or where that can be shown a roster; `-` for stdin
    pub(super) file: PathBuf,
    /// The roster in force, from which IPv4 addresses are kept
    #[arg(long, value_name = "ROSTER")]
    previous: Option<PathBuf>,
    /// Answer with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Source {
    /// The roster in force, if one is named.
    ///
    /// # Errors
    ///
    /// As [`load::roster`].
    pub(super) fn previous(&self) -> Result<Option<Roster>, Failure> {
        self.previous.as_deref().map(load::roster).transpose()
    }
}
