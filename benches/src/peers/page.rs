//! The figures as a page: a table, and a chart for each thing that is measured.

use std::path::Path;

use super::{
    SECONDS, SMALL_BYTES, STREAMS, Tcp, Tunnel,
    chart::{self, Bar, Group},
};
use crate::{
    page::{Page, machine},
    samples::{Samples, median, spread},
};

/// Writes the page, and its charts into a folder of the same name.
pub(super) fn write(path: &Path, tunnels: &[Tunnel], rounds: usize) -> anyhow::Result<()> {
    let page = Page::new(path)?;
    let [one, four] = STREAMS;
    let legend = [format!("{one} stream"), format!("{four} streams")];
    let tcp = |figure: fn(&Tcp) -> Bar| {
        groups(tunnels, |tunnel| {
            tunnel.figures.tcp.iter().map(figure).collect()
        })
    };
    let charts = [
        (
            "throughput",
            "TCP, Mbit/s",
            &legend[..],
            tcp(|tcp| Bar::of_rounds(&tcp.megabits)),
        ),
        (
            "cpu",
            "Processor time of the daemons, s/GB",
            &legend,
            tcp(|tcp| Bar::of_rounds(&tcp.cpu)),
        ),
        (
            "ping",
            "Median round trip of a ping meanwhile, ms",
            &legend,
            tcp(|tcp| Bar::of(millis(&tcp.round_trips, 50))),
        ),
        (
            "small-packets",
            "Packets of 64 bytes that arrive in a second",
            &[],
            groups(tunnels, |tunnel| {
                vec![Bar::of_rounds(&tunnel.figures.small_packets)]
            }),
        ),
        (
            "memory",
            "Memory of the daemons after all this, MB",
            &[],
            groups(tunnels, |tunnel| vec![Bar::of(tunnel.figures.resident)]),
        ),
    ];
    let mut pictures = String::new();
    for (name, title, legend, groups) in charts {
        pictures += &page.picture(name, title, &chart::draw(title, legend, &groups))?;
    }
    let text = format!(
        "# Beside other overlays\n\n\
         Written by `cargo xtask bench peers --rounds {rounds}`; do not edit it by hand. What the figures say is in\n\
         [performance.md](performance.md).\n\n\
         Two network namespaces, joined by virtual cables of 1500 bytes; each overlay joins the same two, at its own\n\
         defaults. One after the other carries TCP (iperf3, {SECONDS} s) while a ping goes every 10 ms, and then packets of\n\
         {SMALL_BYTES} bytes as fast as one program sends them, {rounds} rounds in turns: medians, and in brackets the least and\n\
         the most of the rounds. The daemons (both, and the moon's where there is one),\n\
         both ends of iperf3 and the kernel share the processor.\n\n\
         {}\n{}\n{pictures}",
        machine()?,
        table(tunnels),
    );
    page.write(&text)
}

/// The table.
pub(super) fn table(tunnels: &[Tunnel]) -> String {
    let mut table = String::from(
        "| | streams | TCP, Mbit/s | daemons, CPU s/GB | ping p50 / p99, ms | 64-byte packets/s | memory of the daemons, MB (their own) |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for Tunnel { name, figures, .. } in tunnels {
        for (i, (streams, tcp)) in STREAMS.iter().zip(&figures.tcp).enumerate() {
            let [name, packets, memory] = match i {
                0 => [
                    name.clone(),
                    with_spread(&figures.small_packets, 0),
                    format!("{:.1} ({:.1})", figures.resident, figures.own),
                ],
                _ => Default::default(),
            };
            table += &format!(
                "| {name} | {streams} | {} | {} | {:.2} / {:.2} | {packets} | {memory} |\n",
                with_spread(&tcp.megabits, 0),
                with_spread(&tcp.cpu, 2),
                millis(&tcp.round_trips, 50),
                millis(&tcp.round_trips, 99),
            );
        }
    }
    table
}

fn with_spread(values: &[f64], digits: usize) -> String {
    let (least, most) = spread(values);
    format!(
        "{:.digits$} ({least:.digits$}–{most:.digits$})",
        median(values)
    )
}

fn millis(samples: &Samples, percent: usize) -> f64 {
    samples.percentile(percent).as_secs_f64() * 1000.0
}

fn groups(tunnels: &[Tunnel], bars: impl Fn(&Tunnel) -> Vec<Bar>) -> Vec<Group<'_>> {
    let groups = tunnels.iter().map(|tunnel| Group {
        name: &tunnel.name,
        bars: bars(tunnel),
    });
    groups.collect()
}
