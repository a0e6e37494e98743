//! The block's text. Pure.
//!
//! ```text
//! # BEGIN mesh 000102030405060708090a0b0c0d0e0f mesh
//! fdc3:582e:db61:0:f785:d658:d2e9:df7d cinnabar.mesh kanban.mesh
//! # END mesh 000102030405060708090a0b0c0d0e0f
//! ```
//!
//! After the network's id stands its domain. A last word `+newline` tells that the file had no line feed at
//! its end, and that the one before the block goes with it. Blocks that were cut off, doubled, or went
//! through an editor that ends lines with CR LF are found all the same.

use std::{fmt::Write as _, str};

use mesh_types::NetworkId;

use crate::resolver::Split;

const BEGIN: &str = "# BEGIN mesh ";
const END: &str = "# END mesh ";
const JOINED: &str = "+newline";

/// The longest line, in bytes without its end: musl reads no longer ones as a whole.
const LINE_BYTES_MAX: usize = 1000;

/// The lines between the marks, and the domain that they are of.
pub(super) struct Lines {
    domain: String,
    text: String,
}

/// A piece of a hosts file.
enum Piece<'a> {
    /// Somebody else's.
    Other(&'a [u8]),
    /// A block, or what is left of one.
    Block {
        /// Whether the line feed before it was added with it.
        joined: bool,
    },
}

/// What a line says of blocks.
enum Mark<'a> {
    Begin { domain: &'a str, joined: bool },
    End,
}

/// The lines for the names of `split`.
pub(super) fn lines(split: &Split) -> Lines {
    let mut text = String::new();
    for (address, names) in &split.names {
        let mut length = 0;
        for name in names {
            // An address may be in several lines; the first of its names is in the first of them.
            if length == 0 || length + 1 + name.len() > LINE_BYTES_MAX {
                let end = if length == 0 { "" } else { "\n" };
                let start = format!("{address}");
                let _ = write!(text, "{end}{start}");
                length = start.len();
            }
            let _ = write!(text, " {name}");
            length += 1 + name.len();
        }
        if length > 0 {
            text.push('\n');
        }
    }
    Lines {
        domain: split.domain.clone(),
        text,
    }
}

/// `text` with exactly one block of `network`: where the first one was, else at the end.
pub(super) fn with(text: &[u8], network: &NetworkId, lines: &Lines) -> Vec<u8> {
    let pieces = split_up(text, Some(network));
    let first = pieces.iter().find_map(|piece| match piece {
        Piece::Block { joined } => Some(*joined),
        Piece::Other(_) => None,
    });
    let ends_open = !text.is_empty() && !text.ends_with(b"\n");
    let joined = first.unwrap_or(ends_open);
    let flag = if joined {
        format!(" {JOINED}")
    } else {
        String::new()
    };
    let block = format!(
        "{BEGIN}{network} {}{flag}\n{}{END}{network}\n",
        lines.domain, lines.text
    );
    let mut out = Vec::with_capacity(text.len() + block.len() + 1);
    let mut written = false;
    for piece in pieces {
        match piece {
            Piece::Other(bytes) => out.extend_from_slice(bytes),
            Piece::Block { .. } if !written => {
                out.extend_from_slice(block.as_bytes());
                written = true;
            }
            Piece::Block { .. } => {}
        }
    }
    if !written {
        if ends_open {
            out.push(b'\n');
        }
        out.extend_from_slice(block.as_bytes());
    }
    out
}

/// `text` without any block of `network`, or of any network.
pub(super) fn without(text: &[u8], network: Option<&NetworkId>) -> Vec<u8> {
    let pieces = split_up(text, network);
    let mut out = Vec::with_capacity(text.len());
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Other(bytes) => out.extend_from_slice(bytes),
            // Only at the end: before lines that came later, the line feed is needed.
            Piece::Block { joined: true } if pieces.peek().is_none() => {
                if out.ends_with(b"\n") {
                    out.pop();
                }
            }
            Piece::Block { .. } => {}
        }
    }
    out
}

/// Cuts `text` into blocks of `network` (or of any) and the rest. Blocks next to each other are one piece.
fn split_up<'a>(text: &'a [u8], network: Option<&NetworkId>) -> Vec<Piece<'a>> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let marks: Vec<Option<Mark<'_>>> = lines.iter().map(|line| mark(line, network)).collect();
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let mut other = 0..0;
    let mut offset = 0;
    let mut index = 0;
    while index < lines.len() {
        let Some(found) = &marks[index] else {
            offset += lines[index].len();
            other.end = offset;
            index += 1;
            continue;
        };
        let (count, joined) = match found {
            // Its beginning is gone.
            Mark::End => (1, false),
            Mark::Begin { domain, joined } => {
                let after = &marks[index + 1..];
                let next = after.iter().position(Option::is_some);
                let whole = next.filter(|next| matches!(after[*next], Some(Mark::End)));
                let count = match whole {
                    Some(next) => next + 2,
                    None => 1 + torn(&lines[index + 1..], domain),
                };
                (count, *joined)
            }
        };
        if !other.is_empty() {
            pieces.push(Piece::Other(&text[other.clone()]));
        }
        match pieces.last_mut() {
            Some(Piece::Block { .. }) => {}
            Some(Piece::Other(_)) | None => pieces.push(Piece::Block { joined }),
        }
        offset += lines[index..index + count]
            .iter()
            .map(|line| line.len())
            .sum::<usize>();
        other = offset..offset;
        index += count;
    }
    if !other.is_empty() {
        pieces.push(Piece::Other(&text[other]));
    }
    pieces
}

/// How many of the lines after a beginning without an end are the block's: as long as each is an address with
/// names below the domain, and a last one that was cut off.
fn torn(lines: &[&[u8]], domain: &str) -> usize {
    let is_ours = |line: &&&[u8]| {
        let Ok(line) = str::from_utf8(line) else {
            return false;
        };
        if !line.ends_with('\n') {
            return true;
        }
        let mut words = line.split_ascii_whitespace();
        let address = words.next().unwrap_or_default();
        let is_below = |name: &str| {
            name.strip_suffix(domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        address.parse::<std::net::IpAddr>().is_ok() && words.all(is_below)
    };
    lines.iter().take_while(is_ours).count()
}

fn mark<'a>(line: &'a [u8], network: Option<&NetworkId>) -> Option<Mark<'a>> {
    let line = str::from_utf8(line).ok()?.trim_end();
    let is_meant = |id: &str| {
        let id: Option<NetworkId> = id.parse().ok();
        id.is_some_and(|id| network.is_none_or(|network| id == *network))
    };
    if let Some(id) = line.strip_prefix(END) {
        return is_meant(id).then_some(Mark::End);
    }
    let mut words = line.strip_prefix(BEGIN)?.split(' ');
    let (id, domain) = (words.next()?, words.next()?);
    is_meant(id).then(|| Mark::Begin {
        domain,
        joined: words.next() == Some(JOINED),
    })
}

#[cfg(test)]
mod tests;
