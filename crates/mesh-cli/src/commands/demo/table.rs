//! The round trips between all pairs, as text.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// Round trips by source and destination; `None`: no answer.
pub(super) type Pings = BTreeMap<(String, String), Option<Duration>>;

/// A row a source, a column a destination, numbered as the rows are.
pub(super) fn round_trips(names: &[String], pings: &Pings) -> String {
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let mut text = format!("{:4}{:width$}", "", "");
    for number in 1..=names.len() {
        let _ = write!(text, "{number:>7}");
    }
    text.push('\n');
    for (number, from) in (1..).zip(names) {
        let _ = write!(text, "{number:>3} {from:width$}");
        for to in names {
            let cell = match pings.get(&(from.clone(), to.clone())) {
                None => String::new(),
                Some(None) => "lost".to_owned(),
                Some(Some(rtt)) => format!("{:.2}", rtt.as_secs_f64() * 1000.0),
            };
            let _ = write!(text, "{cell:>7}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_source_and_a_column_a_destination() {
        let names = ["argentum".to_owned(), "galena".to_owned()];
        let (a, b) = (names[0].clone(), names[1].clone());
        let pings = Pings::from([
            ((a.clone(), b.clone()), Some(Duration::from_micros(412))),
            ((b, a), None),
        ]);
        assert_eq!(
            round_trips(&names, &pings),
            "                  1      2\n  1 argentum          0.41\n  2 galena     lost       \n"
        );
    }
}
