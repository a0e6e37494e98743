//! The demo itself, on Linux.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_lab::{Fleet, fleet::CleanUp, sandbox};
use tokio::signal::unix::{SignalKind, signal};

use super::{progress::Progress, table};
use crate::{
    failure::{Exit, Failure},
    output,
};

/// Whose status is shown.
const SHOWN: &str = "galena";

/// Who is removed and put back.
const REMOVED: &str = "rosegold";

/// How long a step may take; each takes a second or so.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a lost ping is waited for where none is expected to come back.
const SHORT: Duration = Duration::from_millis(100);

pub(super) fn run(keep: bool) -> Result<Exit, Failure> {
    sandbox::enter().map_err(|error| {
        Failure::new(Exit::Refused, error).hint(
            "run it as root, or allow user namespaces (`sysctl kernel.unprivileged_userns_clone=1`) and let this user open `/dev/net/tun` (`modprobe tun`, `chmod 666 /dev/net/tun`)",
        )
    })?;
    let clean_up = Arc::new(OnceLock::new());
    clean_up_on_signals(clean_up.clone(), keep)?;
    show(keep, &clean_up)?;
    Ok(Exit::Done)
}

fn show(keep: bool, clean_up: &OnceLock<CleanUp>) -> anyhow::Result<()> {
    let start = Instant::now();
    let progress = Progress::new();
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    output::error("A mesh on this machine: one controller, nine agents, ten processes.\n");
    let mut fleet = progress.step("making namespaces, links and keys", || {
        let fleet = Fleet::reference(&program)?;
        let _ = clean_up.set(fleet.clean_up());
        Ok(fleet)
    })?;
    progress.step("starting the controller and the agents", || {
        fleet.start()?;
        fleet.wait_admitted(PATIENCE)
    })?;
    let names = fleet.names();
    progress.step("opening sessions between all pairs", || {
        every_pair_answers(&fleet.ping_all(&names, PATIENCE)?)
    })?;
    show_status(&fleet)?;
    show_round_trips(&progress, &fleet, &names)?;
    let entry = fleet.inventory()["machines"][REMOVED].clone();
    remove(&progress, &mut fleet, &names)?;
    put_back(&progress, &mut fleet, &names, entry)?;
    if keep {
        output::answer(&how_to_look_around(&mut fleet)?)?;
        wait_for_signal();
    }
    progress.step("cleaning up", || fleet.stop())?;
    drop(fleet);
    let seconds = start.elapsed().as_secs_f64();
    output::error(&format!(
        "Done in {seconds:.1} s; nothing is left behind.\n"
    ));
    Ok(())
}

