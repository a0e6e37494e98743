//! How a command ends: exit codes, and errors as people read them.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::output;

/// The exit codes, as the help shows them.
pub(crate) const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or failed as foreseen; \
2 wrong usage or configuration; 3 daemon not reachable; 70 a bug in mesh.";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Refused, or failed as foreseen.
    Refused = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
    /// A bug in mesh.
    Bug = 70,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// Ends with `exit`; `error`'s chain is printed.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// What went wrong, without the next step.
    pub(crate) fn into_error(self) -> anyhow::Error {
        self.error
    }

    /// The next step for the user.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Refused, error)
    }
}

/// Prints the failure, if there is one, and says how the process ends.
pub(crate) fn exit_code(result: Result<Exit, Failure>) -> ExitCode {
    let exit = match result {
        Ok(exit) => exit,
        Err(failure) if is_closed_pipe(&failure.error) => Exit::Done,
        Err(failure) => {
            output::error(&render(&failure));
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// Makes a panic end the process with [`Exit::Bug`], whichever thread it is in.
pub(crate) fn install_panic_hook() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        let _ = writeln!(
            io::stderr(),
            "this is a bug in mesh; please report it with the lines above"
        );
        std::process::exit(Exit::Bug as i32);
    }));
}

pub(crate) fn render(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", failure.error);
    for cause in failure.error.chain().skip(1) {
        text.push_str(&format!("  caused by: {cause}\n"));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// Whether whoever read our output went away, as `mesh status | head -1` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_shows_its_chain_and_the_next_step() {
        let refused = io::Error::from_raw_os_error(111);
        let error = Err::<(), _>(refused)
            .context("cannot reach the agent at `/run/x`")
            .unwrap_err();
        let failure = Failure::new(Exit::Unreachable, error).hint("start it with `mesh agent run`");
        assert_eq!(
            render(&failure),
            "error: cannot reach the agent at `/run/x`\n  caused by: Connection refused (os error 111)\nhint: start it with `mesh agent run`\n"
        );
    }
}
