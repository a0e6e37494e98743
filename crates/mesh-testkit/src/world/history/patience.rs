//! How long is waited for what, and how much is said meanwhile.

use std::time::Duration;

/// What a pair is given, from its first packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a packet has come in each direction, if a moon is there for both.
    pub(super) reach: Duration,
    /// Until packets go without a moon, if they can.
    pub(super) direct: Duration,
}

impl Patience {
    /// A pair that never spoke, on lines in order and with moons that have been there for a while: three
    /// round trips through two carriers and 50 ms, and a second.
    pub(super) const FRESH: Self = Self {
        reach: Duration::from_millis(3 * 110 + 50),
        direct: Duration::from_secs(1),
    };

    /// The same while lines lose packets: the first handshake may be lost, and be repeated.
    pub(super) const FRESH_IN_RAIN: Self = Self {
        reach: Duration::from_secs(60),
        direct: Duration::from_secs(120),
    };

    /// Anything may have happened just before, several things at once, and some of them unnoticed: a moon
    /// that was away is tried every 30 s, a way that did not answer once a minute.
    pub(super) const DISTURBED: Self = Self {
        reach: Duration::from_secs(35),
        direct: Duration::from_secs(90),
    };

    /// The same while lines lose up to 30 % each way: a handshake through a moon passes four of them and
    /// is repeated every five seconds.
    pub(super) const DISTURBED_IN_RAIN: Self = Self {
        reach: Duration::from_secs(120),
        direct: Duration::from_secs(240),
    };

    /// The same from a later time on.
    pub(super) const fn after(self, time: Duration) -> Self {
        Self {
            reach: self.reach.saturating_add(time),
            direct: self.direct.saturating_add(time),
        }
    }

    /// The same if they have no moon in common but by streams: a dial that failed is repeated after a minute,
    /// and may then take five seconds to fail or succeed.
    pub(super) const fn until_dialled(self) -> Self {
        Self {
            reach: self.reach.saturating_add(Duration::from_secs(65)),
            ..self
        }
    }
}

/// Longer than a search for a straight way lasts.
pub(super) const SEARCH_MAX: Duration = Duration::from_secs(4);

/// Longer than an unanswered packet is tried for: a session may last three minutes more, and nine minutes after it
/// everybody has given up.
pub(super) const IDLE: Duration = Duration::from_secs(1_000);

/// Until a pair without a moon is direct that has been connected to controllers for a minute: a handshake that
/// goes where the peer was once is repeated after five seconds. And if anything may have happened just before: ten seconds until a
/// lost connection is noticed, a minute of waiting while another controller is there, and half a minute until the
/// pair is tried again.
pub(super) const INTRODUCED: Duration = Duration::from_secs(7);
pub(super) const INTRODUCED_LATE: Duration = Duration::from_secs(120);

/// Until a machine that can reach a controller has its roster: as above without the last.
pub(super) const ROSTER_TAKEN: Duration = Duration::from_secs(90);

/// Messages in an idle minute with a controller that is connected: a question for the roster and its answer,
/// and those of the minutes before and after. With others: who is refused asks every three seconds on average, with a
/// first packet and a hello, and there are an answer and an end of it; half of that again, as chance has it.
pub(super) const IDLE_CONNECTED: usize = 4;
pub(super) const IDLE_UNCONNECTED: usize = 20 * 4 * 3 / 2;

/// What a moon and a client of it may exchange in an idle minute: three renewals of two datagrams, a
/// handshake, and what a moon that is away is tried with. Twice that where lines lose up to 30 % each way.
pub(super) const IDLE_PER_MOON: usize = 64;
