//! OpenSSH's list of allowed signers (ssh-keygen(1), ALLOWED SIGNERS).

use crate::roster::{NAMESPACE, ParseSignerError, Signer};

/// A key that may sign, and who it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedSigner {
    /// Whose it is: patterns as in `Match`, joined by commas.
    pub principals: String,
    /// The key.
    pub signer: Signer,
}

/// A line that cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseAllowedError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Reads a list of allowed signers: `PRINCIPALS [OPTIONS] KEY [COMMENT]` a line, and what `signers` of an
/// inventory has: a bare key or a `mesh1` identity.
///
/// Lines whose `namespaces` leave out rosters are passed over. Authorities for certificates, and times
/// from or until which a key counts, are errors: a roster is verified at any time, so a key that no
/// longer counts must go from the list.
///
/// # Errors
///
/// [`ParseAllowedError`] names the line.
pub fn parse(text: &str) -> Result<Vec<AllowedSigner>, ParseAllowedError> {
    let mut allowed = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = parse_line(line).map_err(|reason| ParseAllowedError {
            line: index + 1,
            reason,
        })?;
        allowed.extend(parsed);
    }
    Ok(allowed)
}

fn parse_line(line: &str) -> Result<Option<AllowedSigner>, String> {
    if let Ok(signer) = line.parse::<Signer>() {
        return Ok(Some(AllowedSigner {
            principals: "*".to_owned(),
            signer,
        }));
    }
    let (principals, rest) = principals(line)?;
    let named = |signer| {
        Some(AllowedSigner {
            principals: principals.clone(),
            signer,
        })
    };
    match rest.parse::<Signer>() {
        Ok(signer) => return Ok(named(signer)),
        Err(ParseSignerError::Form) => {}
        Err(error) => return Err(error.to_string()),
    }
    let (options, key) = split_unquoted(rest, ' ').ok_or("no key")?;
    let mut counts = true;
    for option in options_of(options) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name.to_ascii_lowercase().as_str() {
            "namespaces" => {
                let value = value.trim_matches('"');
                counts = value.split(',').any(|pattern| matches(pattern, NAMESPACE));
            }
            other => {
                return Err(format!(
                    "the option `{}` is not supported for rosters",
                    other.escape_debug()
                ));
            }
        }
    }
    let signer = key
        .trim()
        .parse::<Signer>()
        .map_err(|error| error.to_string())?;
    Ok(named(signer).filter(|_| counts))
}

fn principals(line: &str) -> Result<(String, &str), String> {
    let (first, rest) = split_unquoted(line, ' ').ok_or("principals and a key are expected")?;
    Ok((first.trim_matches('"').to_owned(), rest.trim()))
}

fn options_of(mut text: &str) -> Vec<&str> {
    let mut options = Vec::new();
    while let Some((option, rest)) = split_unquoted(text, ',') {
        options.push(option);
        text = rest;
    }
    options.push(text);
    options
}

/// Splits at the first `separator` (a space also stands for a tab) that is not in double quotes.
fn split_unquoted(text: &str, separator: char) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '\t' if !quoted && separator == ' ' => return Some((&text[..at], &text[at + 1..])),
            c if c == separator && !quoted => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// A pattern with `*` and `?` (ssh_config(5), PATTERNS).
fn matches(pattern: &str, text: &str) -> bool {
    let mut reachable = vec![false; text.len() + 1];
    reachable[0] = true;
    for symbol in pattern.bytes() {
        if symbol == b'*' {
            let first = reachable
                .iter()
                .position(|is| *is)
                .unwrap_or(text.len() + 1);
            for is in reachable.iter_mut().skip(first) {
                *is = true;
            }
            continue;
        }
        for at in (0..text.len()).rev() {
            reachable[at + 1] = reachable[at] && (symbol == b'?' || symbol == text.as_bytes()[at]);
        }
        reachable[0] = false;
    }
    reachable[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk";

    #[test]
    fn lines_of_openssh_are_read() {
        let text = format!(
            "# admins\n\nalice,bob {KEY} comment with words\n\"c d\" namespaces=\"file,mesh-*\" {KEY}\n\
             eve namespaces=\"git\" {KEY}\n\t{KEY}\n"
        );
        let allowed = parse(&text).unwrap();
        let principals: Vec<_> = allowed.iter().map(|a| a.principals.as_str()).collect();
        assert_eq!(principals, ["alice,bob", "c d", "*"]);
        assert!(allowed.iter().all(|a| a.signer == KEY.parse().unwrap()));
    }

    #[test]
    fn what_would_be_misread_is_an_error() {
        for bad in [
            "alice".to_owned(),
            "alice ssh-ed25519 AAAA".to_owned(),
            format!("alice cert-authority {KEY}"),
            format!("alice valid-before=\"20200101\" {KEY}"),
        ] {
            let error = parse(&format!("\n{bad}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{bad}");
        }
    }

    #[test]
    fn patterns_match_as_in_openssh() {
        for good in ["mesh-roster", "*", "mesh-*", "????-roster", "*-*", "m*r"] {
            assert!(matches(good, NAMESPACE), "{good}");
        }
        for bad in ["", "mesh", "mesh-?", "x*", "*x", "mesh-rosters"] {
            assert!(!matches(bad, NAMESPACE), "{bad}");
        }
    }
}
