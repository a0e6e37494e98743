//! `mesh keygen` and `mesh inventory`, run as programs, against OpenSSH and jq.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]
#![expect(clippy::print_stderr, reason = "a skipped test says why")]

mod files;
mod keygen;
mod openssh;
mod push;
mod workplace;
