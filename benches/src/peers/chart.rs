//! Horizontal bars as SVG, readable on light and on dark.

use crate::{
    page::escaped,
    samples::{median, spread},
};

const WIDTH: f64 = 760.0;
const NAMES_WIDTH: f64 = 190.0;
/// Of the longest bar; what is right of it is for its figure.
const BARS_WIDTH: f64 = 440.0;
const BAR_HEIGHT: f64 = 16.0;
const GROUP_GAP: f64 = 10.0;
const HEAD_HEIGHT: f64 = 34.0;
const COLOURS: [&str; 2] = ["#2f7de1", "#e58a1f"];

/// The bars of one name.
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    pub(super) bars: Vec<Bar>,
}

/// A value, and the least and the most that it is the median of.
pub(super) struct Bar {
    value: f64,
    spread: Option<(f64, f64)>,
}

impl Bar {
    pub(super) const fn of(value: f64) -> Self {
        Self {
            value,
            spread: None,
        }
    }

    pub(super) fn of_rounds(values: &[f64]) -> Self {
        Self {
            value: median(values),
            spread: Some(spread(values)),
        }
    }

    /// The end of all that is drawn of it.
    fn end(&self) -> f64 {
        self.spread.map_or(self.value, |(_, most)| most)
    }
}

/// A picture of all groups; a bar's place in its group has the name in `legend`.
pub(super) fn draw(title: &str, legend: &[String], groups: &[Group<'_>]) -> String {
    let bars = groups.iter().flat_map(|group| &group.bars);
    let most = bars.map(Bar::end).fold(f64::MIN_POSITIVE, f64::max);
    let scale = BARS_WIDTH / most;
    let mut y = HEAD_HEIGHT;
    let mut body = String::new();
    for group in groups {
        let middle = y + height(group) / 2.0 + 4.0;
        body += &text(NAMES_WIDTH - 8.0, middle, "end", group.name);
        for (bar, colour) in group.bars.iter().zip(COLOURS) {
            body += &format!(
                "<rect x=\"{NAMES_WIDTH}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n",
                y + 1.0,
                bar.value * scale,
                BAR_HEIGHT - 2.0,
            );
            if let Some((least, most)) = bar.spread {
                let at = |value: f64| NAMES_WIDTH + value * scale;
                body += &format!(
                    "<path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"currentColor\" stroke-width=\"1.5\"/>\n",
                    at(least),
                    at(most),
                    middle = y + BAR_HEIGHT / 2.0,
                );
            }
            let figure_x = NAMES_WIDTH + bar.end() * scale + 6.0;
            body += &text(figure_x, y + BAR_HEIGHT - 4.0, "start", &figure(bar.value));
            y += BAR_HEIGHT;
        }
        y += GROUP_GAP;
    }
    let mut head = text(0.0, 16.0, "start", title);
    for (i, (name, colour)) in (0..).zip(legend.iter().zip(COLOURS)) {
        let x = WIDTH - 200.0 + 100.0 * f64::from(i);
        head +=
            &format!("<rect x=\"{x}\" y=\"7\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n");
        head += &text(x + 14.0, 16.0, "start", name);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{title}</title>\n\
         <style>:root{{color:#222}}@media(prefers-color-scheme:dark){{:root{{color:#ddd}}}}text{{fill:currentColor}}</style>\n\
         {head}{body}</svg>\n"
    )
}

fn height(group: &Group<'_>) -> f64 {
    group.bars.iter().map(|_| BAR_HEIGHT).sum()
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>\n")
}

/// With as many digits as the eye wants.
fn figure(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width_and_names_are_no_markup() {
        let group = |name, value| Group {
            name,
            bars: vec![Bar::of(value)],
        };
        let svg = draw("t", &[], &[group("a<b", 120.0), group("c", 60.0)]);
        assert!(svg.contains("width=\"440.0\"") && svg.contains("width=\"220.0\""));
        assert!(svg.contains("a&lt;b") && svg.contains(">120<") && svg.contains(">60.0<"));
    }
}
