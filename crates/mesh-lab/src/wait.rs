//! Waiting for what tells nobody when it is done.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often is looked again: short beside what is measured, long beside what looking costs.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is what is wanted, at most for `patience`.
///
/// # Errors
///
/// What `look` gave last.
pub fn wait_until<T, E>(
    patience: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Err(_) if Instant::now() < deadline => thread::sleep(LOOK),
            found => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_taken_and_what_does_not_is_told() {
        let mut looks = 0;
        let found = wait_until(Duration::from_secs(10), || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err("not yet")
            }
        });
        assert_eq!(found, Ok(3));
        let never = wait_until(Duration::ZERO, || Err::<(), _>("not yet"));
        assert_eq!(never, Err("not yet"));
    }
}
