//! The last lines of the agent's log, kept in memory for `mesh logs`.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_api::{LogLine, Logs};
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{Layer, layer::Context};

/// How many lines are kept; older ones make room. At [`MESSAGE_BYTES_MAX`] each, 2 MiB at most.
const LINES_MAX: usize = 1_000;

/// The longest message that is kept whole, in bytes.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// A tracing layer that keeps the last lines. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LogRing(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    dropped: u64,
}

impl LogRing {
    /// The last `count` lines, oldest first.
    pub fn last(&self, count: usize) -> Logs {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = ring.lines.len().saturating_sub(count);
        Logs {
            version: mesh_api::VERSION,
            lines: ring.lines.iter().skip(skipped).cloned().collect(),
            dropped: ring.dropped,
        }
    }

    fn push(&self, line: LogLine) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.lines.len() == LINES_MAX {
            ring.lines.pop_front();
            ring.dropped += 1;
        }
        ring.lines.push_back(line);
    }
}

impl<S: Subscriber> Layer<S> for LogRing {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.push(LogLine {
            time: mesh_api::rfc3339(unix_seconds()),
            level: event.metadata().level().to_string(),
            message: text.finish(),
        });
    }
}

/// An event as `message key=value key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX)
                .rev()
                .find(|end| text.is_char_boundary(*end))
                .unwrap_or(0);
            text.truncate(end);
            text.push_str(" [cut]");
        }
        text
    }
}

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail, except where a value's own `Debug` does; then it is left out.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    #[test]
    fn the_last_lines_are_kept_with_their_fields() {
        let ring = LogRing::default();
        let subscriber = tracing_subscriber::registry().with(ring.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..LINES_MAX + 2 {
                tracing::info!(number, peer = %"galena", "path established");
            }
        });
        let logs = ring.last(2);
        assert_eq!(logs.dropped, 2);
        let messages: Vec<_> = logs.lines.iter().map(|line| &line.message).collect();
        assert_eq!(
            messages,
            [
                "path established number=1000 peer=galena",
                "path established number=1001 peer=galena"
            ]
        );
        assert_eq!(logs.lines[0].level, "INFO");
        assert_eq!(ring.last(usize::MAX).lines.len(), LINES_MAX);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let ring = LogRing::default();
        let subscriber = tracing_subscriber::registry().with(ring.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("x{}", "ä".repeat(MESSAGE_BYTES_MAX));
        });
        let message = &ring.last(1).lines[0].message;
        assert!(message.ends_with(" [cut]"));
        assert!(message.len() <= MESSAGE_BYTES_MAX + 6);
    }
}
