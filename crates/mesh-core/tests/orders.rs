//! What threads of the data plane share, in all orders in which two or three of them can get at it: the same code, on
//! primitives of a model checker (loom).

mod sync {
    pub(crate) use loom::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    };
}

#[path = "../src/attention.rs"]
mod attention;
#[path = "../src/replay.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "what the crate itself does with it"
)]
mod replay;
#[path = "../src/usage.rs"]
#[expect(dead_code, reason = "what the crate's own tests do with it")]
mod usage;
#[path = "../src/watched.rs"]
mod watched;

use std::sync::Arc;

use attention::AnyAttention;
use loom::{model, thread};
use mesh_types::Instant;
use replay::ReplayWindow;
use usage::Usage;
use watched::{Moment, Watched};

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

#[test]
fn a_beginning_is_told_or_seen() {
    for armed in [false, true] {
        model(move || {
            let watched = Arc::new(Watched::default());
            watched.start(at(1));
            watched.clear();
            let data = thread::spawn({
                let watched = watched.clone();
                move || watched.start(at(2))
            });
            let seen = watched.watch(armed);
            let told = data.join().unwrap();
            // With a timer armed the engine looks again by itself.
            assert!(told || seen.is_some() || armed);
        });
    }
}

#[test]
fn of_two_who_begin_one_sets_the_time_and_one_tells() {
    model(|| {
        let watched = Arc::new(Watched::default());
        let other = thread::spawn({
            let watched = watched.clone();
            move || watched.start(at(1))
        });
        let told = watched.start(at(2));
        assert!(other.join().unwrap() != told);
        assert_eq!(watched.get(), Some(at(if told { 2 } else { 1 })));
    });
}

#[test]
fn what_is_raised_is_looked_at_or_stays_raised() {
    model(|| {
        let any = AnyAttention::default();
        let flags = Arc::new([any.one(), any.one()]);
        let raisers: Vec<_> = (0..2)
            .map(|number| {
                let flags = flags.clone();
                thread::spawn(move || flags[number].raise())
            })
            .collect();
        let mut looked = [false; 2];
        let mut look = || {
            if any.take() {
                for (flag, looked) in flags.iter().zip(&mut looked) {
                    *looked |= flag.take();
                }
            }
        };
        look();
        for raiser in raisers {
            raiser.join().unwrap();
        }
        // Nothing is raised from here on: one more look finds what the first did not.
        look();
        assert_eq!(looked, [true; 2]);
        assert!(!any.is_raised());
    });
}

#[test]
fn the_engine_knows_of_a_beginning_when_it_has_looked_at_what_was_raised() {
    model(|| {
        let any = AnyAttention::default();
        let shared = Arc::new((any.one(), Watched::default()));
        let data = thread::spawn({
            let shared = shared.clone();
            move || {
                let (flag, watched) = &*shared;
                for micros in 1..3 {
                    watched.clear();
                    if watched.start(at(micros)) {
                        flag.raise();
                    }
                }
            }
        });
        let (flag, watched) = &*shared;
        let mut armed = false;
        let look = |armed: &mut bool| {
            if any.take() && flag.take() {
                *armed = watched.watch(*armed).is_some();
            }
        };
        look(&mut armed);
        data.join().unwrap();
        look(&mut armed);
        assert!(armed || watched.watch(false).is_none());
    });
}

#[test]
fn a_moment_that_is_set_is_read_whole() {
    model(|| {
        let moment = Arc::new(Moment::default());
        let setter = thread::spawn({
            let moment = moment.clone();
            move || moment.set(at(u64::MAX - 1))
        });
        assert!([None, Some(at(u64::MAX - 1))].contains(&moment.get()));
        setter.join().unwrap();
    });
}

#[test]
fn no_number_is_given_twice_nor_again_by_the_process_that_follows() {
    model(|| {
        let usage = Arc::new(Usage::new(40, ReplayWindow::new(), true));
        let sealing: Vec<_> = (0..2)
            .map(|_| {
                let usage = usage.clone();
                thread::spawn(move || (!usage.is_retired()).then(|| usage.take_number()))
            })
            .collect();
        let (next, _) = usage.record();
        let mut given: Vec<_> = sealing
            .into_iter()
            .filter_map(|one| one.join().unwrap())
            .collect();
        given.sort_unstable();
        let expected: Vec<_> = (40..).take(given.len()).collect();
        assert_eq!(given, expected);
        // As many as threads that were just sealing: the leap of the process that follows is larger.
        assert!(given.iter().all(|number| *number < next + 2));
        assert!(usage.is_retired() && usage.next() >= next);
    });
}

#[test]
fn a_packet_is_taken_once_by_whichever_process() {
    model(|| {
        let usage = Arc::new(Usage::new(0, ReplayWindow::new(), true));
        let opening: Vec<_> = (0..2)
            .map(|_| {
                let usage = usage.clone();
                thread::spawn(move || usage.accept(7).is_some())
            })
            .collect();
        let (_, mut window) = usage.record();
        let follows = window.take(7).is_some();
        let taken = opening.into_iter().map(|one| one.join().unwrap());
        let taken = taken.filter(|taken| *taken).count() + usize::from(follows);
        assert_eq!(taken, 1);
    });
}

#[test]
fn a_session_is_confirmed_by_one_packet() {
    model(|| {
        let usage = Arc::new(Usage::new(0, ReplayWindow::new(), false));
        let other = thread::spawn({
            let usage = usage.clone();
            move || usage.confirm()
        });
        assert!(usage.confirm() != other.join().unwrap());
        assert!(usage.is_confirmed());
    });
}

#[test]
fn what_was_retired_before_is_retired() {
    model(|| {
        let usage = Arc::new(Usage::new(0, ReplayWindow::new(), true));
        let (told, hears) = loom::sync::mpsc::channel();
        let opening = thread::spawn({
            let usage = usage.clone();
            move || {
                hears.recv().unwrap();
                usage.is_retired() && usage.accept(0).is_none()
            }
        });
        usage.retire();
        told.send(()).unwrap();
        assert!(opening.join().unwrap());
    });
}
