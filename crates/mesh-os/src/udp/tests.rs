use std::io::IoSliceMut;

use crate::poll::{Wake, wait_readable};

use super::*;

/// Everything that arrives until `count` datagrams are there.
fn receive(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let wake = Wake::new().unwrap();
    let mut batch = RecvBatch::new();
    let mut received = Vec::new();
    while received.len() < count {
        let timeout = Some(std::time::Duration::from_secs(5));
        assert!(wait_readable(socket, &wake, timeout).unwrap().ready);
        socket.recv(&mut batch).unwrap();
        received.extend(batch.datagrams().map(|d| (d.from, d.payload.to_vec())));
    }
    received
}

#[test]
fn both_families_arrive_on_one_port_in_their_own_form() {
    let socket = UdpSocket::bind(0).unwrap();
    for local in ["127.0.0.1", "::1"] {
        let local: IpAddr = local.parse().unwrap();
        let Ok(peer) = std::net::UdpSocket::bind((local, 0)) else {
            continue; // A machine without IPv6.
        };
        peer.send_to(b"question", (local, socket.port())).unwrap();
        let received = receive(&socket, 1);
        assert_eq!(
            received,
            [(peer.local_addr().unwrap(), b"question".to_vec())]
        );

        socket.send(received[0].0, Some(local), b"answer").unwrap();
        let mut answer = [0; 10];
        let (length, from) = peer.recv_from(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"answer");
        assert_eq!(from, SocketAddr::new(local, socket.port()));
    }
}

#[test]
fn the_wildcard_of_ipv4_is_ipv4_alone() {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let socket = UdpSocket::bind_address(any).unwrap();
    let bound = socket.socket.local_addr().unwrap();
    assert_eq!(bound.ip(), Ipv4Addr::UNSPECIFIED);
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    let refused = socket.send(v6, None, b"x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
}

/// How datagrams are sent together: from where they lie, or copied.
#[derive(Clone, Copy)]
enum By {
    Gather,
    SendBatch,
}

/// Sends datagrams, each to its destination.
fn send_together(by: By, from: &UdpSocket, datagrams: &[(SocketAddr, Vec<u8>)]) {
    let mut gather = Gather::new();
    let mut batch = SendBatch::new();
    for (to, datagram) in datagrams {
        match by {
            By::Gather => gather.push(from, *to, Ecn::NotCapable, datagram),
            By::SendBatch => batch.push(from, *to, Ecn::NotCapable, datagram),
        }
        .unwrap();
    }
    gather.flush(from).unwrap();
    batch.flush(from).unwrap();
}

fn at(socket: &UdpSocket) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, socket.port()).into()
}

#[test]
fn a_batch_arrives_datagram_by_datagram_in_order() {
    for by in [By::Gather, By::SendBatch] {
        let (from, to) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        let other = UdpSocket::bind(0).unwrap();
        let lengths = [1312, 1312, 1312, 80, 1312, 48, 48, 1312, 1, 1, 2];
        let sent: Vec<_> = (0u8..).zip(lengths).map(|(i, n)| vec![i; n]).collect();
        let mut datagrams: Vec<_> = sent.iter().map(|d| (at(&to), d.clone())).collect();
        datagrams.push((at(&other), b"elsewhere".to_vec()));
        send_together(by, &from, &datagrams);

        let received = receive(&to, sent.len()).into_iter();
        assert_eq!(received.map(|(_, d)| d).collect::<Vec<_>>(), sent);
        assert_eq!(receive(&other, 1)[0].1, b"elsewhere");
    }
}

