//! Asking before something is done.

use std::io::{self, BufRead, IsTerminal};

use anyhow::Context as _;

use crate::output;

/// Asks a person; `true` where nobody is there to ask, because stdin is no terminal.
///
/// # Errors
///
/// If the answer cannot be read.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    output::error(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
