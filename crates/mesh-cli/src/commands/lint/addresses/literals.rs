//! Addresses in text, as people write them.

use std::{net::IpAddr, ops::Range};

/// An address that stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// The bytes of the address alone.
    pub(super) span: Range<usize>,
    pub(super) address: IpAddr,
    /// The length that follows, if it is written as a prefix: `/48`.
    pub(super) prefix_len: Option<u8>,
}

/// The addresses in `text`, in order.
pub(super) fn literals(text: &str) -> Vec<Literal> {
    let bytes = text.as_bytes();
    let part = |b: u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !part(bytes[at]) {
            at += 1;
            continue;
        }
        let run = bytes[at..].iter().take_while(|b| part(**b)).count();
        let end = at + run;
        // `0xfd`, `face::book` and other words are none.
        let inside_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let before = at
            .checked_sub(1)
            .is_some_and(|before| inside_word(bytes[before]));
        let after = bytes.get(end).copied().is_some_and(inside_word);
        if !before
            && !after
            && let Some(literal) = literal(text, at..end)
        {
            found.push(literal);
        }
        at = end;
    }
    found
}

/// The address in a run of its characters; a sentence's full stop or colon may follow it, and an IPv4 address
/// may be followed by a port.
fn literal(text: &str, run: Range<usize>) -> Option<Literal> {
    let word = &text[run.clone()];
    let trimmed = word.trim_end_matches('.');
    let without_colon = trimmed
        .strip_suffix(':')
        .filter(|rest| !rest.ends_with(':'));
    let host = trimmed
        .split_once(':')
        .map(|(host, _)| host)
        .filter(|host| host.contains('.'));
    let (written, address) = [Some(trimmed), without_colon, host]
        .into_iter()
        .flatten()
        .find_map(|written| Some((written, written.parse::<IpAddr>().ok()?)))?;
    let end = run.start + written.len();
    let prefix_len = text[end..].strip_prefix('/').and_then(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest[..digits].parse().ok()
    });
    Some(Literal {
        span: run.start..end,
        address,
        prefix_len,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        literals(text)
            .into_iter()
            .map(|literal| {
                assert_eq!(
                    text[literal.span.clone()].parse::<IpAddr>().unwrap(),
                    literal.address
                );
                match literal.prefix_len {
                    Some(length) => format!("{}/{length}", literal.address),
                    None => literal.address.to_string(),
                }
            })
            .collect()
    }

    #[test]
    fn addresses_are_found_however_they_are_written() {
        for (text, expected) in [
            ("host = \"fd00::1\";", vec!["fd00::1"]),
            ("http://[FD00:0:0::1]:80/x", vec!["fd00::1"]),
            ("see fd00::1. And fd00::2: it", vec!["fd00::1", "fd00::2"]),
            (
                "root@10.1.2.3:22 and 10.1.2.0/24",
                vec!["10.1.2.3", "10.1.2.0/24"],
            ),
            ("fd00::/48,fd00:1::", vec!["fd00::/48", "fd00:1::"]),
            ("std::face::x 1.2.3 12:34:56 0xfd00::1g v1.2.3.4", vec![]),
            ("a::b and aa:bb:cc:dd:ee:ff", vec!["a::b"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            literals(&text);
        }

        #[test]
        fn every_address_between_other_signs_is_found(address: u128, before in "[\"'\\[( =@]", after in "[\"'\\]) ,;]") {
            let address = IpAddr::from(std::net::Ipv6Addr::from(address));
            let text = format!("x{before}{address}{after}y");
            prop_assert_eq!(found(&text), [address.to_string()]);
        }
    }
}
