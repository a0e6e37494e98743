use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name of a machine or guest: 1 to 63 of `a`-`z`, `0`-`9` and hyphen, no hyphen at either end.
///
/// Sorted by its bytes, the order of the members in a roster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

/// Text that is no machine name. `Display` offers the corrected name where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseNameError {
    /// The text as it was given.
    pub text: String,
    /// A valid name that was probably meant; `None` if nothing is left of the text.
    pub suggestion: Option<String>,
}

/// The longest name, in bytes: a DNS label (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 63;

impl MachineName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        if !is_name(text) {
            return Err(ParseNameError {
                text: text.to_owned(),
                suggestion: corrected(text),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for MachineName {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, ParseNameError> {
        text.parse()
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> Self {
        name.0
    }
}

impl AsRef<str> for MachineName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MachineName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ParseNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a machine name: 1 to 63 of `a`-`z`, `0`-`9` and `-`, no `-` at either end",
            self.text.escape_debug()
        )?;
        match &self.suggestion {
            Some(name) => write!(f, "; use `{name}`"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParseNameError {}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Lower-cases, turns every run of other characters into one hyphen, and cuts to length.
fn corrected(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars() {
        let c = c.to_ascii_lowercase();
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_matches('-');
    let name = name[..name.len().min(NAME_BYTES_MAX)].trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_dns_labels_in_lower_case() {
        for good in ["a", "cinnabar", "x1", "a-b", "0", &"a".repeat(63)] {
            assert!(good.parse::<MachineName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "ä",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_corrected_one() {
        let error = "My_Host.local-".parse::<MachineName>().unwrap_err();
        assert_eq!(error.suggestion.as_deref(), Some("my-host-local"));
        assert!(error.to_string().ends_with("; use `my-host-local`"));
        assert_eq!("---".parse::<MachineName>().unwrap_err().suggestion, None);
    }

    proptest! {
        #[test]
        fn every_suggestion_is_a_name(text in any::<String>()) {
            if let Err(ParseNameError { suggestion: Some(name), .. }) = text.parse::<MachineName>() {
                prop_assert!(name.parse::<MachineName>().is_ok());
            }
        }
    }
}
