//! Against this machine's kernel, in a network namespace of the test's own thread.

use std::{net::UdpSocket, thread};

use netlink_packet_route::link::{InfoData, InfoVeth};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::{
    link::{InterfaceConfig, NetworkChanges},
    poll::{Wake, wait_readable},
    tun::{Offload, PacketBatch, Tun},
};

/// Runs `test` in an empty network namespace; skips it where none can be made.
fn in_namespace(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => test(),
            Err(error) => println!("skipped: no network namespace ({error})"),
        });
    });
}

fn config(addresses: &[&str], routes: &[&str]) -> InterfaceConfig {
    InterfaceConfig {
        mtu: 1280,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        routes: routes
            .iter()
            .map(|text| (text.parse().unwrap(), 1280))
            .collect(),
    }
}

#[test]
fn an_interface_gets_exactly_its_configuration_and_vanishes_with_its_owner() {
    in_namespace(|| {
        let tun = Tun::create("mesh%d", Offload::default(), 1).unwrap();
        assert_eq!(tun.name(), "mesh0");
        let mut links = Links::open().unwrap();
        let first = config(&["fd01::1", "10.9.0.1"], &["fd01::/48", "10.9.0.0/16"]);
        links.configure(tun.index(), &first).unwrap();
        links.configure(tun.index(), &first).unwrap();
        let mut addresses = links.addresses(tun.index()).unwrap();
        addresses.sort();
        let expected: [IpNet; 2] = [
            "10.9.0.1/32".parse().unwrap(),
            "fd01::1/128".parse().unwrap(),
        ];
        assert_eq!(addresses, expected);

        let second = config(&["fd01::2"], &["fd01::/48"]);
        links.configure(tun.index(), &second).unwrap();
        let address: IpNet = "fd01::2/128".parse().unwrap();
        assert_eq!(links.addresses(tun.index()).unwrap(), [address]);
        let mut routes = links.routes(tun.index()).unwrap();
        routes.retain(|route| *route != address);
        assert_eq!(routes, ["fd01::/48".parse().unwrap()]);

        // The route leaves with the new address.
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.connect("[fd01::9]:9").unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), address.addr());

        drop(tun);
        assert_eq!(Links::index_of("mesh0"), None);
    });
}

#[test]
fn an_address_can_be_bound_at_once() {
    in_namespace(|| {
        for attempt in 0..20 {
            let tun = Tun::create("mesh0", Offload::default(), 1).unwrap();
            let only = config(&["fd01::1"], &["fd01::/48"]);
            Links::open()
                .unwrap()
                .configure(tun.index(), &only)
                .unwrap();
            UdpSocket::bind("[fd01::1]:0").unwrap_or_else(|error| panic!("{attempt}: {error}"));
        }
    });
}

