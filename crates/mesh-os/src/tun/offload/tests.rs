use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::{
    header::{Checksum, Kind, Segments},
    transport::{TCP, Transport, UDP, flags},
    *,
};
use crate::{
    link::{InterfaceConfig, Links},
    poll::{Wake, wait_readable},
    tun::{Offload, Tun},
};

const PACKET_BYTES_MAX: usize = 9_000;

/// A large packet as the kernel hands it over: lengths of the whole, and no checksum but the pseudo-header's sum.
fn large(
    is_ipv4: bool,
    protocol: u8,
    payload: &[u8],
    payload_bytes: u16,
    tcp_flags: u8,
) -> Vec<u8> {
    let mut packet = if is_ipv4 {
        let mut header = vec![0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, protocol, 0, 0];
        header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        header
    } else {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        header.extend([0xfd; 16]);
        header.extend([0xfc; 16]);
        header
    };
    let start = packet.len();
    if protocol == TCP {
        // 32 bytes with options; the sequence is about to wrap.
        let header = [
            &[0x10, 0x01, 0x20, 0x02, 0xff, 0xff, 0xf0, 0x00, 0, 0, 0, 7][..],
            &[0x80, tcp_flags, 1, 0, 0, 0, 0, 0],
            &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        ];
        packet.extend(header.concat());
    } else {
        packet.extend([0x10, 0x01, 0x20, 0x02, 0, 0, 0, 0]);
    }
    packet.extend(payload);
    let transport = Transport::at(&packet, is_ipv4, start, protocol).unwrap();
    let bytes = packet.len();
    transport.set_lengths(&mut packet, bytes);
    let sum = transport.pseudo_header(&packet, bytes - start).folded();
    let at = start + transport.checksum_offset();
    packet[at..at + 2].copy_from_slice(&sum);
    let header = Header {
        segments: Some(Segments {
            kind: match (protocol, is_ipv4) {
                (TCP, true) => Kind::TcpV4,
                (TCP, false) => Kind::TcpV6,
                _ => Kind::Udp,
            },
            header_bytes: u16::try_from(transport.payload).unwrap(),
            payload_bytes,
        }),
        checksum: Some(Checksum {
            start: u16::try_from(start).unwrap(),
            offset: u16::try_from(transport.checksum_offset()).unwrap(),
        }),
    };
    [&header.emit()[..], &packet].concat()
}

/// All packets that an input is cut into, by batches of a few.
fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut batch = PacketBatch::new(5, PACKET_BYTES_MAX, 3, 2);
    let mut input = Input::default();
    input.room()[..bytes.len()].copy_from_slice(bytes);
    input.take(bytes.len(), &mut batch);
    let mut packets = Vec::new();
    while !batch.is_empty() {
        packets.extend(batch.packets().map(|slot| slot[3..slot.len() - 2].to_vec()));
        batch.clear();
        input.resume(&mut batch);
    }
    packets
}

/// What is handed to the kernel for these packets.
fn joined(packets: &[Vec<u8>], joins_udp: bool) -> Vec<Vec<u8>> {
    let mut writes = Vec::new();
    let mut counted = 0;
    let mut write = |count: usize, parts: &[IoSlice<'_>]| -> io::Result<()> {
        counted += count;
        writes.push(parts.iter().flat_map(|part| part.to_vec()).collect());
        Ok(())
    };
    let mut joiner = Joiner::new(joins_udp);
    for packet in packets {
        joiner.push(packet, &mut write).unwrap();
    }
    joiner.flush(&mut write).unwrap();
    assert_eq!(counted, packets.len());
    writes
}

fn is_whole(packet: &[u8]) -> bool {
    let Some(transport) = Transport::of(packet) else {
        return false;
    };
    transport
        .pseudo_header(packet, packet.len() - transport.start)
        .with(&packet[transport.start..])
        .is_whole()
}

