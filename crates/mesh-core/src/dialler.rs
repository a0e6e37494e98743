//! What is dialled where plain UDP reaches no moon: QUIC, and TLS behind it.
//!
//! | what | when |
//! |---|---|
//! | QUIC to a moon | [`HEAD_START`] after a start or a change of the network, if UDP reaches none |
//! | QUIC to it | at once when UDP reaches no moon any more: that was waited for already |
//! | TLS to it | [`QUIC_HEAD_START`] later, at once if QUIC failed; never while QUIC reaches it |
//! | TLS beside QUIC that is open | [`QUIC_HEAD_START`] after the moon ceased to answer, [`OPENED`] after QUIC opened if it does not answer at all |
//! | both again | after [`PAUSE`], doubled each time; within [`WANTED`] if somebody is wanted |
//! | QUIC again, TLS being open | after [`UPGRADE`], doubled each time |
//! | TLS is closed | once the moon is reached by QUIC |
//! | everything is closed | [`CLOSE_AFTER`] UDP reached a moon, if it still does |
//!
//! A moon that is off is not worth a dial while another one is reached by UDP: networks drop UDP, not moons.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use mesh_types::{Instant, WireguardPublicKey};

use crate::{Carrier, Remote};

/// What UDP is given before anything is dialled: a handshake and a grant over a slow line.
const HEAD_START: Duration = Duration::from_millis(300);

/// What QUIC is given before TLS. QUIC opens after one round trip and TLS after two, so this is what a lost
/// first packet may cost before the heavier of the two is tried; and all that QUIC costs those who have TLS
/// alone.
const QUIC_HEAD_START: Duration = Duration::from_millis(200);

/// What a moon is given to relay by QUIC that has just opened: a handshake and a grant over a slow line, or once more
/// after a loss.
const OPENED: Duration = Duration::from_secs(2);

/// Between attempts, doubled up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How soon an attempt begins while a peer is wanted that no way leads to: networks open without a sign, such as when
/// somebody signs in.
const WANTED: Duration = Duration::from_secs(5);

/// Between attempts to have QUIC in place of TLS, doubled up to the second: a network that dropped it is
/// seldom changed without notice.
const UPGRADE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// UDP that held for so long is no passing guest.
const CLOSE_AFTER: Duration = Duration::from_secs(30);

/// Moons that are dialled; further ones are passed over.
const MOONS_MAX: usize = 32;

/// What is to be done about one connection to one moon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// Open it, and tell [`Dialler::opened`] and [`Dialler::ended`].
    Open(WireguardPublicKey, Carrier),
    /// Close it, open or not. It ends for the dialler with this.
    Close(WireguardPublicKey, Carrier),
}

/// Decides which connections to moons there are. Pure: owns no socket and no clock.
///
/// After every call: drain [`Dialler::poll_dial`], then re-arm the timer from [`Dialler::poll_timeout`].
#[derive(Debug, Default)]
pub struct Dialler {
    moons: BTreeMap<WireguardPublicKey, Moon>,
    /// Since when UDP has reached a moon; `None`: it reaches none.
    udp_since: Option<Instant>,
    dials: VecDeque<Dial>,
}

#[derive(Debug)]
struct Moon {
    /// What its datagrams take; `None`: nothing, or it does not answer.
    reached: Option<Remote>,
    lines: BTreeMap<Carrier, Line>,
    /// When the next attempt begins, if there is no connection by then.
    next: Instant,
    pause: Duration,
    /// When TLS is dialled behind QUIC, which is dialled or open, unless that reaches the moon.
    tls_at: Option<Instant>,
    /// When QUIC is tried again beside TLS, and how long after that once more.
    upgrade: (Instant, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Dialling,
    Open,
}

impl Dialler {
    /// Sets the moons that this node wants to reach, and what it reaches each by at present.
    pub fn set_moons(
        &mut self,
        moons: impl IntoIterator<Item = (WireguardPublicKey, Option<Remote>)>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.moons);
        for (key, reached) in moons.into_iter().take(MOONS_MAX) {
            let mut moon = before.remove(&key).unwrap_or_else(|| Moon::new(now));
            moon.set_reached(reached, now);
            self.moons.insert(key, moon);
        }
        for (key, moon) in before {
            self.dials
                .extend(moon.lines.keys().map(|carrier| Dial::Close(key, *carrier)));
        }
        let by_udp = |moon: &Moon| matches!(moon.reached, Some(Remote::Udp(_)));
        let udp = self.moons.values().any(by_udp);
        if self.udp_since.is_some() && !udp {
            self.moons.values_mut().for_each(|moon| moon.lost(now));
        }
        self.udp_since = udp.then(|| self.udp_since.unwrap_or(now));
        self.run(now);
    }

