//! Addresses in text, as people write them.

use std::{net::IpAddr, ops::Range};

/// An address that stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// The bytes of the address alone.
    pub(super) span: Range<usize>,
    /// An IPv4 address written as an IPv6 one is that IPv4 address.
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
        found.extend(standing(text, at..end).and_then(|run| literal(text, run)));
        at = end;
    }
    found
}

/// The part of a run of an address's characters that stands by itself: `0xfd`, `v1.2.3.4` and `face::book`
/// are words, `host:10.1.2.3` and `10.1.2.3:backup` are a word and an address.
fn standing(text: &str, run: Range<usize>) -> Option<Range<usize>> {
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let Range { mut start, mut end } = run;
    let bytes = text.as_bytes();
    let before = start.checked_sub(1).and_then(|before| bytes.get(before));
    if before.is_some_and(is_word) {
        start += text[start..end].find(':')? + 1;
        if text[start..end].starts_with(':') {
            return None;
        }
    }
    if bytes.get(end).is_some_and(is_word) {
        end = start + text[start..end].rfind(':')?;
        // The last part of an IPv6 address is none that could be cut off.
        text[start..end].contains('.').then_some(())?;
    }
    Some(start..end)
}

/// The address in a run of its characters; a sentence's full stop or colon may follow it, and ports may stand
/// on both sides of an IPv4 address.
fn literal(text: &str, run: Range<usize>) -> Option<Literal> {
    let word = &text[run.clone()];
    let trimmed = word.trim_end_matches('.');
    let without_colon = trimmed
        .strip_suffix(':')
        .filter(|rest| !rest.ends_with(':'));
    let parts = trimmed.split(':').filter(|part| part.contains('.'));
    let (written, address) = [Some(trimmed), without_colon]
        .into_iter()
        .flatten()
        .chain(parts)
        .find_map(|written| Some((written, written.parse::<IpAddr>().ok()?)))?;
    // All of them are slices of `word`.
    let start = run.start + (written.as_ptr().addr() - word.as_ptr().addr());
    let span = start..start + written.len();
    Some(Literal {
        prefix_len: prefix_len(text, &span, &address),
        span,
        address: address.to_canonical(),
    })
}

/// The length behind an address; in a URL, what follows is a path.
fn prefix_len(text: &str, span: &Range<usize>, address: &IpAddr) -> Option<u8> {
    let rest = text[span.end..].strip_prefix('/')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let goes_on = rest[digits..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = rest[..digits].parse().ok();
    length.filter(|length| *length <= most && !goes_on && !text[..span.start].ends_with("://"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        literals(text)
            .into_iter()
            .map(|literal| {
                let written: IpAddr = text[literal.span.clone()].parse().unwrap();
                assert_eq!(written.to_canonical(), literal.address);
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
            (
                "--add-host=foo:10.1.2.3 -L 8080:10.1.2.4:80 tcp:10.1.2.5:6640",
                vec!["10.1.2.3", "10.1.2.4", "10.1.2.5"],
            ),
            (
                "rsync root@10.1.2.3:backup tag:fd00::1",
                vec!["10.1.2.3", "fd00::1"],
            ),
            (
                "::ffff:10.1.2.3 ::ffff:a01:204",
                vec!["10.1.2.3", "10.1.2.4"],
            ),
            (
                "10.1.2.3/24hours http://10.1.2.3/24 10.1.2.3/33",
                vec!["10.1.2.3", "10.1.2.3", "10.1.2.3"],
            ),
            (
                "10.1.2.3.example.org 9.10.1.2.3 010.1.2.3 3.2.1.10.in-addr.arpa x1::2",
                vec![],
            ),
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
            prop_assert_eq!(found(&text), [address.to_canonical().to_string()]);
        }
    }
}
