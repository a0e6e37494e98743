//! How long an upgrade holds packets up, and how many it loses, under 1 000 echoes a second each way: with the
//! supervisor, and in a booted systemd; to a program that does its work, and back from one that ends.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{anyhow, ensure};
use mesh_lab::{Fleet, fleet::DAEMON_PATIENCE, stream::Stream, wait_until};
use mesh_os::file::is_root;

use crate::samples::Samples;

const RATE: u32 = 1_000;
const ROUNDS: usize = 25;

/// Echoes that are answered before each upgrade.
const BEFORE: usize = 300;

/// What was lost, and how long the rest was held up.
#[derive(Default)]
struct Figures {
    sent: usize,
    lost: usize,
    most_lost: usize,
    held_up: Samples,
}

pub(crate) fn run(program: &Path) -> anyhow::Result<()> {
    with_supervisor(program)?;
    match is_root() {
        true => with_systemd(program),
        false => {
            println!("systemd: left out, booting a system needs root");
            Ok(())
        }
    }
}

fn with_supervisor(program: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::of(program, &["cinnabar", "galena"])?;
    let (installed, dir) = (fleet.dir().join("installed"), fleet.dir().join("supervise"));
    let good = fs::read(program)?;
    install(&installed, &good)?;
    fleet.start_controller()?;
    fleet.start_agent("cinnabar")?;
    fleet.supervise_agent("galena", &installed, &dir)?;
    fleet.wait_admitted(DAEMON_PATIENCE)?;
    fleet.ping_all(
        &["cinnabar".to_owned(), "galena".to_owned()],
        DAEMON_PATIENCE,
    )?;
    let previous = dir.join("previous");
    wait("no program to go back to is kept", || previous.exists())?;

    let mut kinds = [
        ("upgrade", "upgraded", 0, ROUNDS),
        ("back from one that ends at once", "went_back", 0, ROUNDS),
        ("back from one that ends after 1.2 s", "went_back", 1_200, 5),
    ]
    .map(|kind| (kind, Figures::default()));
    for ((name, outcome, pause_millis, rounds), figures) in &mut kinds {
        for round in 0..*rounds {
            let next = match *outcome {
                "upgraded" => [good.as_slice(), &round.to_be_bytes()].concat(),
                _ => ends_after(Duration::from_millis(*pause_millis)).into_bytes(),
            };
            let streams = [("galena", "cinnabar"), ("cinnabar", "galena")]
                .map(|(from, to)| Stream::start(fleet.namespace(from)?, fleet.address(to)?, RATE));
            let [there, back] = streams;
            let streams = [there?, back?];
            let answered = || streams.each_ref().map(Stream::answered);
            wait("nothing flows", || {
                answered().iter().all(|count| *count >= BEFORE)
            })?;
            install(&installed, &next)?;
            let dir = dir.to_string_lossy();
            let arguments = ["agent", "upgrade", "--json", "--dir", &*dir];
            let output = fleet.mesh("galena", &arguments)?;
            let words = String::from_utf8_lossy(&output.stdout);
            ensure!(words.contains(*outcome), "{words}");
            let [there, back] = answered();
            wait("nothing flows after", || {
                let now = answered();
                now[0] > there + BEFORE && now[1] > back + BEFORE
            })?;
            for stream in streams {
                let counted = stream.stop(DAEMON_PATIENCE);
                figures.add(counted.sent, counted.lost, counted.longest);
            }
        }
        println!("supervisor, {name}: {figures}");
    }
    fleet.stop()
}

fn with_systemd(program: &Path) -> anyhow::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let at = |file: &str| workspace.join(file).display().to_string();
    let stripped = std::env::temp_dir().join(format!("mesh-bench-{}", std::process::id()));
    let strip = Command::new("strip")
        .arg(program)
        .arg("-o")
        .arg(&stripped)
        .status()?;
    ensure!(strip.success(), "`strip` failed");
    let mut boot = Command::new("bash");
    boot.arg(at("tests/setup/boot-units.sh"));
    for (file, destination) in [
        (stripped.display().to_string(), "/usr/bin/mesh"),
        (at("tests/boot/common.sh"), "/boot-common.sh"),
        (at("tests/boot/stream.py"), "/boot-stream.py"),
        (
            at("systemd/mesh.sysusers.conf"),
            "/usr/lib/sysusers.d/mesh.conf",
        ),
        (
            at("systemd/mesh.tmpfiles.conf"),
            "/usr/lib/tmpfiles.d/mesh.conf",
        ),
    ] {
        boot.arg("-b").arg(format!("{file}={destination}"));
    }
    for unit in [
        "mesh-agent.service",
        "mesh-controller.service",
        "mesh-online.target",
    ] {
        boot.arg(at(&format!("systemd/{unit}")));
    }
    boot.arg("--").arg(at("tests/boot/upgrade-gap.sh"));
    let output = boot.env("BOOT_TIMEOUT", "900").output();
    fs::remove_file(&stripped)?;
    let output = output?;
    let words = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{words}");
    for (word, name) in [
        ("upgraded", "upgrade"),
        ("went_back", "back from one that ends at once"),
    ] {
        let mut figures = Figures::default();
        for line in words.lines().filter_map(|line| line.strip_prefix(word)) {
            let numbers: Result<Vec<usize>, _> = line.split_whitespace().map(str::parse).collect();
            let [sent, lost, millis] = numbers?[..] else {
                continue;
            };
            figures.add(sent, lost, Duration::from_millis(u64::try_from(millis)?));
        }
        println!("systemd, {name}: {figures}");
    }
    Ok(())
}

impl Figures {
    fn add(&mut self, sent: usize, lost: usize, held_up: Duration) {
        self.sent += sent;
        self.lost += lost;
        self.most_lost = self.most_lost.max(lost);
        self.held_up.push(held_up);
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            sent,
            lost,
            most_lost,
            held_up,
        } = self;
        write!(
            f,
            "{lost} of {sent} lost, at most {most_lost} at a time; held up {held_up}"
        )
    }
}

fn wait(in_vain: &'static str, so: impl Fn() -> bool) -> anyhow::Result<()> {
    wait_until(DAEMON_PATIENCE, || {
        so().then_some(()).ok_or_else(|| anyhow!(in_vain))
    })
}

/// A program that passes the self-check and ends.
fn ends_after(pause: Duration) -> String {
    format!(
        "#!/bin/sh\n[ \"$2\" = self-check ] && exit 0\nsleep {}\nexit 7\n",
        pause.as_secs_f64()
    )
}

/// Puts a program at `path` as a package does: the old one stays whole for who runs it.
fn install(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("beside");
    fs::write(&beside, bytes)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o755))?;
    Ok(fs::rename(&beside, path)?)
}