#[test]
fn what_datagrams_say_of_congestion_arrives_alone_and_together() {
    use Ecn::{Capable0, Capable1, Experienced, NotCapable};
    let (from, to) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
    let says = [
        Capable0,
        Capable0,
        Capable0,
        Capable1,
        NotCapable,
        NotCapable,
        Experienced,
        Experienced,
        Capable0,
    ];
    let places: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for place in places {
        if from.is_ipv4 && place.is_ipv6() {
            continue; // A machine without IPv6.
        }
        let mut gather = Gather::new();
        for ecn in says {
            let to = (place, to.port()).into();
            gather.push(&from, to, ecn, &[7; 1312]).unwrap();
        }
        gather.flush(&from).unwrap();
        let wake = Wake::new().unwrap();
        let mut batch = RecvBatch::new();
        let mut received = Vec::new();
        while received.len() < says.len() {
            let timeout = Some(std::time::Duration::from_secs(5));
            assert!(wait_readable(&to, &wake, timeout).unwrap().ready);
            to.recv(&mut batch).unwrap();
            received.extend(batch.datagrams().map(|datagram| datagram.ecn));
        }
        assert_eq!(received, says, "{place}");
    }
}

#[test]
fn more_than_fits_one_burst_is_sent_in_several() {
    for by in [By::Gather, By::SendBatch] {
        // By bytes, and by number.
        for length in [1312, 16] {
            let (from, to) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
            let datagrams: Vec<_> = (0..150u8).map(|i| (at(&to), vec![i; length])).collect();
            send_together(by, &from, &datagrams);
            let received = receive(&to, datagrams.len()).into_iter();
            let firsts: Vec<_> = received.map(|(_, d)| d[0]).collect();
            assert_eq!(firsts, (0..150).collect::<Vec<_>>());
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_system_does_not_cut_is_sent_one_by_one() {
    let (from, to) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
    let no_checksums: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&no_checksums)).unwrap();
    // SAFETY: the option reads the number that it is given, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&from.socket),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const no_checksums).cast(),
            length,
        )
    };
    assert_eq!(set, 0);
    let parts = [1, 2, 3].map(|i| [i; 1312]);
    let parts = parts.each_ref().map(|part| IoSlice::new(part));
    let refused = from.send_segmented(at(&to), Ecn::NotCapable, 1312, &parts);
    assert!(
        refused.is_err(),
        "without checksums the system cuts nothing"
    );
    let datagrams: Vec<_> = (0..5u8).map(|i| (at(&to), vec![i; 1312])).collect();
    send_together(By::Gather, &from, &datagrams);
    let received = receive(&to, 5).into_iter();
    let firsts: Vec<_> = received.map(|(_, d)| d[0]).collect();
    assert_eq!(firsts, [0, 1, 2, 3, 4]);
}

#[test]
fn a_socket_is_adopted_with_what_waits_in_it_if_it_is_bound_as_configured() {
    let socket = UdpSocket::bind(0).unwrap();
    let from = UdpSocket::bind(0).unwrap();
    let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port()));
    from.send(destination, None, b"waits").unwrap();
    let copy = || socket.as_fd().try_clone_to_owned().unwrap();
    let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    assert!(UdpSocket::adopt(copy(), any(1)).is_err());
    let local = SocketAddr::from((Ipv6Addr::LOCALHOST, socket.port()));
    assert!(UdpSocket::adopt(copy(), local).is_err());
    let (pipe, _writer) = io::pipe().unwrap();
    assert!(UdpSocket::adopt(pipe.into(), any(0)).is_err());
    let adopted = UdpSocket::adopt(copy(), any(socket.port())).unwrap();
    drop(socket);
    assert_eq!(receive(&adopted, 1)[0].1, b"waits");

    let only_ipv6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None);
    let only_ipv6 = only_ipv6.unwrap();
    only_ipv6.set_only_v6(true).unwrap();
    only_ipv6.bind(&any(0).into()).unwrap();
    let refused = UdpSocket::adopt(only_ipv6.into(), any(0)).unwrap_err();
    assert!(refused.to_string().contains("IPv6 alone"), "{refused}");
}

