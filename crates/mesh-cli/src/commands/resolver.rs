//! `mesh resolver`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mesh_agent::{
    Config,
    resolver::{self, Outcome, ResolverError, Status},
};
use mesh_os::resolver::{Backend, Machine};

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Make this machine's programs find the mesh's names
///
/// The system's resolver asks the agent for the mesh's domain and its reverse zones, and nobody else for
/// them; whom it asks for everything else never changes. `resolver` in the agent's configuration says how,
/// by default the best way that there is: systemd-resolved, openresolv with a local server, `/etc/resolver`
/// on macOS, else a block of lines in `/etc/hosts`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set the resolver as the running agent's names say, or undo it if there are none (root)
    ///
    /// May be run at any time; what is right already is not touched. The units do so whenever the names
    /// change.
    Apply {
        #[command(flatten)]
        file: FileArgs,
        /// Give an agent that is being restarted five seconds before its names count as gone
        #[arg(long)]
        wait: bool,
    },
    /// Undo whatever was set, in whichever way, also after a crash (root)
    Undo(FileArgs),
    /// Show how names are resolved, why in no other way, and whether it works
    ///
    /// Asks for this machine's own name as programs do. Exits with 1 if it is not found.
    Status {
        #[command(flatten)]
        file: FileArgs,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct FileArgs {
    /// The agent's configuration
    #[arg(long, value_name = "FILE", default_value = mesh_agent::CONFIG_PATH)]
    config: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let machine = Machine::this();
    match args.verb {
        Verb::Apply { file, wait } => apply(&load(&file.config)?, &machine, wait),
        // What is set may outlive the configuration.
        Verb::Undo(file) => undo(Config::load(&file.config).ok().as_ref(), &machine),
        Verb::Status { file, json } => status(&load(&file.config)?, &machine, json),
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| {
        Failure::new(Exit::Usage, error).hint("`docs/agent.md` lists the keys with an example")
    })
}

fn apply(config: &Config, machine: &Machine, wait: bool) -> Result<Exit, Failure> {
    let outcome = resolver::apply(config, machine, wait).map_err(|error| {
        let hint = hint(&error);
        Failure::new(Exit::Refused, error).hint(hint)
    })?;
    match outcome {
        Outcome::Set(applied) => {
            output::answer(&format!("Set in {}.\n", applied.backend))?;
            for passed in applied.passed {
                output::answer(&format!("Not in {}: {}.\n", passed.backend, passed.reason))?;
            }
        }
        Outcome::Nothing { reason, undone } => {
            output::answer(&format!("Nothing is set: {reason}.\n"))?;
            tell_undone(&undone)?;
        }
    }
    Ok(Exit::Done)
}

fn undo(config: Option<&Config>, machine: &Machine) -> Result<Exit, Failure> {
    let undone = resolver::undo(config, machine).map_err(|error| {
        Failure::new(Exit::Refused, error)
            .hint("it needs root; `docs/names.md` says how to undo it by hand")
    })?;
    if undone.is_empty() {
        output::answer("Nothing was set.\n")?;
    }
    tell_undone(&undone)?;
    Ok(Exit::Done)
}

fn tell_undone(undone: &[Backend]) -> anyhow::Result<()> {
    undone
        .iter()
        .try_for_each(|backend| output::answer(&format!("Undone in {backend}.\n")))
}

fn status(config: &Config, machine: &Machine, json: bool) -> Result<Exit, Failure> {
    let status = resolver::status(config, machine);
    let text = if json {
        output::json(&status)?
    } else {
        render(&status)
    };
    output::answer(&text)?;
    Ok(match status.next {
        None => Exit::Done,
        Some(_) => Exit::Refused,
    })
}

fn hint(error: &ResolverError) -> &'static str {
    match error {
        ResolverError::Roster(_) => {
            "the agent stores the roster that it takes; `mesh status` shows it"
        }
        ResolverError::Apply(mesh_os::resolver::ApplyError::NoWay(_)) => {
            "`mesh resolver status` shows what this machine has; `resolver = \"none\"` leaves it to you"
        }
        ResolverError::Apply(_) | ResolverError::Undo(_) | ResolverError::Addresses(_) => {
            "it needs root"
        }
        ResolverError::Read(_) | ResolverError::Malformed(_) | ResolverError::Untrusted { .. } => {
            "restart the agent, which writes the file anew; if it stays so, somebody tampers with it"
        }
    }
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |head: &str, rest: &str| text.push_str(&format!("{head:<11}{rest}\n"));
    let in_force: Vec<_> = status
        .in_force
        .iter()
        .map(|backend| backend.name())
        .collect();
    line(
        "set in",
        &match in_force.is_empty() {
            true => "nothing".to_owned(),
            false => in_force.join(", "),
        },
    );
    if let (Some(domain), Some(server)) = (&status.domain, &status.server) {
        line(
            "asks",
            &format!("{server} for `{domain}` and the mesh's reverse zones"),
        );
    }
    for passed in &status.not_taken {
        line("not in", &format!("{}: {}", passed.backend, passed.reason));
    }
    if status.wildcards > 0 && status.in_force.contains(&Backend::Hosts) {
        line(
            "missing",
            &format!(
                "{} wildcard names, which a hosts file cannot say",
                status.wildcards
            ),
        );
    }
    if let Some(lookup) = &status.lookup {
        let found: Vec<_> = lookup.addresses.iter().map(ToString::to_string).collect();
        let answer = match (lookup.right, &lookup.error) {
            (true, _) => found.join(", "),
            (false, Some(error)) => format!("not found: {error}"),
            (false, None) => format!("{}, which is not its address in the mesh", found.join(", ")),
        };
        line("lookup", &format!("{}: {answer}", lookup.name));
    }
    if let Some(next) = &status.next {
        line("next", next);
    }
    text
}

#[cfg(test)]
mod tests {
    use mesh_agent::resolver::{Lookup, NotTaken};
    use mesh_os::resolver::Choice;

    use super::*;

    fn working() -> Status {
        Status {
            version: 1,
            choice: Choice::Auto,
            in_force: vec![Backend::Hosts],
            usable: vec![Backend::Hosts],
            not_taken: vec![NotTaken {
                backend: Backend::Resolved,
                reason: "it does not run".to_owned(),
            }],
            domain: Some("mesh".to_owned()),
            server: Some("fdc3::1".parse().unwrap()),
            wildcards: 1,
            lookup: Some(Lookup {
                name: "cinnabar.mesh".to_owned(),
                addresses: vec!["fdc3::1".parse().unwrap()],
                right: true,
                error: None,
            }),
            next: None,
        }
    }

    #[test]
    fn the_status_says_how_why_not_otherwise_and_whether_it_works() {
        insta::assert_snapshot!(render(&working()), @r"
        set in     /etc/hosts
        asks       fdc3::1 for `mesh` and the mesh's reverse zones
        not in     systemd-resolved: it does not run
        missing    1 wildcard names, which a hosts file cannot say
        lookup     cinnabar.mesh: fdc3::1
        ");
    }

    #[test]
    fn the_json_is_a_contract() {
        let mut status = working();
        status.next = Some("do".to_owned());
        let text = serde_json::to_string(&status).unwrap();
        insta::assert_snapshot!(text, @r#"{"version":1,"choice":"auto","inForce":["hosts"],"usable":["hosts"],"notTaken":[{"backend":"resolved","reason":"it does not run"}],"domain":"mesh","server":"fdc3::1","wildcards":1,"lookup":{"name":"cinnabar.mesh","addresses":["fdc3::1"],"right":true,"error":null},"next":"do"}"#);
    }
}
