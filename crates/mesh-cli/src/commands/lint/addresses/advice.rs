//! What to write in place of an address, going by what stands around it.

use std::ops::Range;

use super::literals::Literal;

/// How much of a line around an address is looked at, in bytes on each side.
const CONTEXT_BYTES: usize = 512;

/// What to do about a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// What to write, and in place of which bytes.
    pub(super) replacement: String,
    pub(super) span: Range<usize>,
    /// Whether a name does the same there without anyone thinking about it.
    pub(super) is_plain: bool,
}

/// Advice on an address of the machine that answers to `host` (its name with the domain).
///
/// Plain are the places where an address is only ever connected to: URLs, `user@`, `HostName` of an
/// OpenSSH configuration. Where something listens or a filter compares, a name would not do.
pub(super) fn for_machine(
    text: &str,
    literal: &Literal,
    machine: &str,
    host: &str,
    is_nix: bool,
) -> Advice {
    let line = line_around(text, literal.span.start);
    let before = &text[line.start..literal.span.start];
    let after = &text[literal.span.end..line.end];
    let bracketed = before.ends_with('[') && after.starts_with(']');
    let span = match bracketed {
        true => literal.span.start - 1..literal.span.end + 1,
        false => literal.span.clone(),
    };
    let (before, after) = (&text[line.start..span.start], &text[span.end..line.end]);
    let connects = before.ends_with("://") || is_user(before) || is_hostname(before);
    // An interface's name behind it belongs to an address alone.
    let is_whole = literal.prefix_len.is_none() && !after.starts_with('%');
    if connects && is_whole && !listens(before) {
        return Advice {
            replacement: host.to_owned(),
            span,
            is_plain: true,
        };
    }
    let span = literal.span.clone();
    let quoted = before.ends_with('"') && after.starts_with('"');
    let replacement = match (is_nix, quoted) {
        (true, true) if literal.prefix_len.is_none() => {
            let whole = span.start - 1..span.end + 1;
            return Advice {
                replacement: address_for(machine),
                span: whole,
                is_plain: false,
            };
        }
        (true, _) => format!("${{{}}}", address_for(machine)),
        (false, _) => host.to_owned(),
    };
    Advice {
        replacement,
        span,
        is_plain: false,
    }
}

/// Advice on a literal of a whole prefix.
pub(super) fn for_prefix(literal: &Literal, is_nix: bool) -> Option<Advice> {
    is_nix.then(|| Advice {
        replacement: "${mesh.prefixFor networkId}".to_owned(),
        span: literal.span.clone(),
        is_plain: false,
    })
}

fn address_for(machine: &str) -> String {
    format!("mesh.addressFor networkId \"{machine}\"")
}

/// Whether what follows is `HostName`'s argument (ssh_config(5)).
fn is_hostname(before: &str) -> bool {
    let trimmed = before.trim_start();
    let key = trimmed.trim_end_matches([' ', '\t', '=']);
    key.len() < trimmed.len() && key.eq_ignore_ascii_case("hostname")
}

/// Whether what ends here is `user@`. An `@` alone is another thing, such as the server that `dig` asks.
fn is_user(before: &str) -> bool {
    let user = before.strip_suffix('@').unwrap_or_default();
    user.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '}'))
}

fn listens(before: &str) -> bool {
    // What stands before on the line may be another setting.
    let own = before.rsplit([';', '{']).next().unwrap_or_default();
    let before = own.to_ascii_lowercase();
    ["listen", "bind", "allow", "deny", "local_addr", "source"]
        .iter()
        .any(|word| before.contains(word))
}

/// The line, as far as it matters: a file without line feeds is not looked through for each of its addresses.
fn line_around(text: &str, at: usize) -> Range<usize> {
    let first = text.floor_char_boundary(at.saturating_sub(CONTEXT_BYTES));
    let last = text.ceil_char_boundary(text.len().min(at + CONTEXT_BYTES));
    let start = text[first..at]
        .rfind('\n')
        .map_or(first, |newline| first + newline + 1);
    let end = text[at..last]
        .find('\n')
        .map_or(last, |newline| at + newline);
    start..end
}

#[cfg(test)]
mod tests {
    use super::{super::literals::literals, *};

    fn advised(text: &str, is_nix: bool) -> (String, bool) {
        let literal = literals(text).remove(0);
        let advice = for_machine(text, &literal, "cinnabar", "cinnabar.zt", is_nix);
        let mut replaced = text.to_owned();
        replaced.replace_range(advice.span, &advice.replacement);
        (replaced, advice.is_plain)
    }

    #[test]
    fn where_something_connects_a_name_is_plain() {
        for (text, expected) in [
            (
                "url: http://[fd00::1]:8080/x",
                "url: http://cinnabar.zt:8080/x",
            ),
            ("root@fd00::1", "root@cinnabar.zt"),
            (
                "targetHost = \"root@[fd00::1]\";",
                "targetHost = \"root@cinnabar.zt\";",
            ),
            (
                "Host c\n  HostName fd00::1\n",
                "Host c\n  HostName cinnabar.zt\n",
            ),
            (
                "listen = true; url = \"http://[fd00::1]\";",
                "listen = true; url = \"http://cinnabar.zt\";",
            ),
            ("scp x root@[fd00::1]:/tmp", "scp x root@cinnabar.zt:/tmp"),
        ] {
            assert_eq!(
                advised(text, text.contains(';')),
                (expected.to_owned(), true),
                "{text}"
            );
        }
    }

    #[test]
    fn where_something_listens_or_filters_the_proposal_is_not_plain() {
        for (text, nix, expected) in [
            (
                "listen = \"fd00::1\";",
                true,
                "listen = mesh.addressFor networkId \"cinnabar\";",
            ),
            (
                "rule = \"ip6 saddr fd00::1 accept\";",
                true,
                "rule = \"ip6 saddr ${mesh.addressFor networkId \"cinnabar\"} accept\";",
            ),
            (
                "listen http://[fd00::1]:80",
                false,
                "listen http://[cinnabar.zt]:80",
            ),
            ("fd00::1 cinnabar", false, "cinnabar.zt cinnabar"),
            ("dig @fd00::1 x", false, "dig @cinnabar.zt x"),
            ("root@fd00::1%mesh0", false, "root@cinnabar.zt%mesh0"),
        ] {
            assert_eq!(advised(text, nix), (expected.to_owned(), false), "{text}");
        }
    }
}
