//! A day of traffic in two directions: sessions follow each other by the hundred, and what comes out is what was put in.

use std::{collections::HashMap, time::Duration};

use mesh_core::{Event, Protocol};
use mesh_testkit::{LinkQuality, Network};

const DAY: u64 = 24 * 60 * 60;

/// Between two packets of one direction, in seconds.
const PACE: u64 = 1;

/// WireGuard's: a session in use is followed by another after so many seconds.
const REKEY_AFTER: u64 = 120;

/// What came out of one direction.
#[derive(Default)]
struct Direction {
    /// What was put in and did not come out yet, with its number.
    flying: HashMap<Vec<u8>, u64>,
    sent: u64,
    delivered: u64,
    /// Packets that came out behind one that was put in after them.
    overtaken: u64,
    newest: u64,
}

impl Direction {
    fn put_in(&mut self, packet: Vec<u8>) {
        self.sent += 1;
        assert!(
            self.flying.insert(packet, self.sent).is_none(),
            "each is another"
        );
    }

    fn comes_out(&mut self, packet: &[u8]) {
        let number = self
            .flying
            .remove(packet)
            .expect("put in as it is, and not come out before");
        self.delivered += 1;
        self.overtaken += u64::from(number < self.newest);
        self.newest = self.newest.max(number);
    }
}

/// Lets a day pass; returns what became of each direction and how many sessions there were.
fn a_day(protocol: Protocol, quality: LinkQuality) -> ([Direction; 2], usize) {
    let mut network = Network::pair_with(1, true, protocol);
    network.quality = quality;
    let mut directions = <[Direction; 2]>::default();
    let mut sessions = 0;
    for _ in 0..DAY / PACE {
        for (from, direction) in directions.iter_mut().enumerate() {
            direction.put_in(network.send(from, 1 - from));
        }
        network.run_for(Duration::from_secs(PACE));
        for (from, direction) in directions.iter_mut().enumerate() {
            for delivered in network.nodes[1 - from].delivered.drain(..) {
                direction.comes_out(&delivered.packet);
            }
        }
        network.nodes[1].events.clear();
        let events = network.take_events(0).into_iter();
        sessions += events
            .filter(|event| matches!(event, Event::SessionEstablished { .. }))
            .count();
    }
    let key = network.key(1);
    let view = network.nodes[0].engine.peer(&key, network.now);
    assert_eq!(view.and_then(|view| view.protocol), Some(protocol));
    (directions, sessions)
}

#[test]
fn on_a_network_that_keeps_the_order_a_day_of_rekeys_loses_nothing_and_keeps_it() {
    for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
        let (directions, sessions) = a_day(protocol, LinkQuality::default());
        assert!(
            sessions as u64 >= DAY / REKEY_AFTER - 1,
            "{sessions} sessions"
        );
        for direction in directions {
            assert_eq!(direction.delivered, direction.sent);
            assert_eq!(direction.overtaken, 0);
        }
    }
}

#[test]
fn on_a_bad_network_a_day_of_rekeys_changes_no_packet_and_delivers_none_twice() {
    for protocol in [Protocol::Wireguard, Protocol::MeshAes] {
        let quality = LinkQuality {
            latency: Duration::from_millis(20),
            // Above the pace: neighbours change places.
            jitter: Duration::from_secs(PACE + 1),
            loss_percent: 5,
            duplicate_percent: 5,
        };
        let (directions, sessions) = a_day(protocol, quality);
        assert!(
            sessions as u64 >= DAY / REKEY_AFTER / 2,
            "{sessions} sessions"
        );
        for direction in directions {
            assert!(
                direction.delivered >= direction.sent * 93 / 100,
                "{} of {}",
                direction.delivered,
                direction.sent
            );
            assert!(direction.overtaken > direction.sent / 50);
        }
    }
}
