//! How often something may be done that others ask for.

use std::time::Duration;

use mesh_types::Instant;

/// So often at once, and then once in each `every`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) at_once: u32,
    pub(crate) every: Duration,
}

/// What is left of a [`Limit`]. One owner, without a lock.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    spent: u32,
    since: Option<Instant>,
}

impl Allowance {
    /// Whether it may be done once more, which is counted if so.
    pub(crate) fn takes(&mut self, limit: Limit, now: Instant) -> bool {
        let passed = self
            .since
            .map_or(Duration::MAX, |at| now.saturating_since(at));
        let regained = passed.as_micros() / limit.every.as_micros();
        if regained > 0 {
            let regained = u32::try_from(regained).unwrap_or(u32::MAX);
            self.spent = self.spent.saturating_sub(regained);
            self.since = Some(now);
        }
        if self.spent >= limit.at_once {
            return false;
        }
        self.spent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_regained_with_time() {
        let limit = Limit {
            at_once: 100,
            every: Duration::from_millis(10),
        };
        let mut allowance = Allowance::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let count = |allowance: &mut Allowance, now| {
            (0..1000).filter(|_| allowance.takes(limit, now)).count()
        };
        assert_eq!(count(&mut allowance, at(1000)), 100);
        assert_eq!(count(&mut allowance, at(1050)), 5);
        assert_eq!(count(&mut allowance, at(9000)), 100);
    }
}