#[test]
fn packets_pass_between_the_kernel_and_the_device() {
    in_namespace(|| {
        let tun = Tun::create("mesh0", Offload::default(), 1).unwrap();
        let only = config(&["fd01::1"], &["fd01::/48"]);
        Links::open()
            .unwrap()
            .configure(tun.index(), &only)
            .unwrap();
        let socket = UdpSocket::bind("[fd01::1]:0").unwrap();
        for text in [b"one", b"two", b"six"] {
            socket.send_to(text, "[fd01::9]:9").unwrap();
        }
        let wake = Wake::new().unwrap();
        let mut batch = PacketBatch::new(8, 1280, 16, 16);
        let mut received = Vec::new();
        while received.len() < 3 {
            assert!(wait_readable(&tun.queues()[0], &wake, None).unwrap().ready);
            tun.queues()[0].recv(&mut batch).unwrap();
            let packets = batch.packets().map(|p| p[16..p.len() - 16].to_vec());
            // The kernel may speak of its multicast groups in between.
            received.extend(packets.filter(|packet| packet[6] == 17));
        }
        let texts: Vec<_> = received.iter().map(|packet| &packet[48..]).collect();
        assert_eq!(texts, [b"one", b"two", b"six"]);

        // Sent back with its addresses and ports swapped, which the checksum does not notice.
        let answers: Vec<_> = received.iter().map(|packet| swapped(packet)).collect();
        let sent = tun.send(answers.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(sent, 3);
        // The socket's port is what the kernel chose; it accepts from anyone.
        let mut text = [0; 8];
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let (length, from) = socket.recv_from(&mut text).unwrap();
        assert_eq!(&text[..length], b"one");
        assert_eq!(from, "[fd01::9]:9".parse().unwrap());

        // Garbage is not taken, and the device goes on.
        assert_eq!(tun.send([&b"\0garbage"[..]]).unwrap(), 0);
    });
}

fn swapped(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (head, tail) = packet.split_at_mut(24);
    head[8..24].swap_with_slice(&mut tail[..16]);
    let (source, destination) = packet[40..44].split_at_mut(2);
    source.swap_with_slice(destination);
    packet
}

/// What waits in each of the queues: the packets of UDP.
fn in_queues(tun: &Tun) -> Vec<Vec<Vec<u8>>> {
    let mut batch = PacketBatch::new(64, 1280, 16, 16);
    let mut all = Vec::new();
    for queue in tun.queues() {
        let mut packets = Vec::new();
        while queue.recv(&mut batch).unwrap() > 0 {
            let read = batch.packets().map(|p| p[16..p.len() - 16].to_vec());
            packets.extend(read.filter(|packet| packet[6] == 17));
        }
        all.push(packets);
    }
    all
}

#[test]
fn a_flow_stays_in_its_queue_whatever_comes_back_and_whoever_has_the_device() {
    const FLOWS: usize = 32;
    in_namespace(|| {
        let mut tun = Tun::create("mesh0", Offload::default(), 3).unwrap();
        let only = config(&["fd01::1"], &["fd01::/48"]);
        let mut links = Links::open().unwrap();
        links.configure(tun.index(), &only).unwrap();
        let sockets: Vec<_> = (0..FLOWS)
            .map(|_| UdpSocket::bind("[fd01::1]:0").unwrap())
            .collect();
        let mut queues = [None; FLOWS];
        for round in 0..3 {
            for (socket, flow) in sockets.iter().zip(0u8..) {
                socket.send_to(&[flow, round], "[fd01::9]:9").unwrap();
            }
            let found = in_queues(&tun);
            assert_eq!(found.iter().flatten().count(), FLOWS);
            assert!(found.iter().all(|packets| !packets.is_empty()));
            for (number, packets) in found.iter().enumerate() {
                for packet in packets {
                    let queue = queues[usize::from(packet[48])].get_or_insert(number);
                    assert_eq!(*queue, number, "round {round}");
                }
            }
            let answers: Vec<_> = found
                .iter()
                .flatten()
                .map(|packet| swapped(packet))
                .collect();
            let sent = tun.send(answers.iter().map(Vec::as_slice)).unwrap();
            assert_eq!(sent, FLOWS);
            // Another process goes on with it.
            let copies = tun.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
            let mut copies: Vec<_> = copies.collect();
            copies.rotate_right(1);
            tun = Tun::adopt(copies, "mesh0", Offload::default()).unwrap();
            assert_eq!(tun.queues().len(), 3);
        }
    });
}

#[test]
fn an_interface_name_in_use_is_said_so() {
    in_namespace(|| {
        for queues in [1, 2] {
            let _tun = Tun::create("mesh0", Offload::default(), queues).unwrap();
            for queues in [1, 2] {
                let error = Tun::create("mesh0", Offload::default(), queues).unwrap_err();
                assert!(
                    matches!(error, crate::tun::CreateTunError::InUse(_)),
                    "{error}"
                );
            }
        }
    });
}

#[test]
fn a_change_is_heard_once() {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let tun = Tun::create("mesh0", Offload::default(), 1).unwrap();
            let mut links = Links::open().unwrap();
            let mut changes = NetworkChanges::new().unwrap();
            let deadline = Duration::from_secs(5);

            links
                .configure(tun.index(), &config(&["fd01::1"], &["fd01::/48"]))
                .unwrap();
            tokio::time::timeout(deadline, changes.changed())
                .await
                .unwrap()
                .unwrap();
            let quiet = Duration::from_millis(300);
            assert!(
                tokio::time::timeout(quiet, changes.changed())
                    .await
                    .is_err()
            );

            links.set_up(tun.index(), false).unwrap();
            tokio::time::timeout(deadline, changes.changed())
                .await
                .unwrap()
                .unwrap();
        });
    });
}