#[test]
fn an_adopted_socket_takes_more_however_much_waits_in_it() {
    const WAITING: usize = 2_000;
    const LATER: usize = 50;
    let socket = UdpSocket::bind(0).unwrap();
    socket.set_patient(true);
    let granted = socket2::SockRef::from(&socket.socket).recv_buffer_size();
    if granted.unwrap() < PATIENT_BUFFER_BYTES {
        return; // A longer queue than the system's limit needs CAP_NET_ADMIN.
    }
    let from = UdpSocket::bind(0).unwrap();
    let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port()));
    let send = |count| {
        for _ in 0..count {
            from.send(destination, None, &[0; 1200]).unwrap();
        }
    };
    send(WAITING);
    let copy = socket.as_fd().try_clone_to_owned().unwrap();
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, socket.port()));
    let adopted = UdpSocket::adopt(copy, any).unwrap();
    send(LATER);
    assert_eq!(receive(&adopted, WAITING + LATER).len(), WAITING + LATER);
    adopted.set_patient(false);
}

#[cfg(target_os = "linux")]
#[test]
fn a_datagram_for_the_neighbourhood_says_so_and_later_ones_do_not() {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
    let to = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    setsockopt(&to, sockopt::Ipv4RecvTtl, &true).unwrap();
    let hops = || {
        let mut buffer = [0; 8];
        let mut contents = [IoSliceMut::new(&mut buffer)];
        let mut room = nix::cmsg_space!(i32);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&to);
        let message = recvmsg::<()>(fd, &mut contents, Some(&mut room), MsgFlags::empty());
        let message = message.unwrap();
        let Some(ControlMessageOwned::Ipv4Ttl(hops)) = message.cmsgs().unwrap().next() else {
            panic!("the hops are asked for");
        };
        hops
    };
    let socket = UdpSocket::bind(0).unwrap();
    let destination = to.local_addr().unwrap();
    socket.send_near(destination, 3, b"near").unwrap();
    socket.send(destination, None, b"far").unwrap();
    assert_eq!(hops(), 3);
    assert!(hops() > 30);
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_shares_a_port_by_sender_and_with_nobody_else() {
    const SENDERS: u8 = 32;
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let group = UdpSocket::bind_group(any, 3).unwrap();
    let port = group[0].port();
    assert!(group.iter().all(|socket| socket.port() == port));
    let taken = UdpSocket::bind_group((Ipv6Addr::UNSPECIFIED, port).into(), 2);
    assert!(matches!(taken, Err(BindError::InUse { .. })));

    let senders: Vec<_> = (0..SENDERS).map(|_| UdpSocket::bind(0).unwrap()).collect();
    for round in 0..3 {
        for (sender, number) in senders.iter().zip(0..) {
            let to = (Ipv4Addr::LOCALHOST, port).into();
            sender.send(to, None, &[number, round]).unwrap();
        }
    }
    let mut batch = RecvBatch::new();
    let mut of_senders = vec![Vec::new(); SENDERS.into()];
    for (place, socket) in group.iter().enumerate() {
        let mut count = 0;
        while socket.recv(&mut batch).unwrap() {
            for datagram in batch.datagrams() {
                let [number, round] = *datagram.payload else {
                    panic!("two bytes");
                };
                of_senders[usize::from(number)].push((place, round));
                count += 1;
            }
        }
        assert!(count > 0, "each has some senders");
    }
    for of_sender in of_senders {
        let [(place, 0), ..] = of_sender[..] else {
            panic!("{of_sender:?}");
        };
        assert_eq!(of_sender, [(place, 0), (place, 1), (place, 2)]);
    }
}

#[test]
fn a_refused_datagram_does_not_break_the_socket() {
    let socket = UdpSocket::bind(0).unwrap();
    let gone = UdpSocket::bind(0).unwrap();
    let destination = SocketAddr::from((Ipv4Addr::LOCALHOST, gone.port()));
    drop(gone);
    let _ = socket.send(destination, None, b"x");
    let mut batch = RecvBatch::new();
    assert!(!socket.recv(&mut batch).unwrap());
    assert_eq!(batch.datagrams().count(), 0);
}
