//! Numbers and tables as people read them.

use std::net::SocketAddr;

use mesh_api::PathKind;
use mesh_types::MachineName;

/// An age in its largest whole unit: `12 s`, `9 min`, `3 h`, `4 d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400.. => format!("{} d", seconds / 86_400),
    }
}

/// A round trip: `0.042 ms`, `7.3 ms`, `120 ms`.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("0.{micros:03} ms"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        100_000.. => format!("{} ms", micros / 1_000),
    }
}

/// A number of bytes in binary units: `512 B`, `1.5 KiB`, `20 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, so that there is no rounding up to 1024 of it.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        100.. => format!("{} {}", tenths / 10, UNITS[unit]),
    }
}

/// A path with its endpoint or moon: `direct 192.0.2.7:4193`, `relayed by cinnabar`; `tried 192.0.2.7:4193` where there is none yet, or
/// `-`.
pub(crate) fn path(
    path: Option<PathKind>,
    endpoint: Option<SocketAddr>,
    relay: Option<&MachineName>,
) -> String {
    if let Some(moon) = relay {
        return format!("relayed by {moon}");
    }
    let kind = match path {
        None => {
            return endpoint.map_or_else(|| "-".to_owned(), |tried| format!("tried {tried}"));
        }
        Some(PathKind::Direct) => "direct",
        Some(PathKind::Relayed) => "relayed",
    };
    match endpoint {
        Some(endpoint) => format!("{kind} {endpoint}"),
        None => kind.to_owned(),
    }
}

/// An ASCII table: columns as wide as their widest cell, two spaces apart, none behind the last.
pub(crate) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            lines
                .iter()
                .map(|cells| cells[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for cells in lines {
        let padded: Vec<_> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let ages = [0, 59, 60, 3_599, 3_600, 86_399, 86_400].map(age);
        assert_eq!(
            ages,
            ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d"]
        );
    }

    #[test]
    fn round_trips_are_in_milliseconds() {
        let times = [0, 42, 999, 1_000, 7_349, 99_999, 120_400].map(micros);
        assert_eq!(
            times,
            [
                "0.000 ms", "0.042 ms", "0.999 ms", "1.0 ms", "7.3 ms", "99.9 ms", "120 ms"
            ]
        );
    }

    #[test]
    fn bytes_have_at_most_four_digits() {
        let sizes = [
            0,
            1_023,
            1_024,
            1_536,
            10_239,
            10_240,
            1_048_575,
            1_048_576,
            u64::MAX,
        ]
        .map(bytes);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "9.9 KiB",
                "10 KiB",
                "1023 KiB",
                "1.0 MiB",
                "16383 PiB"
            ]
        );
    }

    #[test]
    fn a_table_has_no_trailing_spaces() {
        let rows = [vec!["long name".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows), "A          B\nlong name  x\n");
    }
}
