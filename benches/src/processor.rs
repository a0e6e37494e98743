//! What a process has used of the processor.

use std::{fs, ops::Range};

use anyhow::Context as _;

/// Of `/proc/PID/stat`, counted from the end of the name: time for itself and for the system (proc_pid_stat(5)).
const TIMES: Range<usize> = 11..13;
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds, the kernel's work for it among them.
pub(crate) fn seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("half a `/proc/PID/stat`")?;
    let fields: Vec<_> = fields.split(' ').collect();
    let mut ticks = 0.0;
    for field in fields.get(TIMES).context("half a `/proc/PID/stat`")? {
        ticks += field.parse::<f64>()?;
    }
    Ok(ticks / TICKS_PER_SECOND)
}
