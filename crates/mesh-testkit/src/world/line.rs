use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::LinkQuality;

/// One direction of a line.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Time on the way, and what goes wrong there.
    pub quality: LinkQuality,
    /// Time on the way besides, as when it goes round about.
    pub detour: Duration,
    /// The largest IP packet that passes, in bytes.
    pub mtu: usize,
    /// Whether the sender of a larger one is told (ICMP), or it vanishes.
    pub tells_too_big: bool,
    /// Whether anything passes at all.
    pub is_up: bool,
}

/// A line in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Towards the internet.
    pub up: Way,
    /// From it.
    pub down: Way,
}

/// What became of a packet on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It never arrives.
    Lost,
    /// It does not fit, and the sender is told what does.
    TooBig(usize),
    /// It arrives after the first time, and again after the second.
    After(Duration, Option<Duration>),
}

impl Way {
    /// A way that takes `latency` and does nothing else to a packet.
    pub const fn good(latency: Duration) -> Self {
        Self {
            quality: LinkQuality {
                latency,
                jitter: Duration::ZERO,
                loss_percent: 0,
                duplicate_percent: 0,
            },
            detour: Duration::ZERO,
            mtu: 1500,
            tells_too_big: true,
            is_up: true,
        }
    }

    /// Whether it loses, doubles, reorders and detains nothing.
    pub const fn is_calm(&self) -> bool {
        self.quality.loss_percent == 0
            && self.quality.duplicate_percent == 0
            && self.quality.jitter.is_zero()
            && self.detour.is_zero()
    }

    /// Takes an IP packet of so many bytes.
    pub fn carry(&self, bytes: usize, rng: &mut ChaCha8Rng) -> Carried {
        if !self.is_up {
            return Carried::Lost;
        }
        if bytes > self.mtu {
            return if self.tells_too_big {
                Carried::TooBig(self.mtu)
            } else {
                Carried::Lost
            };
        }
        let LinkQuality {
            latency,
            jitter,
            loss_percent,
            duplicate_percent,
        } = self.quality;
        let mut happens = |percent: u32| percent > 0 && rng.gen_range(0..100) < percent;
        if happens(loss_percent) {
            return Carried::Lost;
        }
        let twice = happens(duplicate_percent);
        let jitter = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
        let time = latency + self.detour;
        let mut delay = || match jitter {
            0 => time,
            jitter => time + Duration::from_micros(rng.gen_range(0..=jitter)),
        };
        Carried::After(delay(), twice.then(delay))
    }
}

impl Line {
    /// The same both ways.
    pub const fn good(latency: Duration) -> Self {
        Self {
            up: Way::good(latency),
            down: Way::good(latency),
        }
    }

    /// Whether something passes both ways.
    pub const fn is_up(&self) -> bool {
        self.up.is_up && self.down.is_up
    }

    /// Changes both ways.
    pub fn change(&mut self, mut change: impl FnMut(&mut Way)) {
        change(&mut self.up);
        change(&mut self.down);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const LATENCY: Duration = Duration::from_millis(10);

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    #[test]
    fn a_good_way_delays_and_nothing_else() {
        let carried = Way::good(LATENCY).carry(1500, &mut rng());
        assert_eq!(carried, Carried::After(LATENCY, None));
    }

    #[test]
    fn what_does_not_fit_vanishes_or_is_told() {
        let mut way = Way::good(LATENCY);
        assert_eq!(way.carry(1501, &mut rng()), Carried::TooBig(1500));
        way.tells_too_big = false;
        assert_eq!(way.carry(1501, &mut rng()), Carried::Lost);
        way.is_up = false;
        assert_eq!(way.carry(100, &mut rng()), Carried::Lost);
    }

    #[test]
    fn losses_doubles_and_jitter_are_as_many_as_was_said() {
        let mut way = Way::good(LATENCY);
        way.quality.loss_percent = 30;
        way.quality.duplicate_percent = 10;
        way.quality.jitter = Duration::from_millis(5);
        let mut rng = rng();
        let (mut lost, mut doubled) = (0, 0);
        for _ in 0..10_000 {
            match way.carry(100, &mut rng) {
                Carried::Lost => lost += 1,
                Carried::TooBig(_) => unreachable!("it fits"),
                Carried::After(first, second) => {
                    doubled += usize::from(second.is_some());
                    for delay in [Some(first), second].into_iter().flatten() {
                        assert!((10..=15).contains(&delay.as_millis()));
                    }
                }
            }
        }
        assert!((2_700..3_300).contains(&lost), "{lost} of 10 000 lost");
        assert!((550..850).contains(&doubled), "{doubled} of 7 000 doubled");
    }
}
