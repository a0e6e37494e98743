//! What goes on, on stderr: a spinner on a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Steps, one at a time, each with the time it took.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// No step yet.
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Self { bar }
    }

    /// Does `work`, which `what` says in the form of "starting the agents".
    ///
    /// # Errors
    ///
    /// Those of `work`.
    pub(super) fn step<T>(
        &self,
        what: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        if let Some(bar) = &self.bar {
            bar.reset_elapsed();
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(TICK);
        }
        let result = work();
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
        let mark = if result.is_ok() { "ok" } else { "failed" };
        let seconds = start.elapsed().as_secs_f64();
        output::error(&format!("  {what}: {mark} ({seconds:.1} s)\n"));
        result
    }
}
