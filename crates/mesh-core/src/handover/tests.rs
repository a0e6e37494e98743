use proptest::prelude::*;

use super::*;

fn moment() -> impl Strategy<Value = Option<Instant>> {
    prop::option::of((0..=1_000_000u64).prop_map(Instant::from_micros))
}

fn session() -> impl Strategy<Value = SessionRecord> {
    (
        any::<(u32, u32, bool, bool, bool)>(),
        0..=1_000_000u64,
        any::<(u64, u64)>(),
        any::<([u8; 32], [u8; 32])>(),
        any::<u64>(),
    )
        .prop_map(|(facts, established, (counter, end), keys, word)| {
            let (local_index, remote_index, aes, initiator, confirmed) = facts;
            SessionRecord {
                local_index,
                remote_index,
                protocol: match aes {
                    true => Protocol::MeshAes,
                    false => Protocol::Wireguard,
                },
                initiator,
                confirmed,
                established: Instant::from_micros(established),
                counter,
                keys: TransportKeys {
                    send: Zeroizing::new(keys.0),
                    receive: Zeroizing::new(keys.1),
                },
                window: ReplayWindow::from_parts(end, [word; WORDS_USED]),
            }
        })
}

fn peer() -> impl Strategy<Value = PeerRecord> {
    (
        any::<([u8; 32], bool, bool, u64, u64)>(),
        any::<(Option<SocketAddr>, Option<[u8; 12]>)>(),
        prop::array::uniform6(moment()),
        prop::option::of(0..u64::MAX),
        prop::array::uniform5(prop::option::of(session())),
    )
        .prop_map(
            |(facts, (endpoint, highest_stamp), moments, rtt_micros, sessions)| {
                let (key, speaks_mesh, wants_session, sent_bytes, received_bytes) = facts;
                let [wanted, sent, received, unanswered, owes, handshake] = moments;
                // The flow label of an endpoint is nothing that a socket is ever told.
                let endpoint = endpoint.map(|mut endpoint| {
                    if let SocketAddr::V6(v6) = &mut endpoint {
                        v6.set_flowinfo(0);
                    }
                    endpoint
                });
                PeerRecord {
                    key,
                    speaks_mesh,
                    wants_session,
                    endpoint,
                    highest_stamp,
                    wanted,
                    last_data_sent: sent,
                    last_data_received: received,
                    unanswered,
                    owes,
                    last_handshake: handshake.map(|instant| Now {
                        instant,
                        wall: WallTime::from_nanos(sent_bytes),
                    }),
                    rtt_micros,
                    sent_bytes,
                    received_bytes,
                    sessions,
                }
            },
        )
}

fn handover(peers: Vec<PeerRecord>) -> Handover {
    Handover {
        written: Instant::from_micros(1_000_000),
        last_stamp: Stamp::from_nanos(7),
        own: [9; 32],
        peers,
        flows: FlowsRecord {
            keys: [5, 6],
            ours: vec![(7, 1), (8, 0)],
            theirs: vec![(9, 1)],
        },
    }
}

/// The flows of that.
const FLOWS_BYTES: usize = 24 + 3 * 12;

fn a_session(local_index: u32) -> SessionRecord {
    SessionRecord {
        local_index,
        remote_index: 2,
        protocol: Protocol::Wireguard,
        initiator: true,
        confirmed: true,
        established: Instant::from_micros(5),
        counter: 6,
        keys: TransportKeys {
            send: Zeroizing::new([0xaa; 32]),
            receive: Zeroizing::new([0xbb; 32]),
        },
        window: ReplayWindow::new(),
    }
}

#[test]
fn the_layout_is_as_it_is_documented() {
    let mut peer = PeerRecord {
        key: [3; 32],
        ..PeerRecord::default()
    };
    peer.sessions[1] = Some(a_session(0x0102_0304));
    let bytes = handover(vec![peer]).emit();
    assert_eq!(bytes[..16], *b"MESHHAND\0\0\0\x03\0\0\0\x01");
    assert_eq!(bytes[32..64], [9; 32]);
    assert_eq!(bytes[64..96], [3; 32]);
    let sessions = HEADER_BYTES + PEER_BYTES;
    assert_eq!(bytes[sessions..sessions + 6], [0, 1, 1, 2, 3, 4]);
    assert_eq!(bytes[sessions + 2 + 34..][..32], [0xaa; 32]);
    assert_eq!(bytes[sessions + 2 + 66..][..32], [0xbb; 32]);
    let flows = sessions + SESSIONS_MAX + SESSION_BYTES;
    assert_eq!(bytes[flows..flows + 8], 5_u64.to_be_bytes());
    assert_eq!(bytes[flows + 16..flows + 20], 2_u32.to_be_bytes());
    assert_eq!(bytes[flows + 20..flows + 28], 7_u64.to_be_bytes());
    assert_eq!(bytes[flows + 28..flows + 32], 1_u32.to_be_bytes());
    assert_eq!(bytes.len(), flows + FLOWS_BYTES);
}

