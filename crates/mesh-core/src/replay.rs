/// How far a packet may come behind the newest one of its session. Large enough for a burst of 64 KiB
/// batches that several paths or cores put out of order; a kilobyte a session.
pub(crate) const WINDOW_PACKETS: u64 = 8192;

const WORD_BITS: u64 = 64;

/// One word more than the window, so that clearing a whole word ahead never forgets a counter in it.
pub(crate) const WORDS: u64 = WINDOW_PACKETS / WORD_BITS + 1;

/// Tells counters seen from counters not seen, for the newest [`WINDOW_PACKETS`] (RFC 6479).
#[derive(Clone)]
pub struct ReplayWindow {
    /// The highest counter taken plus one; zero before the first.
    end: u64,
    words: [u64; WORDS as usize],
}

/// How a counter that was taken relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The highest so far.
    Newest,
    /// Overtaken by a later packet.
    Late,
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self {
            end: 0,
            words: [0; WORDS as usize],
        }
    }

    /// All that it knows, to be handed on: the highest counter taken plus one, and the words.
    pub(crate) const fn parts(&self) -> (u64, &[u64; WORDS as usize]) {
        (self.end, &self.words)
    }

    /// The window that had these parts.
    pub(crate) const fn from_parts(end: u64, words: [u64; WORDS as usize]) -> Self {
        Self { end, words }
    }

    /// Takes the counter of an authentic packet; `None` if it was taken before or is too old to tell.
    pub fn take(&mut self, counter: u64) -> Option<Order> {
        let order = if counter >= self.end {
            self.advance(counter);
            Order::Newest
        } else if self.end - counter > WINDOW_PACKETS {
            return None;
        } else {
            Order::Late
        };
        let word = &mut self.words[index(counter)];
        let bit = 1 << (counter % WORD_BITS);
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        Some(order)
    }

    /// Clears the words between the newest counter and `counter`, the new newest.
    fn advance(&mut self, counter: u64) {
        let target = counter / WORD_BITS;
        // The word of the newest counter is in use; every later one is of an earlier round.
        let first = match self.end {
            0 => 0,
            end => (end - 1) / WORD_BITS + 1,
        };
        let count = (target + 1).saturating_sub(first).min(WORDS);
        for word in target + 1 - count..=target {
            self.words[index(word * WORD_BITS)] = 0;
        }
        self.end = counter.saturating_add(1);
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

fn index(counter: u64) -> usize {
    usize::try_from(counter / WORD_BITS % WORDS).expect("far below the size of memory")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_is_8192_packets() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.take(WINDOW_PACKETS), Some(Order::Newest));
        assert_eq!(window.take(0), None);
        assert_eq!(window.take(1), Some(Order::Late));
        assert_eq!(window.take(1), None);
        assert_eq!(window.take(WINDOW_PACKETS), None);
    }

    #[test]
    fn the_last_counter_of_all_is_taken_once() {
        let mut window = ReplayWindow::new();
        assert!(window.take(u64::MAX - 1).is_some());
        assert!(window.take(u64::MAX - 1).is_none());
        assert!(window.take(0).is_none());
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_all_counters(
            steps in prop::collection::vec(
                prop_oneof![0u64..200, 8000u64..8400, 0u64..30_000, 1_000_000u64..1_000_300],
                1..600,
            ),
            base in prop_oneof![Just(0u64), Just((1 << 60) - 5000)],
        ) {
            let mut window = ReplayWindow::new();
            let mut seen = BTreeSet::new();
            for step in steps {
                let counter = base + step;
                let newest = seen.last().copied();
                let late = newest.is_some_and(|newest| newest > counter);
                let old = newest.is_some_and(|newest| newest >= counter + WINDOW_PACKETS);
                let expected = if old || !seen.insert(counter) {
                    None
                } else if late {
                    Some(Order::Late)
                } else {
                    Some(Order::Newest)
                };
                prop_assert_eq!(window.take(counter), expected);
            }
        }
    }
}
