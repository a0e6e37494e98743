//! Whose turn it is when a processor is wanted by several.

use std::io;

/// From -20, before all others, to 19. Each step is a quarter more or less of a processor that others want, too:
/// this is nine times the share of a program that asked for nothing.
const NICE: i32 = -10;

/// Lets this thread, and those that it starts from now on, come before programs that asked for nothing: what carries
/// packets for others must not wait behind those who send them, as the queues that grow meanwhile are theirs, too.
///
/// # Errors
///
/// Without `CAP_SYS_NICE`, root or a limit that allows it (`RLIMIT_NICE`): all stays as it is, or what a service
/// manager set counts among the programs of this session alone.
pub fn raise() -> io::Result<()> {
    // SAFETY: `getpriority` takes plain numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // A service manager may have done it, and allow no more.
    if nice > NICE {
        // SAFETY: `setpriority` takes plain numbers.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        nix::errno::Errno::result(result)?;
    }
    #[cfg(target_os = "linux")]
    raise_session()?;
    Ok(())
}

/// Between sessions Linux may look at another number (`autogroup`, sched(7)).
#[cfg(target_os = "linux")]
fn raise_session() -> io::Result<()> {
    match std::fs::write("/proc/self/autogroup", NICE.to_string()) {
        // This kernel does not have it, or this process is of the session that the machine began with, which has no
        // number of its own: there the threads' own counts.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}
