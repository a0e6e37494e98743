//! Pages of the documentation whose commands a test runs.

/// A fenced block of a page.
#[derive(Clone, Debug)]
pub struct Block {
    /// What stands behind the opening fence, such as `sh cinnabar`.
    pub label: String,
    /// The lines between the fences.
    pub text: String,
}

/// The page's fenced blocks, in order.
///
/// # Panics
///
/// If a fence is not closed.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(label)) => {
                open = Some(Block {
                    label: label.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// Whether `printed` has the lines that a page shows, one after the other; empty lines do not count. A page
/// writes `…` for what differs each time, and ends a question with `]`, behind which the answer stands.
#[must_use]
pub fn shows(page: &str, printed: &str) -> bool {
    let wanted: Vec<_> = filled(page).collect();
    let printed: Vec<_> = filled(printed).collect();
    !wanted.is_empty()
        && printed.windows(wanted.len()).any(|window| {
            window
                .iter()
                .zip(&wanted)
                .all(|(line, wanted)| fits(wanted, line))
        })
}

fn filled(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
}

fn fits(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut is_open = wanted.ends_with(']');
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        is_open = part.is_empty();
    }
    is_open || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_shows_is_found_in_what_was_printed() {
        let printed = "y\nto do:\n\n  + a   x\ngo on? [y/N] + a\nprocess 12, release 1\n";
        assert!(shows("to do:\n  + a   x\n\ngo on? [y/N]\n", printed));
        assert!(shows("process …, release 1\n", printed));
        assert!(shows("process …\n", printed));
        for other in [
            "",
            "to do:\ngo on? [y/N]\n",
            "  + a\n",
            "process …, release 2\n",
        ] {
            assert!(!shows(other, printed), "{other}");
        }
    }
}
