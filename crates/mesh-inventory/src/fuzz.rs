//! Entry points for fuzzing: what reads bytes from outside, with its result thrown away.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    Edit, Invitation, allowed, edit, inventory,
    resolve::resolve,
    roster::{Roster, Signer},
};

/// Reads and resolves an inventory in JSON, or in TOML if it does not begin with `{`; and changes its text, which then is still
/// one that can be read.
pub fn inventory(bytes: &[u8]) {
    match inventory::parse("fuzz", bytes) {
        Ok(inventory) => {
            let text = String::from_utf8_lossy(bytes);
            for name in inventory.document.machines.keys().take(2) {
                let edits = [
                    Edit::Enabled(name.clone(), false),
                    Edit::Key(name.clone(), None),
                    Edit::Retire(name.clone()),
                ];
                for change in edits {
                    if let Ok(edited) = edit("fuzz", &text, &change) {
                        let again = inventory::parse("fuzz", edited.as_bytes());
                        assert!(again.is_ok(), "{change:?}:\n{text}\n{edited}");
                    }
                }
            }
            if let Err(report) = resolve(&inventory, None) {
                let _ = report.to_string();
            }
        }
        Err(report) => {
            let _ = report.to_string();
        }
    }
}

/// Reads a roster file, and a signer, a list of allowed signers and an invitation.
pub fn roster(bytes: &[u8]) {
    let _ = Roster::open(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<Signer>();
    let _ = allowed::parse(&text);
    let _ = text.parse::<Invitation>();
    let token = format!("mesh1-invitation-{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    let _ = token.parse::<Invitation>();
}