    /// The machine has another network, or woke up: what was dialled may never answer.
    pub fn network_changed(&mut self, now: Instant) {
        for (key, moon) in &mut self.moons {
            let dialling = moon.lines.extract_if(.., |_, line| *line == Line::Dialling);
            self.dials
                .extend(dialling.map(|(carrier, _)| Dial::Close(*key, carrier)));
            moon.begin(now);
            moon.upgrade = (now + HEAD_START, UPGRADE.0);
        }
        self.run(now);
    }

    /// A peer is wanted, and no moon relays to it.
    pub fn want(&mut self, now: Instant) {
        for moon in self.moons.values_mut() {
            moon.next = moon.next.min(now + WANTED);
        }
        self.run(now);
    }

    /// A connection is open: one that nobody wants any more is closed.
    pub fn opened(&mut self, moon: &WireguardPublicKey, carrier: Carrier, now: Instant) {
        let dialled = self.moons.get_mut(moon);
        match dialled.filter(|moon| moon.lines.contains_key(&carrier)) {
            Some(moon) => moon.opened(carrier, now),
            None => self.dials.push_back(Dial::Close(*moon, carrier)),
        }
        self.run(now);
    }

    /// A connection could not be opened, or is over.
    pub fn ended(&mut self, moon: &WireguardPublicKey, carrier: Carrier, now: Instant) {
        if let Some(moon) = self.moons.get_mut(moon) {
            moon.ended(carrier, now);
        }
        self.run(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When [`Dialler::handle_timeout`] is to be called next; `None`: nothing is scheduled.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.udp_since {
            Some(since) => {
                let any = self.moons.values().any(|moon| !moon.lines.is_empty());
                any.then(|| since + CLOSE_AFTER)
            }
            None => self.moons.values().filter_map(Moon::due).min(),
        }
    }

    /// What is to be done next.
    pub fn poll_dial(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    fn run(&mut self, now: Instant) {
        let held = self.udp_since.map(|since| now >= since + CLOSE_AFTER);
        for (key, moon) in &mut self.moons {
            let unwanted = match held {
                Some(true) => moon.lines.clone(),
                // Those that are open wait for UDP to hold.
                Some(false) => moon.dialling(),
                None => moon.superseded(),
            };
            for carrier in unwanted.into_keys() {
                moon.lines.remove(&carrier);
                self.dials.push_back(Dial::Close(*key, carrier));
            }
            if held.is_none()
                && let Some(carrier) = moon.run(now)
            {
                self.dials.push_back(Dial::Open(*key, carrier));
            }
        }
    }
}

impl Moon {
    fn new(now: Instant) -> Self {
        Self {
            reached: None,
            lines: BTreeMap::new(),
            next: now + HEAD_START,
            pause: PAUSE.0,
            tls_at: None,
            upgrade: (now + UPGRADE.0, UPGRADE.0),
        }
    }

    /// Starts over, as if it had been reached until now.
    fn begin(&mut self, now: Instant) {
        self.next = now + HEAD_START;
        self.pause = PAUSE.0;
    }

    /// UDP has just ceased to reach any moon, and was given its time before that was said.
    fn lost(&mut self, now: Instant) {
        self.begin(now);
        self.next = now;
    }

    fn set_reached(&mut self, reached: Option<Remote>, now: Instant) {
        if self.reached.is_some() {
            self.begin(now);
        }
        if reached.is_some() {
            self.tls_at = None;
        } else if self.reached.is_some() {
            self.doubt_quic(now + QUIC_HEAD_START);
        }
        self.reached = reached;
    }

    /// Has TLS dialled at `at`, if QUIC is open and the moon does not answer by it until then: it may have been open
    /// before UDP ceased to pass.
    fn doubt_quic(&mut self, at: Instant) {
        if self.is(Carrier::Quic, Line::Open) && !self.is(Carrier::Tls, Line::Open) {
            self.tls_at = Some(at);
        }
    }

    fn opened(&mut self, carrier: Carrier, now: Instant) {
        self.lines.insert(carrier, Line::Open);
        if carrier == Carrier::Quic && self.reached.is_none() {
            self.doubt_quic(now + OPENED);
        }
    }

    fn is(&self, carrier: Carrier, line: Line) -> bool {
        self.lines.get(&carrier) == Some(&line)
    }

    fn dialling(&self) -> BTreeMap<Carrier, Line> {
        let lines = self.lines.iter().map(|(carrier, line)| (*carrier, *line));
        lines.filter(|(_, line)| *line == Line::Dialling).collect()
    }

    /// TLS that QUIC has taken the place of, or may still do so.
    fn superseded(&self) -> BTreeMap<Carrier, Line> {
        let by_quic =
            matches!(self.reached, Some(Remote::Stream(id)) if id.carrier == Carrier::Quic);
        let tls = self.lines.get(&Carrier::Tls).filter(|line| {
            let early = **line == Line::Dialling && self.tls_at.is_some();
            self.is(Carrier::Quic, Line::Open) && (early || by_quic)
        });
        tls.map(|line| (Carrier::Tls, *line)).into_iter().collect()
    }

    fn ended(&mut self, carrier: Carrier, now: Instant) {
        let before = self.lines.remove(&carrier);
        if carrier == Carrier::Quic {
            // Nothing to wait for.
            self.tls_at = self.tls_at.map(|at| at.min(now));
        }
        let idle = self.lines.is_empty() && self.tls_at.is_none();
        if idle && before.is_some() {
            self.next = self.after_pause(now);
        }
        // TLS is not to wait for QUIC, which may take long to fail, or is open and as good as not.
        let again = match self.lines.get(&Carrier::Quic) {
            Some(Line::Dialling) => before == Some(Line::Open),
            Some(Line::Open) => before.is_some() && self.reached.is_none(),
            None => false,
        };
        if again {
            self.tls_at = Some(self.after_pause(now));
        }
    }

    fn after_pause(&mut self, now: Instant) -> Instant {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE.1);
        now + pause
    }

    /// What is to be dialled, one at a time: no two are due at once.
    fn run(&mut self, now: Instant) -> Option<Carrier> {
        let mut dial = None;
        if self.tls_at.is_some_and(|at| at <= now) {
            self.tls_at = None;
            dial = Some(Carrier::Tls);
        } else if self.rests() && self.reached.is_none() && self.next <= now {
            self.tls_at = Some(now + QUIC_HEAD_START);
            dial = Some(Carrier::Quic);
        } else if self.may_upgrade() && self.upgrade.0 <= now {
            let pause = (self.upgrade.1 * 2).min(UPGRADE.1);
            self.upgrade = (now + self.upgrade.1, pause);
            dial = Some(Carrier::Quic);
        }
        dial.inspect(|carrier| {
            self.lines.insert(*carrier, Line::Dialling);
        })
    }

    /// Whether nothing is open or under way.
    fn rests(&self) -> bool {
        self.lines.is_empty() && self.tls_at.is_none()
    }

    fn may_upgrade(&self) -> bool {
        self.is(Carrier::Tls, Line::Open) && !self.lines.contains_key(&Carrier::Quic)
    }

    fn due(&self) -> Option<Instant> {
        let next = (self.rests() && self.reached.is_none()).then_some(self.next);
        let upgrade = self.may_upgrade().then_some(self.upgrade.0);
        [next, self.tls_at, upgrade].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