fn payload(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

#[test]
fn a_large_packet_becomes_what_its_connection_would_have_sent() {
    let data = payload(3_500);
    let tcp_flags = flags::CWR | flags::ACK | flags::PSH | flags::FIN;
    let packets = cut(&large(true, TCP, &data, 1_000, tcp_flags));
    assert_eq!(packets.len(), 4);
    let (first, last) = (&packets[0], &packets[3]);
    assert!(packets.iter().all(|packet| is_whole(packet)));
    assert_eq!(first[33], flags::CWR | flags::ACK);
    assert_eq!(packets[1][33], flags::ACK);
    assert_eq!(last[33], flags::ACK | flags::PSH | flags::FIN);
    // The numbers go round.
    assert_eq!(
        (&first[4..6], &packets[1][4..6]),
        (&[0xff; 2][..], &[0; 2][..])
    );
    assert_eq!(first[24..28], [0xff, 0xff, 0xf0, 0x00]);
    assert_eq!(
        packets[2][24..28],
        0xffff_f000_u32.wrapping_add(2_000).to_be_bytes()
    );
    assert_eq!(last.len(), 52 + 500);
    let payloads: Vec<u8> = packets
        .iter()
        .flat_map(|packet| packet[52..].to_vec())
        .collect();
    assert_eq!(payloads, data);
}

#[test]
fn what_the_kernel_says_wrongly_is_dropped() {
    let good = large(false, TCP, &payload(3_000), 1_000, flags::ACK);
    assert_eq!(cut(&good).len(), 3);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        cut(&bytes).len()
    };
    assert_eq!(with(0, 0), 0, "no checksum left out");
    assert_eq!(with(1, 1), 0, "IPv4's kind");
    assert_eq!(with(6, 41), 0, "TCP at another place");
    assert_eq!(with(7, 0xff), 0, "TCP behind the end");
    assert_eq!(with(HEADER_BYTES, 0x10), 0, "no IP");
    assert_eq!(
        with(HEADER_BYTES + 40 + 12, 0x40),
        0,
        "a TCP header of 16 bytes"
    );
    let mut endless = good.clone();
    endless[4..6].fill(0);
    assert_eq!(cut(&endless).len(), 0, "packets without payload");
    let huge = large(false, TCP, &payload(20_000), 10_000, flags::ACK);
    assert_eq!(cut(&huge).len(), 0, "longer than the device's packets");
    for length in 0..good.len().min(120) {
        cut(&good[..length]);
    }
}

#[test]
fn only_what_follows_is_joined() {
    let packets = cut(&large(true, TCP, &payload(5_000), 1_000, flags::ACK));
    let count = |packets: &[Vec<u8>]| joined(packets, true).len();
    assert_eq!(count(&packets), 1);
    let changed = |index: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packets = packets.clone();
        change(&mut packets[index]);
        let transport = Transport::at(&packets[index], true, 20, TCP).unwrap();
        let bytes = packets[index].len();
        transport.set_lengths(&mut packets[index], bytes);
        transport.set_checksum(&mut packets[index]);
        count(&packets)
    };
    assert_eq!(changed(2, &|_| {}), 1);
    assert_eq!(
        changed(2, &|packet| packet[1] = 3),
        3,
        "another traffic class: 2, 1, 2"
    );
    assert_eq!(changed(2, &|packet| packet[8] = 9), 3, "another hop limit");
    assert_eq!(changed(2, &|packet| packet[35] = 9), 3, "another window");
    assert_eq!(changed(2, &|packet| packet[33] |= flags::PSH), 2, "3, 2");
    assert_eq!(changed(2, &|packet| packet[33] |= flags::FIN), 3, "2, 1, 2");
    assert_eq!(changed(2, &|packet| packet[27] ^= 1), 3, "another sequence");
    assert_eq!(
        changed(2, &|packet| packet.truncate(600)),
        2,
        "a short one ends"
    );
    assert_eq!(changed(2, &|packet| packet[6] = 0x20), 3, "a fragment");
    let mut damaged = packets.clone();
    damaged[2][100] ^= 1;
    let writes = joined(&damaged, true);
    assert!(
        writes
            .iter()
            .any(|write| write[HEADER_BYTES..] == damaged[2][..])
    );
    let mut swapped = packets.clone();
    swapped.swap(1, 3);
    assert_eq!(joined(&swapped, true).len(), 5);
}

