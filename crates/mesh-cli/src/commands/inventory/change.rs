//! Changing an inventory's file in place, with all else in it as it was written.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, anyhow};
use mesh_inventory::{Edit, Report, Resolution, diff, edit, inventory, resolve};
use mesh_os::file;
use serde_json::json;

use super::load;
use crate::{
    failure::{Exit, Failure},
    output,
};

/// The names that an inventory has where none is given.
const FILES: [&str; 2] = ["inventory.json", "inventory.toml"];

/// Which inventory is to be changed, and how that is answered.
#[derive(clap::Args)]
pub(in crate::commands) struct Target {
    /// The inventory, JSON or TOML; by default `inventory.json` or `inventory.toml` of this folder
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

impl Target {
    /// The file.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with [`Exit::Usage`]: none was named, and there is none here, or there are two.
    pub(in crate::commands) fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.inventory {
            return Ok(path.clone());
        }
        let mut present = FILES.iter().map(PathBuf::from).filter(|path| path.exists());
        match (present.next(), present.next()) {
            (Some(only), None) => Ok(only),
            (first, _) => {
                let what = match first {
                    Some(_) => "both `inventory.json` and `inventory.toml`",
                    None => "neither `inventory.json` nor `inventory.toml`",
                };
                let error = anyhow!("there is {what} in this folder");
                Err(Failure::new(Exit::Usage, error)
                    .hint("say which file it is with `--inventory FILE`; what Nix evaluates is changed in its source"))
            }
        }
    }

    /// Makes the change, and says what of the fleet changes by it. Nothing is written if what comes of it is no
    /// inventory.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that says what is in the way.
    pub(in crate::commands) fn change(&self, change: &Edit) -> Result<Exit, Failure> {
        let path = self.path()?;
        let (file, name) = (path.display(), path.display().to_string());
        let unreadable = || format!("cannot read `{file}`");
        // What a link leads to is replaced, not the link.
        let target = path.canonicalize().with_context(unreadable);
        let target = target.map_err(|error| Failure::new(Exit::Usage, error))?;
        let before = fs::symlink_metadata(&target).with_context(unreadable)?;
        let bytes = load::bytes(&path)?;
        let text = String::from_utf8(bytes).with_context(unreadable)?;
        let edited = edit(&name, &text, change).map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("`{file}` is not changed"));
            Failure::new(Exit::Refused, error)
        })?;
        let old = resolved(&name, &text).ok();
        let new = resolved(&name, &edited)
            .map_err(|report| load::broken(&path, &report).hint("nothing was written"))?;
        if edited != text
            && !file::replace(&target, edited.as_bytes(), &before)
                .map_err(|error| Failure::new(Exit::Refused, error))?
        {
            let error = anyhow!("`{file}` was changed meanwhile");
            return Err(
                Failure::new(Exit::Refused, error).hint("nothing was written; run this again")
            );
        }
        let changes = old.map(|old| diff(old.parts(), new.parts()));
        let text = match (self.json, &changes) {
            (true, _) => {
                let object = json!({ "version": 1, "file": path, "written": edited != text, "changes": changes });
                format!("{object}\n")
            }
            (false, _) if edited == text => format!("`{file}` says so already\n"),
            (false, None) => format!("changed `{file}`\n"),
            (false, Some(changes)) => format!("changed `{file}`\n{changes}{NEXT}"),
        };
        output::answer(&text)?;
        Ok(Exit::Done)
    }
}

const NEXT: &str = "next: a controller that watches this file has it in force; else `mesh inventory sign` and `mesh inventory push`\n";

fn resolved(name: &str, text: &str) -> Result<Resolution, Report> {
    inventory::parse(name, text.as_bytes()).and_then(|inventory| resolve(&inventory, None))
}
