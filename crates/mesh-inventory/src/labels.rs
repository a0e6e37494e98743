//! Names of several labels: domains and aliases.

use mesh_types::MachineName;

/// Longest name, in bytes (RFC 1035 section 2.3.4).
const BYTES_MAX: usize = 253;

/// Checks that a name is labels, each as a machine's name, joined by dots.
///
/// # Errors
///
/// The corrected name, if there is one.
pub(crate) fn check(name: &str) -> Result<(), Option<String>> {
    let labels: Vec<_> = name.split('.').map(str::parse::<MachineName>).collect();
    if labels.iter().all(Result::is_ok) {
        return if name.len() <= BYTES_MAX {
            Ok(())
        } else {
            Err(None)
        };
    }
    let corrected: Option<Vec<String>> = labels
        .into_iter()
        .map(|label| match label {
            Ok(name) => Some(name.to_string()),
            Err(error) => error.suggestion,
        })
        .collect();
    Err(corrected.map(|labels| labels.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_wrong_ones_are_corrected() {
        assert_eq!(check("zt"), Ok(()));
        assert_eq!(check("home.example"), Ok(()));
        assert_eq!(check("Zt.My_Home"), Err(Some("zt.my-home".to_owned())));
        assert_eq!(check("a..b"), Err(None));
        assert_eq!(check(""), Err(None));
        assert_eq!(check(&vec!["a".repeat(63); 4].join(".")), Err(None));
    }
}