#[test]
fn connections_side_by_side_are_joined_each_in_its_order() {
    let of = |port: u8| {
        let mut bytes = large(false, TCP, &payload(4_000), 1_000, flags::ACK);
        bytes[HEADER_BYTES + 41] = port;
        // The sum of the pseudo-header does not have the port.
        cut(&bytes)
    };
    let flows: Vec<_> = (0..10).map(of).collect();
    let mixed: Vec<_> = (0..4)
        .flat_map(|index| flows.iter().map(move |flow| flow[index].clone()))
        .collect();
    assert_eq!(
        joined(&mixed[..8 * 4], true).len(),
        32,
        "ten at once are too many"
    );
    let eight: Vec<_> = (0..4)
        .flat_map(|index| flows[..8].iter().map(move |flow| flow[index].clone()))
        .collect();
    assert_eq!(joined(&eight, true).len(), 8);
}

#[test]
fn udp_is_joined_where_the_kernel_takes_it() {
    let packets = cut(&large(true, UDP, &payload(2_500), 1_000, 0));
    assert_eq!(packets.len(), 3);
    assert!(packets.iter().all(|packet| is_whole(packet)));
    assert_eq!(joined(&packets, true).len(), 1);
    assert_eq!(joined(&packets, false).len(), 3);
    let mut without_checksum = packets.clone();
    without_checksum[1][26..28].fill(0);
    assert_eq!(joined(&without_checksum, true).len(), 3);
}

proptest! {
    #[test]
    fn cut_and_joined_and_cut_again_is_the_same(
        is_ipv4: bool,
        protocol in prop_oneof![Just(TCP), Just(UDP)],
        length in 1usize..60_000,
        payload_bytes in 900u16..8_000,
        pushed: bool,
    ) {
        let tcp_flags = if pushed { flags::ACK | flags::PSH } else { flags::ACK };
        let packets = cut(&large(is_ipv4, protocol, &payload(length), payload_bytes, tcp_flags));
        prop_assert_eq!(packets.len(), length.div_ceil(payload_bytes.into()));
        prop_assert!(packets.iter().all(|packet| is_whole(packet)));
        let writes = joined(&packets, true);
        prop_assert_eq!(writes.len(), packets.len().div_ceil(64));
        let again: Vec<_> = writes.iter().flat_map(|write| cut(write)).collect();
        prop_assert_eq!(again, packets);
    }

    #[test]
    fn no_bytes_from_the_device_or_the_network_do_harm(
        header in prop::array::uniform10(0u8..12),
        mut packet in prop::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45), Just(0x46), Just(0x4f), Just(0x60)],
    ) {
        if let Some(first) = packet.first_mut() {
            *first = version;
        }
        cut(&[&header[..], &packet].concat());
        joined(&[packet.clone(), packet], true);
    }
}

const HERE: usize = 0;
const THERE: usize = 1;
const PORT: u16 = 7000;

fn addresses(side: usize) -> [IpAddr; 2] {
    let last = u8::try_from(side + 1).unwrap();
    [
        Ipv4Addr::new(10, 9, 0, last).into(),
        Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, last.into()).into(),
    ]
}

/// Does `act` in a network of its own with a device of this kind in it, which it hands out first.
fn in_network<T: Send + 'static>(
    side: usize,
    offload: Offload,
    act: impl FnOnce() -> T + Send + 'static,
) -> Option<(Tun, thread::JoinHandle<T>)> {
    let (give, device) = mpsc::channel();
    let handle = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).ok().map(|()| {
            let tun = Tun::create("mesh0", offload, 1).unwrap();
            let config = InterfaceConfig {
                mtu: 1_400,
                addresses: addresses(side).to_vec(),
                routes: [
                    ("10.9.0.0/16".parse().unwrap(), 1_400),
                    ("fd01::/48".parse().unwrap(), 1_400),
                ]
                .into(),
            };
            Links::open()
                .unwrap()
                .configure(tun.index(), &config)
                .unwrap();
            give.send(tun).unwrap();
            act()
        })
    });
    match device.recv() {
        Ok(tun) => Some((tun, thread::spawn(|| handle.join().unwrap().unwrap()))),
        Err(_) => {
            println!("skipped: no network namespace");
            None
        }
    }
}

