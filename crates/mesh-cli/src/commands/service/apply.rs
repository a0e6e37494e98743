//! Shows a plan, asks, and carries it out.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::{
    How,
    config::Given,
    execute::execute,
    facts,
    layout::{Daemon, Layout},
    plan::{self, Facts, Refusal, Start},
    ready,
    step::Plan,
};
use crate::{
    commands::inventory::confirm,
    failure::{Exit, Failure},
    output,
};

pub(super) fn install(daemon: Daemon, given: &Given, how: &How) -> Result<Exit, Failure> {
    if daemon == Daemon::Controller && !given.controllers.is_empty() {
        let error = anyhow!("`--controller` is for the agent's configuration");
        return Err(Failure::new(Exit::Usage, error)
            .hint("`mesh service install controller` installs a controller"));
    }
    let facts = facts::gather(daemon, how.root.as_deref())?;
    let (layout, plan, start) = plan::install(&facts, daemon, given).map_err(refused)?;
    let title = format!("to install the {daemon} (release {}):", facts.release);
    if !agree(&plan, how, &facts, &title)? {
        return Ok(Exit::Done);
    }
    carry_out(&plan, how, "install")?;
    let told = outcome(&layout, &facts, &start)?;
    answer(&plan, how, true, &told)
}

pub(super) fn uninstall(daemon: Daemon, purge: bool, how: &How) -> Result<Exit, Failure> {
    let facts = facts::gather(daemon, how.root.as_deref())?;
    let plan = plan::uninstall(&facts, daemon, purge).map_err(refused)?;
    let title = format!("to uninstall the {daemon}:");
    if plan.steps.is_empty() {
        let told =
            format!("`mesh service` did not install the {daemon}; there is nothing to remove\n");
        return answer(&plan, how, false, &told);
    }
    if !agree(&plan, how, &facts, &title)? {
        return Ok(Exit::Done);
    }
    carry_out(&plan, how, "uninstall")?;
    let notes: String = plan
        .notes
        .iter()
        .map(|note| format!("note: {note}\n"))
        .collect();
    answer(
        &plan,
        how,
        true,
        &format!("the {daemon} is uninstalled\n{notes}"),
    )
}

/// Shows the plan, and says whether to go on.
fn agree(plan: &Plan, how: &How, facts: &Facts, title: &str) -> Result<bool, Failure> {
    if plan.steps.is_empty() {
        return Ok(true);
    }
    let text = format!("{title}\n\n{}\n", plan.render());
    if how.dry_run {
        answer(plan, how, false, &text)?;
        return Ok(false);
    }
    let asks = !how.yes && io::stdin().is_terminal();
    if !how.yes && !asks {
        answer(plan, how, false, &text)?;
        let error = anyhow!("nothing was done: there is no terminal to ask at");
        return Err(Failure::new(Exit::Usage, error).hint("`--yes` does what is shown"));
    }
    if facts.other_root.is_none() && !mesh_os::file::is_root() {
        answer(plan, how, false, &text)?;
        let error = anyhow!("this changes the system, which only root may");
        return Err(Failure::new(Exit::Refused, error).hint("run it with `sudo`"));
    }
    if asks {
        output::error(&text);
        if !confirm::confirm("go on?")? {
            output::error("nothing was done\n");
            return Ok(false);
        }
    }
    Ok(true)
}

fn carry_out(plan: &Plan, how: &How, verb: &str) -> Result<(), Failure> {
    let tell = |step: &super::step::Step| output::error(&format!("{}\n", step.line()));
    execute(plan, how.root.as_deref(), tell).map_err(|error| {
        Failure::new(Exit::Refused, error).hint(format!(
            "the steps before it are done; mend the reason and run `mesh service {verb}` again, which goes on from there{}",
            match verb {
                "install" => "; `mesh service uninstall` takes them back",
                _ => "",
            }
        ))
    })
}

/// What came of the installation, and the next steps.
fn outcome(layout: &Layout, facts: &Facts, start: &Start) -> Result<String, Failure> {
    let daemon = layout.daemon;
    match start {
        Start::Runs => ready::wait(layout),
        Start::OtherRoot => Ok(format!(
            "the {daemon} is installed below `{}`, and starts with that system\n",
            facts
                .other_root
                .as_deref()
                .unwrap_or(std::path::Path::new("/"))
                .display()
        )),
        Start::Lacks(missing) => Ok(format!(
            "the {daemon} is installed, and not started: `{}` does not say {}\n\
             next: fill it in, then `mesh service install{}`\n",
            layout.config.display(),
            missing
                .iter()
                .map(|option| match *option {
                    "--network" => "`network`",
                    "--signer" => "`signers`",
                    _ => "`controllers`",
                })
                .collect::<Vec<_>>()
                .join(", "),
            match daemon {
                Daemon::Agent => "",
                Daemon::Controller => " controller",
            },
        )),
    }
}

fn answer(plan: &Plan, how: &How, applied: bool, text: &str) -> Result<Exit, Failure> {
    if how.json {
        let object = json!({
            "version": 1,
            "applied": applied,
            "steps": plan.steps,
            "notes": plan.notes,
        });
        let json =
            serde_json::to_string_pretty(&object).context("cannot write the answer as JSON")?;
        output::answer(&format!("{json}\n"))?;
    } else {
        output::answer(text)?;
    }
    Ok(Exit::Done)
}

fn refused(refusal: Refusal) -> Failure {
    let exit = match refusal.is_usage() {
        true => Exit::Usage,
        false => Exit::Refused,
    };
    let hint = refusal.hint();
    Failure::new(exit, refusal).hint(hint)
}
