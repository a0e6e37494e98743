//! Equal shares of what a moon sends, without a queue.
//!
//! Each client has an account of what it owes. A frame that is sent on adds its bytes; the moon pays off
//! its rate, in equal parts to all who owe anything. A client whose account is over the allowance has its
//! frame dropped. This is what a fair queue (generalised processor sharing, with a queue for each client)
//! would have dropped, only that nothing waits: the line itself holds the short burst.
//!
//! So while the moon has something left nobody is held back, a client that asks for less than its share
//! gets all that it asks for, and the others share what is left equally, however much each of them sends.
//!
//! The accounts are kept as in virtual-time schedulers: a clock says how many bytes each debtor has been
//! paid since the start, and an account is the clock's reading at which it is settled.

use std::{collections::BTreeSet, time::Duration};

use mesh_types::Instant;

/// What all clients together may be ahead of the moon's rate: this much waits in the line's own queue.
const BURST: Duration = Duration::from_millis(50);

/// The least allowance of a client, in bytes: ten full frames, the initial window of TCP (RFC 6928).
const ALLOWANCE_BYTES_MIN: u128 = 16_384;

/// Units in a byte: a rate in bytes a second times a time in microseconds is exact.
const UNITS: u128 = 1_000_000;

/// The moon's sending, as it is shared.
#[derive(Debug, Default)]
pub(super) struct FairShare {
    /// What each debtor has been paid since the start.
    clock: u128,
    paid_until: Instant,
    /// Who owes, by when it is settled.
    debtors: BTreeSet<(u128, u64)>,
}

/// A client's account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Tells clients apart.
    id: u64,
    /// The clock's reading at which nothing is owed.
    settled_at: u128,
}

impl Account {
    pub(super) const fn new(id: u64) -> Self {
        Self { id, settled_at: 0 }
    }
}

impl FairShare {
    /// Takes a frame of `bytes` to the client's account, or refuses it. One of a client that owes nothing
    /// is always taken.
    pub(super) fn admit(
        &mut self,
        account: &mut Account,
        bytes: u64,
        bytes_per_second: u64,
        now: Instant,
    ) -> bool {
        self.pay(bytes_per_second, now);
        let owed = account.settled_at.saturating_sub(self.clock);
        if owed > 0 && owed >= self.allowance(bytes_per_second) {
            return false;
        }
        self.debtors.remove(&(account.settled_at, account.id));
        account.settled_at = self.clock + owed + u128::from(bytes) * UNITS;
        self.debtors.insert((account.settled_at, account.id));
        true
    }

    /// Moves the clock on: slower the more debtors there are, and as each is settled faster for the rest.
    fn pay(&mut self, bytes_per_second: u64, now: Instant) {
        let micros = now.saturating_since(self.paid_until).as_micros();
        self.paid_until = self.paid_until.max(now);
        let mut payment = u128::from(bytes_per_second) * micros;
        while let Some(&(settled_at, _)) = self.debtors.first() {
            let number = count(&self.debtors);
            let each = settled_at.saturating_sub(self.clock);
            if each * number > payment {
                self.clock += payment / number;
                return;
            }
            payment -= each * number;
            self.clock += each;
            self.debtors.pop_first();
        }
    }

    /// What one client may owe: its part of the burst, as things are.
    fn allowance(&self, bytes_per_second: u64) -> u128 {
        let burst = u128::from(bytes_per_second) * BURST.as_micros();
        (burst / count(&self.debtors).max(1)).max(ALLOWANCE_BYTES_MIN * UNITS)
    }
}

fn count(debtors: &BTreeSet<(u128, u64)>) -> u128 {
    u128::try_from(debtors.len()).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u64 = 10_000_000;
    const FRAME: u64 = 1_000;

    /// Bytes carried for each client in `millis`, when client i offers a frame every `gaps[i]`
    /// microseconds.
    fn run(gaps: &[u64], millis: u64) -> Vec<u64> {
        let mut share = FairShare::default();
        let mut accounts: Vec<_> = (0..).take(gaps.len()).map(Account::new).collect();
        let mut carried = vec![0; gaps.len()];
        for micros in 0..millis * 1_000 {
            for (client, gap) in gaps.iter().enumerate() {
                if micros % gap == 0
                    && share.admit(
                        &mut accounts[client],
                        FRAME,
                        RATE,
                        Instant::from_micros(micros),
                    )
                {
                    carried[client] += FRAME;
                }
            }
        }
        assert!(share.debtors.len() <= gaps.len());
        carried
    }

    #[test]
    fn one_client_may_have_all_that_there_is() {
        let carried = run(&[10], 1_000)[0];
        assert!(carried >= RATE, "{carried}");
        assert!(carried <= RATE + RATE / 20 + FRAME, "{carried}");
    }

    #[test]
    fn a_modest_client_loses_nothing_to_greedy_ones() {
        // A tenth of the moon's rate, beside three who each send the tenfold of it.
        let carried = run(&[1_000, 10, 10, 10], 1_000);
        assert_eq!(carried[0], RATE / 10);
    }

    #[test]
    fn greedy_clients_share_equally_however_much_they_send() {
        let carried = run(&[2, 20, 100, 1_000], 1_000);
        assert_eq!(carried[3], RATE / 10);
        let share = (RATE - RATE / 10) / 3;
        for greedy in &carried[..3] {
            // Plus the burst's part.
            assert!(
                (share - share / 50..=share + RATE / 20 + FRAME).contains(greedy),
                "{carried:?}"
            );
        }
    }

    #[test]
    fn clients_that_are_silent_leave_their_share_to_the_others() {
        let mut share = FairShare::default();
        let mut accounts: Vec<_> = (0..100).map(Account::new).collect();
        for account in &mut accounts {
            assert!(share.admit(account, FRAME, RATE, Instant::ZERO));
        }
        assert_eq!(share.debtors.len(), 100);
        // 100 frames take 10 ms to pay off; from then on there is one client.
        assert!(share.admit(&mut accounts[0], FRAME, RATE, Instant::from_micros(10_000)));
        assert_eq!(share.debtors.len(), 1);
    }

    proptest! {
        #[test]
        fn all_together_get_no_more_than_the_rate_and_each_no_less_than_its_share(
            gaps in prop::collection::vec(5..3_000_u64, 1..8),
        ) {
            let carried = run(&gaps, 200);
            let number = u64::try_from(gaps.len()).unwrap();
            let total: u64 = carried.iter().sum();
            // The burst once for each number of debtors that there was on the way up.
            let bursts = (1..=number).map(|n| (RATE / 20 / n).max(16_384) + FRAME).sum::<u64>();
            prop_assert!(total <= RATE / 5 + bursts, "{total}");
            for (gap, carried) in gaps.iter().zip(carried) {
                let offered = 200_000_u64.div_ceil(*gap) * FRAME;
                let guaranteed = offered.min(RATE / 5 / number);
                prop_assert!(carried + 2 * FRAME >= guaranteed, "{carried} of {guaranteed}");
            }
        }
    }
}