/// Carries packets from one device to the other; returns how many, and in how many batches.
fn carry(
    from: &Tun,
    to: &Tun,
    stop: &Wake,
    stopped: &std::sync::atomic::AtomicBool,
) -> (usize, usize) {
    let mut batch = PacketBatch::new(64, 1_400, 0, 0);
    let (mut packets, mut batches) = (0, 0);
    while !stopped.load(std::sync::atomic::Ordering::Acquire) {
        if from.queues()[0].recv(&mut batch).unwrap() == 0 {
            wait_readable(&from.queues()[0], stop, None).unwrap();
            continue;
        }
        batches += 1;
        packets += batch.len();
        assert!(batch.packets().all(|packet| packet.len() <= 1_400));
        let packets: Vec<Vec<u8>> = batch.packets().map(|packet| packet.to_vec()).collect();
        to.send(packets.iter().map(|packet| &packet[..])).unwrap();
    }
    (packets, batches)
}

/// Sends data by TCP over both families, and datagrams, through two devices, and looks whether it comes whole.
fn transfer(here: Offload, there: Offload) -> Option<(usize, usize)> {
    const BYTES: usize = 8 << 20;
    let data = || -> Vec<u8> {
        let block: Vec<u8> = (0..=u8::MAX).map(|byte| byte.wrapping_mul(73)).collect();
        let blocks = (0..BYTES / 256).flat_map(|index: usize| {
            let first = index.to_be_bytes()[7];
            block.iter().map(move |byte| byte ^ first)
        });
        blocks.collect()
    };
    let (ready, is_ready) = mpsc::channel();
    let receive = move || {
        let listeners = addresses(THERE).map(|address| TcpListener::bind((address, PORT)).unwrap());
        let socket = UdpSocket::bind((addresses(THERE)[0], PORT)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        ready.send(()).unwrap();
        for listener in listeners {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(received == data(), "what comes is what was sent");
        }
        // Datagrams of one length, which the kernel may have been given as one, and a shorter one.
        for length in [1_000, 1_000, 1_000, 10] {
            let mut buffer = [0; 2_000];
            let (received, _) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..received], payload(length)[..]);
        }
    };
    let send = move || {
        for address in addresses(THERE) {
            let mut stream = TcpStream::connect_timeout(
                &SocketAddr::new(address, PORT),
                Duration::from_secs(20),
            )
            .unwrap();
            stream.write_all(&data()).unwrap();
            // Until all has come and the other end closes: a queue full of the stream drops datagrams.
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        let socket = UdpSocket::bind((addresses(HERE)[0], 0)).unwrap();
        let datagrams = [payload(1_000), payload(1_000), payload(1_000), payload(10)].concat();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1_000)
            .unwrap();
        socket
            .send_to(&datagrams, (addresses(THERE)[0], PORT))
            .unwrap();
    };
    let (there, receiving) = in_network(THERE, there, receive)?;
    is_ready.recv().unwrap();
    let (here, sending) = in_network(HERE, here, send)?;
    let (stop, stopped) = (
        Wake::new().unwrap(),
        std::sync::atomic::AtomicBool::new(false),
    );
    thread::scope(|scope| {
        let forth = scope.spawn(|| carry(&here, &there, &stop, &stopped));
        let back = scope.spawn(|| carry(&there, &here, &stop, &stopped));
        let sent = sending.join();
        let received = receiving.join();
        stopped.store(true, std::sync::atomic::Ordering::Release);
        stop.wake();
        sent.unwrap();
        received.unwrap();
        back.join().unwrap();
        Some(forth.join().unwrap())
    })
}

#[test]
fn data_comes_whole_through_devices_of_every_kind() {
    for (here, there) in [
        (Offload::TcpAndUdp, Offload::TcpAndUdp),
        (Offload::Tcp, Offload::None),
        (Offload::None, Offload::Tcp),
    ] {
        let Some((packets, batches)) = transfer(here, there) else {
            return;
        };
        println!("{here:?} to {there:?}: {packets} packets in {batches} batches");
    }
}
