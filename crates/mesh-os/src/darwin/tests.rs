//! Bytes that a Mac gave, bytes built by hand from xnu's headers, and what hostile ones do.
//!
//! *Recorded* are those of golang.org/x/net (`route/address_darwin_test.go`), taken from real kernels, with
//! the command that made them where it is known. The others are laid out by hand, field by field.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    route::{Address, Change, Interface, Kind, Message, Route, Via, messages, tells_of_change},
    sockaddr::{AF_INET, AF_INET6, Slots, link_name, parse_ip, prefix_length},
    *,
};

/// `RTA_DST | RTA_GATEWAY | RTA_NETMASK`.
const DST_GATEWAY_NETMASK: u32 = 0x7;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Bytes written as hex digits in groups.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// What a list says of destination and mask.
fn destination(addresses: &[u8], family: u8) -> IpNet {
    let slots = Slots::parse(DST_GATEWAY_NETMASK, addresses);
    let ip = parse_ip(slots.get(0).unwrap(), family).unwrap();
    let length = prefix_length(slots.get(2).unwrap(), family).unwrap();
    IpNet::new(ip, length).unwrap()
}

#[test]
fn recorded_a_network_of_an_interface_has_a_mask_without_family_or_zeros() {
    let bytes = hex("10020000 c0a85600 00000000 00000000
         14120400 06000000 00000000 00000000 00000000
         07ffffff ffffff");
    assert_eq!(destination(&bytes, AF_INET), net("192.168.86.0/24"));
}

#[test]
fn recorded_a_route_into_a_utun_names_it() {
    let bytes = hex("10020000 64710000 00000000 00000000
         14122100 01080000 7574756e 34333139 00000000
         06020000 ffff0000");
    assert_eq!(destination(&bytes, AF_INET), net("100.113.0.0/16"));
    let slots = Slots::parse(DST_GATEWAY_NETMASK, &bytes);
    assert_eq!(slots.get(1).and_then(link_name), Some("utun4319"));
}

/// `route -n add -inet6 fd84:1b4e:6281:: -prefixlen 48 fe80::f22f:4bff:fe09:3bff%utun4319`
#[test]
fn recorded_a_routers_link_local_address_carries_its_interface_which_is_left_out() {
    let bytes = hex(
        "1c1e0000 00000000 fd841b4e 62810000 00000000 00000000 00000000
         1c1e0000 00000000 fe800021 00000000 f22f4bff fe093bff 00000000
         0e1e0000 00000000 ffffffff ffff0000",
    );
    assert_eq!(destination(&bytes, AF_INET6), net("fd84:1b4e:6281::/48"));
    let slots = Slots::parse(DST_GATEWAY_NETMASK, &bytes);
    let gateway = parse_ip(slots.get(1).unwrap(), AF_INET6);
    assert_eq!(gateway, Some(ip("fe80::f22f:4bff:fe09:3bff")));
}

/// `route -n add -inet6 -ifscope en11 -net :: -netmask :: fe80::2d0:4cff:fe10:15d2`, and a destination of
/// length 0, which the kernel makes too.
#[test]
fn recorded_a_default_route_has_an_empty_mask_or_destination() {
    let masked = hex(
        "1c1e0000 00000000 00000000 00000000 00000000 00000000 00000000
         1c1e0000 00000000 fe800000 00000000 02d04cff fe1015d2 00000000
         021e0000",
    );
    assert_eq!(destination(&masked, AF_INET6), net("::/0"));
    let empty = hex("001e0000
         1c1e0000 00000000 fe800021 00000000 f22f4bff fe093bff 00000000
         0e1e0000 00000000 ffffffff ffff0000");
    assert_eq!(destination(&empty, AF_INET6), net("::/48"));
}

/// The answer to a question for a scoped default route that is not there (errno 3).
const RECORDED_ANSWER: &str = "84000504 01000000 03080001 15000000
     1b010000 f55a0000 03000000 00000000
     00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
     00000000 00000000 00000000 00000000 00000000 00000000 00000000
     10020000 00000000 00000000 00000000
     00020000
     14120000 00000000 00000000 00000000 00000000";

#[test]
fn recorded_a_whole_message_of_the_route_socket_is_read() {
    let bytes = hex(RECORDED_ANSWER);
    assert_eq!(bytes.len(), 0x84);
    let route = Route {
        interface: 1,
        to: net("0.0.0.0/0"),
        gateway: None,
        is_scoped: true,
    };
    let read: Vec<_> = messages(&bytes).collect();
    assert_eq!(read, [Message::Route(route)]);
    assert!(!tells_of_change(&bytes), "an answer is no change");
}

/// The numbers of the requests, as macOS's own headers expand to (also in the Go and Rust packages that
/// give them as numbers).
#[test]
fn requests_have_the_systems_numbers() {
    assert_eq!(ioctl::GET_CONTROL_ID, 0xc064_4e03);
    assert_eq!(ioctl::SET_FLAGS, 0x8020_6910);
    assert_eq!(ioctl::GET_FLAGS, 0xc020_6911);
    assert_eq!(ioctl::SET_MTU, 0x8020_6934);
    assert_eq!(ioctl::ADD_ADDRESS, 0x8040_691a);
    assert_eq!(ioctl::DELETE_ADDRESS, 0x8020_6919);
    assert_eq!(ioctl::ADD_ADDRESS6, 0x8080_691a);
    assert_eq!(ioctl::DELETE_ADDRESS6, 0x8120_6919);
    assert_eq!(ioctl::GET_ADDRESS_FLAGS6, 0xc120_6949);
}

#[test]
fn built_a_route_into_the_mesh_is_the_message_of_route_add() {
    let change = Change {
        kind: Kind::Add,
        to: net("fdc3:582e:db61::/48"),
        via: Via::Interface(21),
        source: Some(ip("fdc3:582e:db61::7")),
        mtu: Some(1280),
    };
    // struct rt_msghdr: UP|STATIC; DST|GATEWAY|NETMASK|IFA; inits MTU, metric 1280.
    let expected = hex(
        "c4000501 00000000 01080000 27000000 00000000 07000000 00000000 00000000 01000000
         00000000 00050000 00000000 00000000 00000000 00000000 00000000
         00000000 00000000 00000000 00000000 00000000 00000000 00000000
         1c1e0000 00000000 fdc3582e db610000 00000000 00000000 00000000
         14121500 00000000 00000000 00000000 00000000
         1c1e0000 00000000 ffffffff ffff0000 00000000 00000000 00000000
         1c1e0000 00000000 fdc3582e db610000 00000000 00000007 00000000",
    );
    assert_eq!(change.to_bytes(7), expected);
}

#[test]
fn built_a_machines_own_ipv4_address_is_led_back_to_it() {
    let change = route::loop_back(Ipv4Addr::new(10, 1, 0, 2), Kind::Delete);
    let bytes = change.to_bytes(1);
    // GATEWAY|HOST|STATIC; no mask.
    assert_eq!(bytes[8..16], hex("06080000 03000000")[..]);
    let addresses = hex("10020000 0a010002 00000000 00000000
         10020000 7f000001 00000000 00000000");
    assert_eq!(bytes[92..], addresses[..]);
    assert_eq!(bytes[3], 2, "RTM_DELETE");
    let changed = route::loop_back(Ipv4Addr::new(10, 1, 0, 2), Kind::Change).to_bytes(1);
    assert_eq!(changed[3], 3, "RTM_CHANGE");
}

#[test]
fn built_addresses_are_for_themselves_for_ever_and_at_once() {
    let bytes = ioctl::add_address6("utun7", "fdc3:582e:db61::7".parse().unwrap());
    // struct in6_aliasreq: name, address, no other end, mask, NODAD, times, infinite lifetimes.
    let expected = hex("7574756e 37000000 00000000 00000000
         1c1e0000 00000000 fdc3582e db610000 00000000 00000007 00000000
         00000000 00000000 00000000 00000000 00000000 00000000 00000000
         1c1e0000 00000000 ffffffff ffffffff ffffffff ffffffff 00000000
         20000000
         00000000 00000000 00000000 00000000 ffffffff ffffffff");
    assert_eq!(bytes[..], expected[..]);

    let bytes = ioctl::add_address("utun7", Ipv4Addr::new(10, 1, 0, 2));
    let expected = hex("7574756e 37000000 00000000 00000000
         10020000 0a010002 00000000 00000000
         10020000 0a010002 00000000 00000000
         10020000 ffffffff 00000000 00000000");
    assert_eq!(bytes[..], expected[..]);
}

#[test]
fn built_requests_name_the_interface() {
    let mut flags = ioctl::ifreq("utun7");
    // The kernel fills in flags: POINTOPOINT|RUNNING|MULTICAST.
    flags[16..18].copy_from_slice(&hex("5080"));
    ioctl::set_up(&mut flags, true);
    assert_eq!(
        flags[..20],
        hex("7574756e 37000000 00000000 00000000 51800000")[..]
    );
    ioctl::set_up(&mut flags, false);
    assert_eq!(flags[16..18], hex("5080")[..]);
    assert_eq!(ioctl::ifreq_mtu("utun7", 1280)[16..20], hex("00050000")[..]);
    assert_eq!(
        ioctl::delete_address("utun7", Ipv4Addr::new(10, 1, 0, 2))[16..24],
        hex("10020000 0a010002")[..]
    );
    // A name that is too long is cut before the zero at its end.
    assert_eq!(
        ioctl::ifreq("a-name-of-twenty-byt")[..17],
        *b"a-name-of-twent\0\0"
    );
}

#[test]
fn built_an_address_that_is_checked_or_on_its_way_out_is_not_settled() {
    let mut answer = ioctl::in6_ifreq("en0", "2001:db8::5".parse().unwrap());
    for (flags, settled) in [(0x0440, true), (0x02, false), (0x04, false), (0x50, false)] {
        answer[16..20].copy_from_slice(&u32::to_ne_bytes(flags));
        assert_eq!(ioctl::is_settled(&answer), settled, "{flags:#x}");
    }
}

#[test]
fn built_the_utun_control_is_found_and_connected_to() {
    let mut info = ioctl::control_info(utun::CONTROL);
    assert_eq!(info[..8], *b"\0\0\0\0com.");
    info[0] = 5;
    assert_eq!(ioctl::control_id(&info), 5);
    // struct sockaddr_ctl: AF_SYSTEM, AF_SYS_CONTROL, id 5, unit 8.
    let expected = hex("20200200 05000000 08000000 00000000 00000000 00000000 00000000 00000000");
    assert_eq!(sockaddr::control(5, 8)[..], expected[..]);
}

#[test]
fn names_of_utun_interfaces_are_units_and_others_are_refused() {
    for (name, unit) in [
        ("utun", 0),
        ("utun%d", 0),
        ("utun0", 1),
        ("utun7", 8),
        ("utun99999", 100_000),
    ] {
        assert_eq!(utun::unit(name), Some(unit), "{name}");
    }
    for name in [
        "",
        "mesh0",
        "utun07",
        "utun-1",
        "utun+1",
        "utunx",
        "utun100000",
        "utun1 ",
        "Utun1",
    ] {
        assert_eq!(utun::unit(name), None, "{name}");
    }
}

#[test]
fn packets_get_their_familys_header() {
    assert_eq!(utun::header(&[0x45, 0]), Some([0, 0, 0, 2]));
    assert_eq!(utun::header(&[0x60]), Some([0, 0, 0, 30]));
    assert_eq!(utun::header(&[0x00, 0x45]), None);
    assert_eq!(utun::header(&[]), None);
}

/// A message of `NET_RT_IFLIST2`: `struct if_msghdr2` (160 bytes) with a `sockaddr_dl`.
fn interface(index: u16, name: &str, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 160];
    let mut link = sockaddr::link(index);
    link[4] = 1;
    link[5] = u8::try_from(name.len()).unwrap();
    link[8..8 + name.len()].copy_from_slice(name.as_bytes());
    bytes.extend(link);
    bytes[4..8].copy_from_slice(&0x10_u32.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..14].copy_from_slice(&index.to_ne_bytes());
    finish(bytes, 0x12)
}

/// A message of `NET_RT_IFLIST2`: `struct ifa_msghdr` (20 bytes), then mask, interface and address.
fn address(index: u16, own: &str, mask: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    sockaddr::append(&mut bytes, mask);
    sockaddr::append(&mut bytes, &sockaddr::link(index));
    sockaddr::append(&mut bytes, &sockaddr::of_ip(ip(own)));
    bytes[4..8].copy_from_slice(&0x34_u32.to_ne_bytes());
    bytes[12..14].copy_from_slice(&index.to_ne_bytes());
    finish(bytes, 0xc)
}

fn finish(mut bytes: Vec<u8>, kind: u8) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[2..4].copy_from_slice(&[5, kind]);
    bytes
}

#[test]
fn built_the_list_of_interfaces_and_addresses_is_read() {
    let list = [
        interface(1, "lo0", 0x8049),
        interface(21, "utun7", 0x8051),
        address(
            21,
            "fdc3:582e:db61::7",
            &hex("1c1e0000 00000000 ffffffff ffffffff ffffffff ffffffff 00000000"),
        ),
        address(21, "10.1.0.2", &hex("08ffffff ffffffff")),
        // A type that is not known here, such as RTM_NEWMADDR2.
        finish(vec![0; 20], 0x13),
        address(1, "fe80::1", &hex("10000000 00000000 ffffffff ffffffff")),
    ]
    .concat();
    let expected = [
        Message::Interface(Interface {
            index: 1,
            name: "lo0".into(),
            flags: 0x8049,
        }),
        Message::Interface(Interface {
            index: 21,
            name: "utun7".into(),
            flags: 0x8051,
        }),
        Message::Address(Address {
            interface: 21,
            net: net("fdc3:582e:db61::7/128"),
        }),
        Message::Address(Address {
            interface: 21,
            net: net("10.1.0.2/32"),
        }),
        Message::Other,
        Message::Address(Address {
            interface: 1,
            net: net("fe80::1/64"),
        }),
    ];
    assert_eq!(messages(&list).collect::<Vec<_>>(), expected);
}

/// What the kernel tells of a route through interface `index`.
fn told(kind: Kind, to: &str, index: u16, more_flags: u32) -> Vec<u8> {
    let change = Change {
        kind,
        to: net(to),
        via: Via::Interface(index),
        source: None,
        mtu: None,
    };
    let mut bytes = change.to_bytes(0);
    bytes[4..6].copy_from_slice(&index.to_ne_bytes());
    let flags = u32::from_ne_bytes(bytes[8..12].try_into().unwrap()) | more_flags;
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

#[test]
fn the_router_of_a_default_route_is_read() {
    let change = Change {
        kind: Kind::Add,
        to: net("0.0.0.0/0"),
        via: Via::Gateway(ip("192.168.1.1")),
        source: None,
        mtu: None,
    };
    let mut bytes = change.to_bytes(0);
    bytes[4..6].copy_from_slice(&4_u16.to_ne_bytes());
    let route = Route {
        interface: 4,
        to: net("0.0.0.0/0"),
        gateway: Some(ip("192.168.1.1")),
        is_scoped: false,
    };
    let read: Vec<_> = messages(&bytes).collect();
    assert_eq!(read, [Message::Route(route)]);
}

#[test]
fn neighbours_and_failed_changes_are_no_change_of_the_network() {
    let change = |bytes: &[u8]| tells_of_change(bytes);
    assert!(change(&told(Kind::Add, "0.0.0.0/0", 4, 0)));
    assert!(change(&told(Kind::Delete, "::/0", 4, 0)));
    assert!(change(&interface(4, "en0", 0x8863)));
    assert!(change(&address(4, "192.168.1.5", &hex("07ffffff ffffff"))));
    for derived in [0x400, 0x2_0000, 0x40_0000, 0x80_0000] {
        assert!(
            !change(&told(Kind::Add, "192.168.1.9/32", 4, derived)),
            "{derived:#x}"
        );
    }
    let mut failed = told(Kind::Add, "0.0.0.0/0", 4, 0);
    failed[24] = 17;
    assert!(!change(&failed));
    let both = [failed, told(Kind::Add, "0.0.0.0/0", 4, 0)].concat();
    assert!(change(&both));
}

#[test]
fn neighbours_rejects_and_broken_masks_are_no_routes() {
    for flags in [0x400, 0x2_0000, 0x40_0000, 0x80_0000, 0x8, 0x1000] {
        let bytes = told(Kind::Add, "10.0.0.0/8", 4, flags);
        assert_eq!(
            messages(&bytes).collect::<Vec<_>>(),
            [Message::Other],
            "{flags:#x}"
        );
    }
}

mod past_tunnels {
    use super::{super::underlay::interface_past_tunnels, *};

    fn interfaces() -> Vec<Interface> {
        [
            (1, "lo0", 0x8049),
            (4, "en0", 0x8863),
            (7, "en7", 0x8863),
            (20, "utun0", 0x8051),
            (21, "utun7", 0x8051),
        ]
        .map(|(index, name, flags)| Interface {
            index,
            name: name.into(),
            flags,
        })
        .to_vec()
    }

    fn route(to: &str, interface: u32, is_scoped: bool) -> Route {
        Route {
            interface,
            to: net(to),
            gateway: None,
            is_scoped,
        }
    }

    #[test]
    fn sockets_are_left_alone_while_no_tunnel_has_the_world() {
        let routes = [
            route("0.0.0.0/0", 4, false),
            route("0.0.0.0/0", 7, true),
            // As every Mac has them, for the system's own services.
            route("::/0", 20, true),
            route("fdc3:582e:db61::/48", 21, false),
        ];
        assert_eq!(interface_past_tunnels(&interfaces(), &routes), None);
        assert_eq!(interface_past_tunnels(&[], &routes), None);
        assert_eq!(interface_past_tunnels(&interfaces(), &[]), None);
    }

    #[test]
    fn where_a_vpn_has_it_the_interface_with_its_own_default_route_is_taken() {
        let vpn_default = [route("0.0.0.0/0", 20, false), route("0.0.0.0/0", 4, true)];
        assert_eq!(interface_past_tunnels(&interfaces(), &vpn_default), Some(4));
        // In two halves, beside the old default route.
        let halves = [
            route("0.0.0.0/0", 7, false),
            route("0.0.0.0/0", 4, true),
            route("0.0.0.0/1", 20, false),
            route("128.0.0.0/1", 20, false),
        ];
        assert_eq!(interface_past_tunnels(&interfaces(), &halves), Some(7));
        let only_ipv6 = [route("::/0", 20, false), route("::/0", 7, true)];
        assert_eq!(interface_past_tunnels(&interfaces(), &only_ipv6), Some(7));
        let no_way_out = [route("0.0.0.0/0", 20, false)];
        assert_eq!(interface_past_tunnels(&interfaces(), &no_way_out), None);
    }

    #[test]
    fn an_interface_that_is_down_is_no_way_out() {
        let mut interfaces = interfaces();
        interfaces[1].flags &= !1;
        let routes = [
            route("0.0.0.0/0", 20, false),
            route("0.0.0.0/0", 4, true),
            route("0.0.0.0/0", 7, true),
        ];
        assert_eq!(interface_past_tunnels(&interfaces, &routes), Some(7));
    }
}

fn any_net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(ip, length)| (IpAddr::from(ip), length));
    let v6 = (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(ip, length)| (IpAddr::from(ip), length));
    prop_oneof![v4, v6]
        .prop_filter("the kernel keeps a scope in those", |(ip, _)| match ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
        .prop_map(|(ip, length)| IpNet::new(ip, length).unwrap().trunc())
}

proptest! {
    #[test]
    fn a_route_that_is_built_is_read_again(to in any_net(), index in 1..=u16::MAX) {
        let bytes = told(Kind::Add, &to.to_string(), index, 0);
        let expected = Message::Route(Route { interface: index.into(), to, gateway: None, is_scoped: false });
        prop_assert_eq!(messages(&bytes).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn an_address_that_is_built_is_read_again(to in any_net(), index in 1..=u16::MAX) {
        let ip = to.addr();
        let mask = sockaddr::mask(ip.is_ipv4(), to.prefix_len());
        let bytes = address(index, &ip.to_string(), &mask);
        let expected = Message::Address(Address { interface: index.into(), net: to });
        prop_assert_eq!(messages(&bytes).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn hostile_messages_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = tells_of_change(&bytes);
        prop_assert!(messages(&bytes).count() <= bytes.len() / 4);
    }

    #[test]
    fn cut_and_changed_messages_are_read_without_harm(
        at in 0..400_usize,
        value in any::<u8>(),
        end in 0..600_usize,
    ) {
        let mut list = [
            interface(21, "utun7", 0x8051),
            address(21, "10.1.0.2", &hex("08ffffff ffffffff")),
            told(Kind::Add, "fdc3:582e:db61::/48", 21, 0),
            hex(RECORDED_ANSWER),
        ]
        .concat();
        if let Some(byte) = list.get_mut(at) {
            *byte = value;
        }
        list.truncate(end);
        let _ = tells_of_change(&list);
        prop_assert!(messages(&list).count() <= 1 + list.len() / 4);
    }
}