#[test]
fn what_an_interface_lost_by_going_down_is_noticed_when_it_is_up_again() {
    in_namespace(|| {
        let tun = Tun::create("mesh0", Offload::default(), 1).unwrap();
        let wanted = config(&["fd01::1", "10.9.0.1"], &["fd01::/48", "10.9.0.0/16"]);
        let mut links = Links::open().unwrap();
        links.configure(tun.index(), &wanted).unwrap();
        assert!(!links.lacks(tun.index(), &wanted).unwrap());

        links.set_up(tun.index(), false).unwrap();
        assert!(
            !links.lacks(tun.index(), &wanted).unwrap(),
            "who took it down wants it down"
        );
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        packet.extend([0; 32]);
        assert_eq!(tun.send([packet.as_slice()]).unwrap(), 0, "lost, no more");
        let mut batch = PacketBatch::new(8, 1280, 16, 16);
        assert!(tun.queues()[0].recv(&mut batch).is_ok());

        links.set_up(tun.index(), true).unwrap();
        assert!(links.lacks(tun.index(), &wanted).unwrap());
        links.configure(tun.index(), &wanted).unwrap();
        assert!(!links.lacks(tun.index(), &wanted).unwrap());
        assert_eq!(tun.send([packet.as_slice()]).unwrap(), 1);
    });
}

#[test]
fn the_router_is_found_past_a_tunnel_that_has_a_default_route_too() {
    in_namespace(|| {
        let mut links = Links::open().unwrap();
        assert_eq!(links.router().unwrap(), None);
        let named = |name: &str| {
            let mut link = LinkMessage::default();
            let name = LinkAttribute::IfName(name.to_owned());
            link.attributes.push(name);
            link
        };
        let mut cable = named("eth0");
        cable.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(named("eth1")))),
        ]));
        links
            .request(RouteNetlinkMessage::NewLink(cable), NLM_F_CREATE, || {
                "make a cable".to_owned()
            })
            .unwrap();
        let index = Links::index_of("eth0").unwrap();
        links.set_up(index, true).unwrap();
        links
            .set_up(Links::index_of("eth1").unwrap(), true)
            .unwrap();
        for address in ["172.16.0.5/24", "192.168.7.5/24"] {
            let address: IpNet = address.parse().unwrap();
            links.add_address(index, address).unwrap();
            links
                .add_route(index, address.trunc(), Some(address.addr()), None)
                .unwrap();
        }
        let world: IpNet = "0.0.0.0/0".parse().unwrap();
        let router: Ipv4Addr = "192.168.7.1".parse().unwrap();
        links.add_route_via(index, world, router.into()).unwrap();
        let tun = Tun::create("vpn0", Offload::default(), 1).unwrap();
        let halves = config(&["10.9.0.2"], &["0.0.0.0/1", "128.0.0.0/1", "10.9.0.0/16"]);
        links.configure(tun.index(), &halves).unwrap();
        let found = links.router().unwrap().unwrap();
        assert_eq!(found.address, router);
        assert_eq!(found.local, "192.168.7.5".parse::<Ipv4Addr>().unwrap());
    });
}

#[test]
fn large_packets_are_of_no_more_packets_than_said() {
    in_namespace(|| {
        let tun = Tun::create("mesh0", Offload::default(), 1).unwrap();
        let mut links = Links::open().unwrap();
        links.set_segments(tun.index(), 44).unwrap();
        let found = links.dump_links().unwrap().into_iter().any(|link| {
            let RouteNetlinkMessage::NewLink(link) = link else {
                return false;
            };
            link.header.index == tun.index()
                && link.attributes.contains(&LinkAttribute::GsoMaxSegs(44))
        });
        assert!(found);
    });
}
