//! Names of several labels: domains and aliases, and what stands for many of them.

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

/// Checks an alias: as [`check`], or a wildcard, which is `*.` before that. `*` alone would be a name of
/// everything that is mistyped, too, and is none.
///
/// # Errors
///
/// As [`check`].
pub(crate) fn check_alias(alias: &str) -> Result<(), Option<String>> {
    let Some(below) = alias.strip_prefix("*.") else {
        return check(alias);
    };
    // With a label for the asterisk, which is as long as the shortest.
    check(below)
        .and_then(|()| check(&format!("x.{below}")))
        .map_err(|hint| hint.map(|hint| format!("*.{hint}")))
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

    #[test]
    fn a_wildcard_begins_with_an_asterisk_and_is_below_a_name() {
        for good in ["kanban", "*.apps", "*.a.b"] {
            assert_eq!(check_alias(good), Ok(()), "{good}");
        }
        for bad in ["*", "*.", "*.*", "*.*.apps", "apps.*", "a.*.b", "*apps"] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
        let hint = Some("*.my-apps".to_owned());
        assert_eq!(check_alias("*.My_Apps"), Err(hint));
    }
}
