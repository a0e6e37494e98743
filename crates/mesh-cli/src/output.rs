//! Where text goes: answers to stdout, everything else to stderr.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mesh_agent::LogRing;
use mesh_os::log_file::{LOG_BYTES_MAX, LogFile};
use serde::Serialize;
use tracing_subscriber::{
    EnvFilter,
    fmt::{self, writer::BoxMakeWriter},
    prelude::*,
};

use crate::failure::{Exit, Failure};

/// What stands above these in each command's help, whose own options come first.
const HEADING: &str = "Options of every command";

/// What every command takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Level of the log on stderr: `error`, `warn`, `info`, `debug`, `trace`, or a filter per crate
    #[arg(
        long,
        global = true,
        env = "MESH_LOG",
        default_value = "info",
        value_name = "FILTER",
        help_heading = HEADING
    )]
    log: String,
    /// Form of the log
    #[arg(long, global = true, env = "MESH_LOG_FORMAT", default_value = "text", help_heading = HEADING)]
    log_format: LogFormat,
    /// Where the log and errors go instead of stderr; the file and FILE.1 are kept small
    #[arg(long, global = true, env = "MESH_LOG_FILE", value_name = "FILE", help_heading = HEADING)]
    log_file: Option<PathBuf>,
    /// When to colour
    #[arg(long, global = true, default_value = "auto", help_heading = HEADING)]
    color: Color,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// A line for a person
    Text,
    /// A JSON object a line
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Whether what goes to stderr is coloured.
static COLORED: AtomicBool = AtomicBool::new(false);

/// What a line for people begins with, and its colour (ECMA-48, SGR).
const COLORS: [(&str, &str); 3] = [
    ("error:", "\x1b[31m"),
    ("warning:", "\x1b[33m"),
    ("hint:", "\x1b[36m"),
];

/// Sets up the colours, and the log, which `kept` keeps the last lines of, if there is one. Called once.
///
/// # Errors
///
/// A [`Failure`] with [`Exit::Usage`] if the filter is none, or the log's file cannot be opened.
pub(crate) fn init(options: &Options, kept: Option<LogRing>) -> Result<(), Failure> {
    let writer = match &options.log_file {
        Some(path) => BoxMakeWriter::new(Mutex::new(log_file(path)?)),
        None => BoxMakeWriter::new(io::stderr),
    };
    // After that, as a file is no terminal.
    let ansi = use_color(options.color);
    COLORED.store(ansi, Ordering::Relaxed);
    let filter = EnvFilter::try_new(&options.log).map_err(|error| {
        let error = anyhow::Error::new(error)
            .context(format!("`{}` is no filter for the log", options.log));
        Failure::new(Exit::Usage, error)
            .hint("`--log` and MESH_LOG take a level, or such as `info,mesh_core=debug`")
    })?;
    let text = fmt::layer().with_writer(writer).with_target(false);
    let registry = tracing_subscriber::registry().with(filter).with(kept);
    match options.log_format {
        LogFormat::Text => registry.with(text.with_ansi(ansi)).init(),
        LogFormat::Json => registry.with(text.json()).init(),
    }
    Ok(())
}

fn log_file(path: &Path) -> Result<LogFile, Failure> {
    let file = LogFile::open(path, LOG_BYTES_MAX)
        .map_err(|error| Failure::new(Exit::Usage, error).hint("name another with `--log-file`"))?;
    file.take_over_stderr()
        .map_err(|error| anyhow::Error::new(error).context("cannot redirect stderr to the log"))?;
    Ok(file)
}

/// An answer as one line of JSON.
///
/// # Errors
///
/// What cannot be said in JSON.
pub(crate) fn json(answer: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string(answer).context("cannot write the answer as JSON")?;
    Ok(json + "\n")
}

/// Prints an answer to stdout.
///
/// # Errors
///
/// What writing to stdout gives; a closed pipe is taken for success by `failure::exit_code`.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints what an error has to say to stderr.
pub(crate) fn error(text: &str) {
    let text = match COLORED.load(Ordering::Relaxed) {
        true => painted(text),
        false => text.to_owned(),
    };
    // There is nowhere left to say that stderr is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn painted(text: &str) -> String {
    let line = |line: &str| {
        let found = COLORS.iter().find(|(word, _)| line.starts_with(word));
        found.map_or_else(
            || line.to_owned(),
            |(word, color)| format!("{color}{word}\x1b[0m{}", &line[word.len()..]),
        )
    };
    text.split_inclusive('\n').map(line).collect()
}

fn use_color(color: Color) -> bool {
    match color {
        Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        Color::Always => true,
        Color::Never => false,
    }
}