fn show_status(fleet: &Fleet) -> anyhow::Result<()> {
    let socket = fleet.files(SHOWN)?.agent_socket();
    let socket = socket.to_str().context("a path that is no text")?;
    let output = fleet.mesh(SHOWN, &["status", "--socket", socket])?;
    anyhow::ensure!(
        output.status.success(),
        "`mesh status` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.trim_end();
    output::answer(&format!("\nmesh status, on {SHOWN}:\n\n{text}\n\n"))
}

fn show_round_trips(progress: &Progress, fleet: &Fleet, names: &[String]) -> anyhow::Result<()> {
    let pings = progress.step("pinging between all pairs", || {
        let pings = fleet.ping_all(names, PATIENCE)?;
        every_pair_answers(&pings)?;
        Ok(pings)
    })?;
    let text = table::round_trips(names, &pings);
    output::answer(&format!(
        "\nround trips through the mesh, in ms:\n\n{text}\n"
    ))
}

fn remove(progress: &Progress, fleet: &mut Fleet, names: &[String]) -> anyhow::Result<()> {
    let what = format!("removing {REMOVED} from the inventory");
    let others: Vec<_> = names.iter().filter(|name| *name != REMOVED).collect();
    let removed = Instant::now();
    let (took, reason) = progress.step(&what, || {
        fleet.edit_inventory(|inventory| {
            if let Some(machines) = inventory["machines"].as_object_mut() {
                machines.remove(REMOVED);
            }
        })?;
        for name in &others {
            fleet.wait_status(name, PATIENCE, "lost the removed machine", |status| {
                status
                    .peers
                    .iter()
                    .all(|peer| peer.name.as_str() != REMOVED)
            })?;
        }
        let took = removed.elapsed();
        for name in &others {
            let answer = fleet.ping_once(REMOVED, name, SHORT)?;
            anyhow::ensure!(answer.is_none(), "{REMOVED} still reaches {name}");
        }
        let status = fleet.wait_status(REMOVED, PATIENCE, "was told", |s| !s.node.admitted)?;
        Ok((took, status.node.reason.unwrap_or_default()))
    })?;
    let count = others.len();
    output::answer(&format!(
        "{REMOVED} was cut off by all {count} others within {:.1} s; it says why: {reason}\n",
        took.as_secs_f64()
    ))
}

fn put_back(
    progress: &Progress,
    fleet: &mut Fleet,
    names: &[String],
    entry: serde_json::Value,
) -> anyhow::Result<()> {
    progress.step(&format!("putting {REMOVED} back"), || {
        fleet.edit_inventory(|inventory| inventory["machines"][REMOVED] = entry)?;
        for name in names.iter().filter(|name| *name != REMOVED) {
            let answer = fleet.ping(REMOVED, name, PATIENCE)?;
            anyhow::ensure!(answer.is_some(), "{REMOVED} does not reach {name} again");
        }
        Ok(())
    })?;
    output::answer(&format!("{REMOVED} reaches everyone again\n"))
}

fn every_pair_answers(pings: &table::Pings) -> anyhow::Result<()> {
    for ((from, to), rtt) in pings {
        anyhow::ensure!(
            rtt.is_some(),
            "no answer from {to} to {from} within {PATIENCE:?}"
        );
    }
    Ok(())
}

fn how_to_look_around(fleet: &mut Fleet) -> anyhow::Result<String> {
    let socket = fleet.files(SHOWN)?.agent_socket().display().to_string();
    let log = fleet.files(SHOWN)?.log_path("agent").display().to_string();
    let controller = fleet.files(fleet.controller_name())?.controller_socket();
    let mesh = fleet.program().display().to_string();
    let inventory = fleet.inventory_path().display().to_string();
    let address = fleet.address("magnetite")?;
    let pid = fleet.agent_process(SHOWN)?.id();
    let enter = if sandbox::is_user_namespace() {
        format!("nsenter --target {pid} --user --net --preserve-credentials")
    } else {
        format!("nsenter --target {pid} --net")
    };
    Ok(format!(
        "\nThe mesh goes on until Ctrl-C. To look around from another terminal:\n\n\
         \x20 {mesh} status --socket {socket}\n\
         \x20 {mesh} ping magnetite --socket {socket}\n\
         \x20 {mesh} pending --socket {}\n\
         \x20 {enter} ping {address}\n\
         \x20 tail -f {log}\n\
         \x20 editor {inventory}     # what you change takes effect at once\n\n",
        controller.display()
    ))
}

/// Sleeps for good; [`clean_up_on_signals`] ends the process.
fn wait_for_signal() {
    loop {
        thread::park();
    }
}

/// From now on, Ctrl-C, SIGTERM and the end of the terminal end the process, whatever it is at, and leave
/// nothing behind.
fn clean_up_on_signals(clean_up: Arc<OnceLock<CleanUp>>, keep: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot listen for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        output::error("\n  interrupted, cleaning up\n");
        // Making the fleet takes a moment, after which there is something to clean up.
        let clean_up = clean_up.wait();
        // Held to the end: the main thread, which sees its fleet die, waits here instead of telling of it
        // and ending the process half-way through.
        let _silence = std::io::stderr().lock();
        let cleaned = clean_up.run();
        let exit = match cleaned {
            Ok(()) if keep => Exit::Done,
            Ok(()) => Exit::Refused,
            Err(error) => {
                output::error(&format!("error: {error:#}\n"));
                Exit::Refused
            }
        };
        std::process::exit(exit as i32)
    });
    Ok(())
}
