//! Entry points for fuzzing: what reads bytes from outside, with its result thrown away.

use crate::{allowed, inventory, resolve::resolve, roster::Roster, roster::Signer};

/// Reads and resolves an inventory in JSON, or in TOML if it does not begin with `{`.
pub fn inventory(bytes: &[u8]) {
    match inventory::parse("fuzz", bytes) {
        Ok(inventory) => {
            if let Err(report) = resolve(&inventory, None) {
                let _ = report.to_string();
            }
        }
        Err(report) => {
            let _ = report.to_string();
        }
    }
}

/// Reads a roster file, and a signer and a list of allowed signers.
pub fn roster(bytes: &[u8]) {
    let _ = Roster::open(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<Signer>();
    let _ = allowed::parse(&text);
}
