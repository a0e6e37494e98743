//! When to start which program, and what to make of how it went. Pure: knows no process and no clock.
//!
//! ```text
//!            start                 ready            upgrade              its end
//!  Waiting ───────> Starting ───────────> Running ───────────> Stopping ───────> Starting (installed)
//!     ^                │  end, or too late   │ end                                  │ end, or too late
//!     └────────────────┴─────────────────────┘                 Starting (previous) <┘
//! ```

use std::time::Duration;

use mesh_types::Instant;

/// How long a program may take until it is ready. A first start waits 5 s for a roster.
pub(crate) const READY_PATIENCE: Duration = Duration::from_secs(30);

/// How long a program may take to end; then it is killed.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// An upgrade counts when the installed program has been ready for so long.
pub(crate) const PROBATION: Duration = Duration::from_secs(3);

/// A program that is ready and has not shown for so long that it is alive is killed.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

/// How soon a program that ended is started again: at once, and later the more often it ends.
const FIRST_RESTART: Duration = Duration::from_millis(100);
const LAST_RESTART: Duration = Duration::from_secs(30);

/// One that ran for so long is not one that cannot run.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The one at the path.
    Installed,
    /// The one that was last found good, kept aside.
    Previous,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the program.
    Start(Program),
    /// Ask it to end.
    Terminate,
    /// End it on the spot.
    Kill,
    /// Tell whoever asked for the upgrade.
    Report(Outcome),
    /// The installed program is good: keep a copy.
    Keep,
    /// Close what is kept, and end.
    Finish,
}

/// How an upgrade went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The installed program runs.
    Upgraded,
    /// It ended.
    Ended,
    /// It was not ready in time.
    TooLate,
    /// It is the program that runs.
    Same,
    /// The supervisor itself is being stopped.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing runs; the program is started at this time.
    Waiting(Instant),
    /// It was started and is not ready yet.
    Starting { deadline: Instant },
    /// It is ready.
    Running { since: Instant },
    /// It was asked to end; at the deadline it is killed.
    Stopping { deadline: Instant, then: Then },
    /// Over.
    Finished,
}

/// What follows the end of a program that was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Start(Program),
    Finish,
}

/// Looks after one program at a time.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    program: Program,
    /// Whether there is a copy of a program that was found good.
    has_previous: bool,
    /// The program that runs has been ready for long enough.
    proven: bool,
    /// An upgrade is under way, and has not been reported.
    upgrading: bool,
    failures: u32,
    watchdog: Option<Instant>,
}

impl Machine {
    /// Nothing runs yet; there may be a copy of a program that was found good at another time.
    pub(crate) const fn new(has_previous: bool, now: Instant) -> Self {
        Self {
            state: State::Waiting(now),
            program: Program::Installed,
            has_previous,
            proven: false,
            upgrading: false,
            failures: 0,
            watchdog: None,
        }
    }

    /// Whether an upgrade may begin.
    pub(crate) const fn may_upgrade(&self) -> bool {
        !self.upgrading
            && matches!(
                self.state,
                State::Running { .. } | State::Waiting(_) | State::Starting { .. }
            )
    }

    /// The installed program passed its self-check and is to run.
    pub(crate) fn upgrade(&mut self, now: Instant) -> Vec<Action> {
        if !self.may_upgrade() {
            return Vec::new();
        }
        self.upgrading = true;
        self.failures = 0;
        match self.state {
            State::Waiting(_) => self.start(Program::Installed, now),
            State::Starting { .. } | State::Running { .. } => {
                self.stop(Then::Start(Program::Installed), now)
            }
            State::Stopping { .. } | State::Finished => Vec::new(),
        }
    }

    /// The program says that it is ready; whether it does for the first time.
    pub(crate) fn ready(&mut self, now: Instant) -> bool {
        let first = matches!(self.state, State::Starting { .. });
        if first {
            self.state = State::Running { since: now };
            self.alive(now);
        }
        first
    }

    /// There is a copy of the program that runs.
    pub(crate) const fn kept(&mut self) {
        self.has_previous = true;
    }

    /// The program shows that it is alive.
    pub(crate) fn alive(&mut self, now: Instant) {
        self.watchdog = Some(now + WATCHDOG);
    }

    /// The program ended.
    pub(crate) fn ended(&mut self, now: Instant) -> Vec<Action> {
        self.watchdog = None;
        match self.state {
            State::Starting { .. } => self.failed(Outcome::Ended, now),
            State::Running { since } => {
                if self.upgrading {
                    return self.failed(Outcome::Ended, now);
                }
                if now.saturating_since(since) >= SOUND_AFTER {
                    self.failures = 0;
                }
                self.wait(now)
            }
            State::Stopping { then, .. } => match then {
                Then::Start(program) => self.start(program, now),
                Then::Finish => self.finish(),
            },
            State::Waiting(_) | State::Finished => Vec::new(),
        }
    }

