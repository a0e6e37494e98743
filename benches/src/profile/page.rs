//! The profiles as a page: what a gigabyte costs by what is done, and the flame graphs.

use std::path::Path;

use super::{Profile, Side, flame, kinds};
use crate::page::{Page, machine};

/// Writes the page, and its flame graphs into a folder of the same name.
pub(super) fn write(path: &Path, profiles: &[Profile]) -> anyhow::Result<()> {
    let page = Page::new(path)?;
    let mut pictures = String::new();
    for profile in profiles {
        for side in &profile.sides {
            let name = format!("{}-{}", profile.cipher.short, side.direction);
            let title = title(profile, side);
            pictures += &page.picture(&name, &title, &flame::draw(&title, &side.stacks))?;
        }
    }
    let text = format!(
        "# Where the processor's time goes\n\n\
         Written by `cargo xtask bench profile`; do not edit it by hand. What it says is told in\n\
         [performance.md](performance.md).\n\n\
         One TCP connection between two machines of a lab, through the mesh: milliseconds of each agent's processor time for\n\
         a gigabyte, by what the innermost function does that says so (`benches/src/profile/kinds.rs`). The kernel's work for\n\
         an agent is the agent's here. Shares are those of samples (`perf record -e cpu-clock`), times those of a run without\n\
         them.\n\n\
         {}\n{}\n\
         In the flame graphs each bar is a function, as wide as its share; above it are those that it called. Blue is the\n\
         agent with its libraries, orange the kernel and the cipher's assembly.\n\n{pictures}",
        machine()?,
        table(profiles),
    );
    page.write(&text)
}

fn title(profile: &Profile, side: &Side) -> String {
    format!("{}, {}", profile.cipher.name, side.direction)
}

fn table(profiles: &[Profile]) -> String {
    let sides: Vec<_> = profiles
        .iter()
        .flat_map(|profile| profile.sides.iter().map(move |side| (profile, side)))
        .collect();
    let row = |name: &str, cells: Vec<String>| format!("| {name} | {} |\n", cells.join(" | "));
    let cells = |cell: &dyn Fn(&Profile, &Side) -> String| {
        sides
            .iter()
            .map(|(profile, side)| cell(profile, side))
            .collect::<Vec<_>>()
    };
    let mut table = row("ms for a GB", cells(&title));
    table += &format!("|---|{}\n", "---:|".repeat(sides.len()));
    for (kind, name) in kinds::names().enumerate() {
        table += &row(
            name,
            cells(&|_, side| {
                let of_kind = side
                    .stacks
                    .iter()
                    .filter(|(stack, _)| kinds::of(stack) == kind);
                let count: u64 = of_kind.map(|(_, count)| count).sum();
                let share = count as f64 / side.stacks.count().max(1) as f64;
                format!("{:.0} ({:.0} %)", 1000.0 * side.cpu * share, 100.0 * share)
            }),
        );
    }
    table += &row("all", cells(&|_, side| format!("{:.0}", 1000.0 * side.cpu)));
    table += &row("samples", cells(&|_, side| side.stacks.count().to_string()));
    table += &row(
        "Gbit/s",
        cells(&|profile, _| format!("{:.1}", profile.gigabits)),
    );
    table
}