#[test]
fn another_format_is_named_and_nothing_else_of_it_is_read() {
    let mut bytes = handover(Vec::new()).emit();
    bytes[11] = 9;
    bytes.truncate(12);
    let error = Handover::parse(&bytes).unwrap_err();
    assert_eq!(error, ParseHandoverError::Format(9));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let with = |session, key: u8| {
        let mut peer = PeerRecord {
            key: [key; 32],
            ..PeerRecord::default()
        };
        peer.sessions[2] = session;
        peer
    };
    let refused = |peers| Handover::parse(&handover(peers).emit()).is_err();
    let one = || with(Some(a_session(1)), 1);
    assert!(!refused(vec![one()]));
    // One peer twice, one index twice, a session from the future.
    assert!(refused(vec![one(), with(None, 1)]));
    assert!(refused(vec![one(), with(Some(a_session(1)), 2)]));
    let mut future = a_session(2);
    future.established = Instant::from_micros(1_000_001);
    assert!(refused(vec![with(Some(future), 1)]));
    let mut handover = handover(Vec::new());
    handover.flows.theirs[0].1 = 2;
    assert!(
        Handover::parse(&handover.emit()).is_err(),
        "a flow from the future"
    );
}

#[test]
fn a_false_count_reserves_nothing() {
    let mut bytes = handover(Vec::new()).emit();
    bytes[12..16].fill(0xff);
    let error = Handover::parse(&bytes).unwrap_err();
    assert_eq!(error, ParseHandoverError::Malformed);
    let mut bytes = handover(Vec::new()).emit();
    bytes[HEADER_BYTES + 16..][..4].fill(0xff);
    let error = Handover::parse(&bytes).unwrap_err();
    assert_eq!(error, ParseHandoverError::Malformed);
}

#[test]
fn what_does_not_fit_is_left_out_idle_peers_first() {
    let peer = |n: u32, session: bool| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let mut index = n * 8;
        PeerRecord {
            key,
            sessions: [(); SESSIONS_MAX].map(|()| {
                index += 1;
                session.then(|| a_session(index))
            }),
            ..PeerRecord::default()
        }
    };
    let busy = HANDOVER_BYTES_MAX / (PEER_BYTES + SESSIONS_MAX * (1 + SESSION_BYTES));
    let idle = (0..1000).map(|n| peer(n, false));
    let all = idle.chain((1000..1000 + u32::try_from(busy).unwrap()).map(|n| peer(n, true)));
    let mut handover = handover(all.collect());
    handover.bound();
    let bytes = handover.emit();
    assert!(bytes.len() <= HANDOVER_BYTES_MAX);
    let parsed = Handover::parse(&bytes).unwrap();
    assert!(parsed.peers.len() >= busy - 1);
    assert!(
        parsed.peers[..busy - 10]
            .iter()
            .all(|peer| peer.sessions[1].is_some())
    );
}

#[test]
fn keys_are_never_shown() {
    let shown = format!("{:?}", handover(vec![PeerRecord::default()]));
    assert_eq!(shown, "Handover(1 peers, redacted)");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(peers in prop::collection::vec(peer(), 0..4)) {
        let bytes = handover(peers).emit();
        // Random peers may share an index, which no node's do.
        if let Ok(parsed) = Handover::parse(&bytes) {
            prop_assert_eq!(&parsed.emit()[..], &bytes[..]);
        }
    }

    #[test]
    fn a_damaged_handover_is_refused_or_means_what_it_says(
        peers in prop::collection::vec(peer(), 1..3),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = handover(peers).emit();
        prop_assert!(Handover::parse(&bytes[..cut.index(bytes.len())]).is_err());
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(Handover::parse(&longer).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(parsed) = Handover::parse(&bytes) {
            prop_assert_eq!(&parsed.emit()[..], &bytes[..]);
        }
    }
}