    /// The supervisor is to end, and the program with it.
    pub(crate) fn terminate(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Waiting(_) => self.finish(),
            State::Starting { .. } | State::Running { .. } => self.stop(Then::Finish, now),
            State::Stopping { deadline, .. } => {
                let then = Then::Finish;
                self.state = State::Stopping { deadline, then };
                Vec::new()
            }
            State::Finished => Vec::new(),
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        match self.state {
            State::Waiting(_) => self.start(self.program, now),
            State::Starting { .. } if self.upgrading => {
                // Its end is no second failure.
                self.upgrading = false;
                let mut actions = vec![Action::Report(Outcome::TooLate)];
                actions.extend(self.stop(Then::Start(self.fallback()), now));
                actions
            }
            State::Starting { .. } => {
                let then = Then::Start(self.program);
                self.stop(then, now)
            }
            State::Running { .. } if self.watchdog.is_some_and(|at| at <= now) => {
                self.watchdog = None;
                vec![Action::Kill]
            }
            State::Running { .. } => self.passed_probation(),
            State::Stopping { then, .. } => {
                let deadline = now + STOP_PATIENCE;
                self.state = State::Stopping { deadline, then };
                vec![Action::Kill]
            }
            State::Finished => Vec::new(),
        }
    }

    /// When [`Machine::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Starting { deadline } | State::Stopping { deadline, .. } => Some(deadline),
            State::Running { since } => {
                let unproven = self.program == Program::Installed && !self.proven;
                let probation = unproven.then(|| since + PROBATION);
                [probation, self.watchdog].into_iter().flatten().min()
            }
            State::Finished => None,
        }
    }

    fn passed_probation(&mut self) -> Vec<Action> {
        self.proven = true;
        let mut actions = vec![Action::Keep];
        if std::mem::take(&mut self.upgrading) {
            actions.push(Action::Report(Outcome::Upgraded));
        }
        actions
    }

    /// The program did not make it.
    fn failed(&mut self, outcome: Outcome, now: Instant) -> Vec<Action> {
        if !std::mem::take(&mut self.upgrading) {
            return self.wait(now);
        }
        let mut actions = vec![Action::Report(outcome)];
        actions.extend(self.start(self.fallback(), now));
        actions
    }

    const fn fallback(&self) -> Program {
        if self.has_previous {
            Program::Previous
        } else {
            Program::Installed
        }
    }

    fn start(&mut self, program: Program, now: Instant) -> Vec<Action> {
        self.program = program;
        self.proven = false;
        self.watchdog = None;
        self.state = State::Starting {
            deadline: now + READY_PATIENCE,
        };
        vec![Action::Start(program)]
    }

    fn stop(&mut self, then: Then, now: Instant) -> Vec<Action> {
        self.state = State::Stopping {
            deadline: now + STOP_PATIENCE,
            then,
        };
        vec![Action::Terminate]
    }

    fn wait(&mut self, now: Instant) -> Vec<Action> {
        let pause = FIRST_RESTART.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(now + pause.min(LAST_RESTART));
        Vec::new()
    }

    fn finish(&mut self) -> Vec<Action> {
        self.state = State::Finished;
        let report =
            std::mem::take(&mut self.upgrading).then_some(Action::Report(Outcome::Stopped));
        report.into_iter().chain([Action::Finish]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    /// A machine whose program has been running, and was found good, by 5 s.
    fn running() -> Machine {
        let mut machine = Machine::new(false, at(0));
        assert_eq!(
            machine.handle_timeout(at(0)),
            [Action::Start(Program::Installed)]
        );
        assert!(machine.ready(at(100)));
        assert!(!machine.ready(at(101)));
        assert_eq!(machine.handle_timeout(at(3_099)), []);
        assert_eq!(machine.handle_timeout(at(3_100)), [Action::Keep]);
        machine.kept();
        assert_eq!(machine.poll_timeout(), Some(at(100) + WATCHDOG));
        machine
    }

    #[test]
    fn a_program_that_ends_is_started_again_ever_later() {
        let mut machine = running();
        let mut now = at(5_000);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert_eq!(machine.ended(now), []);
            let next = machine.poll_timeout().unwrap();
            pauses.push(next.saturating_since(now).as_millis());
            assert_eq!(
                machine.handle_timeout(next),
                [Action::Start(Program::Installed)]
            );
            now = next;
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 30_000);
        machine.ready(now);
        now = now + SOUND_AFTER;
        machine.ended(now);
        let next = machine.poll_timeout().unwrap();
        assert_eq!(next.saturating_since(now), FIRST_RESTART);
    }

    #[test]
    fn an_upgrade_stops_the_old_program_and_reports_when_the_new_one_has_proven_itself() {
        let mut machine = running();
        assert_eq!(machine.upgrade(at(6_000)), [Action::Terminate]);
        assert_eq!(machine.upgrade(at(6_000)), [], "one at a time");
        assert_eq!(
            machine.ended(at(6_050)),
            [Action::Start(Program::Installed)]
        );
        machine.ready(at(6_100));
        assert_eq!(machine.handle_timeout(at(8_000)), []);
        let good = [Action::Keep, Action::Report(Outcome::Upgraded)];
        assert_eq!(machine.handle_timeout(at(9_100)), good);
        assert!(machine.may_upgrade());
    }

    #[test]
    fn a_new_program_that_ends_early_or_late_gives_way_to_the_old_one() {
        for ready in [false, true] {
            let mut machine = running();
            machine.upgrade(at(6_000));
            machine.ended(at(6_050));
            if ready {
                machine.ready(at(6_100));
            }
            let back = [
                Action::Report(Outcome::Ended),
                Action::Start(Program::Previous),
            ];
            assert_eq!(machine.ended(at(6_200)), back);
            machine.ready(at(6_300));
            assert_eq!(
                machine.poll_timeout(),
                Some(at(6_300) + WATCHDOG),
                "the old one need not be kept again"
            );
            // It stays with the old one until the next upgrade.
            machine.ended(at(90_000));
            let next = machine.poll_timeout().unwrap();
            assert_eq!(
                machine.handle_timeout(next),
                [Action::Start(Program::Previous)]
            );
            assert_eq!(machine.upgrade(next), [Action::Terminate]);
            assert_eq!(machine.ended(next), [Action::Start(Program::Installed)]);
        }
    }

    #[test]
    fn a_new_program_that_is_never_ready_is_ended_for_the_old_one() {
        let mut machine = running();
        machine.upgrade(at(6_000));
        machine.ended(at(6_000));
        assert_eq!(machine.handle_timeout(at(35_999)), []);
        let late = [Action::Report(Outcome::TooLate), Action::Terminate];
        assert_eq!(machine.handle_timeout(at(36_000)), late);
        assert_eq!(
            machine.handle_timeout(at(46_000)),
            [Action::Kill],
            "it does not even end"
        );
        assert_eq!(
            machine.ended(at(46_001)),
            [Action::Start(Program::Previous)]
        );
    }

    #[test]
    fn without_a_program_found_good_there_is_nothing_to_fall_back_to() {
        let mut machine = Machine::new(false, at(0));
        machine.handle_timeout(at(0));
        assert_eq!(machine.upgrade(at(10)), [Action::Terminate]);
        assert_eq!(machine.ended(at(20)), [Action::Start(Program::Installed)]);
        let again = [
            Action::Report(Outcome::Ended),
            Action::Start(Program::Installed),
        ];
        assert_eq!(machine.ended(at(30)), again);
    }

    #[test]
    fn the_end_of_the_supervisor_is_the_end_of_the_program() {
        let mut machine = running();
        assert_eq!(machine.terminate(at(6_000)), [Action::Terminate]);
        assert!(!machine.may_upgrade());
        assert_eq!(machine.handle_timeout(at(16_000)), [Action::Kill]);
        assert_eq!(machine.ended(at(16_001)), [Action::Finish]);
        assert_eq!(machine.poll_timeout(), None);

        // In the midst of an upgrade, and while nothing runs.
        let mut machine = running();
        machine.upgrade(at(6_000));
        assert_eq!(machine.terminate(at(6_001)), []);
        let end = [Action::Report(Outcome::Stopped), Action::Finish];
        assert_eq!(machine.ended(at(6_002)), end);
        let mut machine = Machine::new(false, at(0));
        assert_eq!(machine.terminate(at(0)), [Action::Finish]);
    }

    #[test]
    fn a_program_that_hangs_from_the_first_moment_is_killed() {
        let mut machine = running();
        assert_eq!(machine.handle_timeout(at(30_099)), []);
        assert_eq!(machine.handle_timeout(at(30_100)), [Action::Kill]);
    }

    #[test]
    fn a_program_that_stops_showing_its_watchdog_is_killed() {
        let mut machine = running();
        machine.alive(at(6_000));
        assert_eq!(machine.handle_timeout(at(35_999)), []);
        machine.alive(at(35_999));
        assert_eq!(machine.handle_timeout(at(36_000)), []);
        assert_eq!(machine.handle_timeout(at(65_999)), [Action::Kill]);
        assert_eq!(machine.ended(at(66_000)), []);
        assert!(machine.poll_timeout().is_some(), "and started again");
    }
}
