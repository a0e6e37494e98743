//! Asking before something is done.

use std::io::{self, BufRead};

use anyhow::Context as _;

use crate::output;

/// Asks whoever is at the terminal; anything but a yes is a no.
///
/// # Errors
///
/// If the answer cannot be read.
pub(crate) fn confirm(question: &str) -> anyhow::Result<bool> {
    output::error(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
