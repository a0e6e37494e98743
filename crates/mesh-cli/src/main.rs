//! The `mesh` command: controller daemon, agent and diagnostics in one program.
//!
//! Parses, calls and renders; what is decided is decided in the crates below.

mod client;
mod commands;
mod failure;
mod human;
mod output;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use mesh_agent::LogRing;

use crate::failure::{Exit, Failure};

/// An encrypted overlay network for a fleet that is described in one place
#[derive(Parser)]
#[command(name = "mesh", version, propagate_version = true, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    output: output::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Keygen(commands::keygen::Args),
    Inventory(commands::inventory::Args),
    Machine(commands::machine::Args),
    Invite(commands::invite::Args),
    Join(commands::join::Args),
    Controller(commands::controller::Args),
    Agent(commands::agent::Args),
    Service(commands::service::Args),
    Status(commands::status::Args),
    Why(commands::why::Args),
    Hosts(commands::hosts::Args),
    Rule(commands::rule::Args),
    Ping(commands::ping::Args),
    Netcheck(commands::netcheck::Args),
    Pending(commands::pending::Args),
    Logs(commands::logs::Args),
    Import(commands::import::Args),
    Lint(commands::lint::Args),
    Resolver(commands::resolver::Args),
    Demo(commands::demo::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
    Version(commands::version::Args),
}

fn main() -> ExitCode {
    failure::install_panic_hook();
    let cli = Cli::parse();
    let result = run(cli);
    failure::exit_code(result)
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let logs = LogRing::default();
    // Only the agent has somebody who asks for its log.
    let kept = matches!(cli.command, Command::Agent(_)).then(|| logs.clone());
    output::init(&cli.output, kept)?;
    match cli.command {
        Command::Keygen(args) => commands::keygen::run(args),
        Command::Inventory(args) => commands::inventory::run(args),
        Command::Machine(args) => commands::machine::run(args),
        Command::Invite(args) => commands::invite::run(args),
        Command::Join(args) => commands::join::run(args),
        Command::Controller(args) => commands::controller::run(args),
        Command::Agent(args) => commands::agent::run(args, logs),
        Command::Service(args) => commands::service::run(args),
        Command::Status(args) => commands::status::run(args),
        Command::Why(args) => commands::why::run(args),
        Command::Hosts(args) => commands::hosts::run(args),
        Command::Rule(args) => commands::rule::run(args),
        Command::Ping(args) => commands::ping::run(args),
        Command::Netcheck(args) => commands::netcheck::run(args),
        Command::Pending(args) => commands::pending::run(args),
        Command::Logs(args) => commands::logs::run(args),
        Command::Import(args) => commands::import::run(args),
        Command::Lint(args) => commands::lint::run(args),
        Command::Resolver(args) => commands::resolver::run(args),
        Command::Demo(args) => commands::demo::run(args),
        Command::Completions(args) => commands::completions::run(&args, Cli::command()),
        Command::Man(args) => commands::man::run(&args, Cli::command()),
        Command::Version(args) => commands::version::run(args),
    }
}
