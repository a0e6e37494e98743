//! A flame graph as SVG: each bar is a function, as wide as the share of samples that it was seen in, and above it are
//! those that it called. Its whole name and share show under the pointer.

use std::collections::BTreeMap;

use super::stacks::Stacks;
use crate::page::escaped;

const WIDTH: f64 = 1200.0;
const ROW_HEIGHT: f64 = 17.0;
const HEAD_HEIGHT: f64 = 26.0;
/// Narrower ones, with all that they call, cannot be seen.
const WIDTH_MIN: f64 = 1.5;
/// Of a letter, about.
const LETTER_WIDTH: f64 = 6.2;

/// A function as it was called from one place.
#[derive(Default)]
struct Call<'a> {
    count: u64,
    calls: BTreeMap<&'a str, Call<'a>>,
}

pub(super) fn draw(title: &str, stacks: &Stacks) -> String {
    let mut root = Call::default();
    for (stack, count) in stacks.iter() {
        let mut call = &mut root;
        call.count += count;
        for function in stack {
            call = call.calls.entry(function).or_default();
            call.count += count;
        }
    }
    let scale = WIDTH / root.count.max(1) as f64;
    let rows = root.rows(scale);
    let height = HEAD_HEIGHT + ROW_HEIGHT * rows as f64;
    let mut body = String::new();
    root.draw(0.0, height, scale, &mut body);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"monospace\" font-size=\"10\">\n<title>{title}</title>\n\
         <style>text{{fill:#111;pointer-events:none}}rect{{stroke:#fff;stroke-width:.5}}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"4\" y=\"16\" font-size=\"13\">{title}</text>\n{body}</svg>\n"
    )
}

impl Call<'_> {
    /// How many of those that are wide enough to be seen lie above one another.
    fn rows(&self, scale: f64) -> usize {
        let seen = self.calls.values().filter(|call| call.is_seen(scale));
        seen.map(|call| 1 + call.rows(scale)).max().unwrap_or(0)
    }

    fn is_seen(&self, scale: f64) -> bool {
        self.count as f64 * scale >= WIDTH_MIN
    }

    /// Draws what it calls, side by side from `x` on, the bottom at `y`.
    fn draw(&self, mut x: f64, y: f64, scale: f64, body: &mut String) {
        for (function, call) in &self.calls {
            let width = call.count as f64 * scale;
            if call.is_seen(scale) {
                let top = y - ROW_HEIGHT;
                let percent = 100.0 * width / WIDTH;
                let letters = (width / LETTER_WIDTH) as usize;
                let shown: String = match function.chars().count() <= letters {
                    true => (*function).to_owned(),
                    false => function
                        .chars()
                        .take(letters.saturating_sub(1))
                        .chain(['…'])
                        .collect(),
                };
                let shown = if letters < 4 {
                    String::new()
                } else {
                    escaped(&shown)
                };
                *body += &format!(
                    "<g><title>{} {percent:.1} %</title><rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                     height=\"{ROW_HEIGHT}\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{shown}</text></g>\n",
                    escaped(function),
                    colour(function),
                    x + 2.0,
                    top + 12.0,
                );
                call.draw(x, top, scale, body);
            }
            x += width;
        }
    }
}

/// The agent's functions and libraries blue, the kernel's and C's orange.
fn colour(function: &str) -> &'static str {
    match function.contains("::") {
        true => "#9cc4f2",
        false => "#f6c58f",
    }
}
