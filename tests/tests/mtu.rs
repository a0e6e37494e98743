//! Networks that carry packets of different sizes, of the kernel's own: what is proven, what programs are
//! told, and that a TCP transfer goes through whatever lies between.

#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use mesh_api::PathKind;
use mesh_lab::{Fleet, Lab, Router, SiteId, wait_until};
use mesh_tests::{PATIENCE, assert_reaches, fleet, peer, start};

/// What is sent each way, in bytes: some hundred full segments.
const TRANSFER_BYTES: usize = 1_000_000;

/// cinnabar, which relays, galena, and pyrite.
fn three() -> Option<Fleet> {
    fleet(&["cinnabar", "galena", "pyrite"])
}

/// Waits until a straight way is found to carry what a network of `outside` bytes does.
fn becomes(fleet: &Fleet, of: &str, to: &str, outside: u16) {
    wait_until(PATIENCE, || {
        assert_reaches(fleet, of, to);
        let peer = peer(fleet, of, to);
        let headers = match peer.endpoint {
            Some(SocketAddr::V4(_)) => 60,
            Some(SocketAddr::V6(_)) => 80,
            None => return Err(Box::new(peer)),
        };
        let found = peer.mtu == Some(outside - headers);
        if found && peer.path == Some(PathKind::Direct) {
            Ok(())
        } else {
            Err(Box::new(peer))
        }
    })
    .unwrap();
}

/// Runs a line of shell on a site's router, or the internet's switch.
fn on_router(fleet: &mut Fleet, site: SiteId, line: &str) {
    let lab = fleet.lab();
    lab.gateway(site)
        .run(|| {
            let status = Command::new("sh").args(["-ec", line]).status()?;
            anyhow::ensure!(status.success(), "{line}: {status}");
            Ok(())
        })
        .unwrap();
}

fn on_machine(fleet: &Fleet, name: &str, line: &str) -> String {
    let mut command = Command::new("sh");
    let output = fleet.run_on(name, command.args(["-c", line])).unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// What the kernel of a machine takes to be carried to an address.
fn route_to(fleet: &Fleet, of: &str, to: Ipv6Addr) -> String {
    on_machine(fleet, of, &format!("ip -6 route get {to}"))
}

/// Sends bytes both ways at once over one connection, and compares them at the other end.
fn transfer(fleet: &Fleet, from: &str, to: &str) {
    let bytes = |seed: usize| -> Vec<u8> {
        let byte = |i: usize| u8::try_from((i * (seed + 7) + i / 251) % 256).unwrap();
        (0..TRANSFER_BYTES).map(byte).collect()
    };
    let at = SocketAddr::from((fleet.address(to).unwrap(), 7007));
    let listener = fleet.namespace(to).unwrap();
    let listener = listener.run(|| Ok(TcpListener::bind(at)?)).unwrap();
    let (forth, back) = (bytes(1), bytes(2));
    let exchange = |stream: TcpStream, sent: &[u8], expected: &[u8]| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            (&stream).read_to_end(&mut received).unwrap();
            assert!(received == expected, "what came is not what was sent");
        });
    };
    let connected = fleet.namespace(from).unwrap();
    let connected = connected.run(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?));
    let (connected, accepted) = (connected.unwrap(), listener.accept().unwrap().0);
    thread::scope(|scope| {
        scope.spawn(|| exchange(accepted, &back, &forth));
        exchange(connected, &forth, &back);
    });
}

#[test]
fn ethernet_carries_1500_bytes_and_the_kernel_hears_of_it() {
    let Some(mut fleet) = three() else {
        return;
    };
    start(&mut fleet);
    becomes(&fleet, "galena", "pyrite", 1500);
    let (mtu, to) = (
        peer(&fleet, "galena", "pyrite").mtu,
        fleet.address("pyrite"),
    );
    let (mtu, to) = (format!("mtu {}", mtu.unwrap()), to.unwrap());
    wait_until(PATIENCE, || {
        let route = route_to(&fleet, "galena", to);
        if route.contains(&mtu) {
            Ok(())
        } else {
            Err(route)
        }
    })
    .unwrap();
    transfer(&fleet, "galena", "pyrite");
}

#[test]
fn jumbo_frames_are_used_where_they_are() {
    let Some(mut fleet) = three() else {
        return;
    };
    let widen = "for link in $(ip -o link | grep -v lo: | cut -d: -f2 | cut -d@ -f1); do
        ip link set $link mtu 9000; done";
    on_router(&mut fleet, Lab::INTERNET, widen);
    for name in ["cinnabar", "galena", "pyrite"] {
        on_machine(&fleet, name, "ip link set eth0 mtu 9000");
    }
    start(&mut fleet);
    becomes(&fleet, "galena", "pyrite", 9000);
    transfer(&fleet, "galena", "pyrite");
}

/// Makes a router's links carry packets of so many bytes, and has it tell so or not.
fn narrow(fleet: &mut Fleet, site: SiteId, mtu: u16, tells: bool) {
    // The routes, not the interfaces: these would drop what comes in without a word.
    let narrow = format!(
        "for family in -4 -6; do
            ip $family route show | grep -v ^fe80 | while read route; do
                ip $family route replace $route mtu lock {mtu}
            done
        done"
    );
    on_router(fleet, site, &narrow);
    if !tells {
        let silence = "nft -f - <<'END'
table inet silence {
    chain leave {
        type filter hook output priority 0;
        icmp type destination-unreachable icmp code frag-needed drop
        icmpv6 type packet-too-big drop
    }
}
END";
        on_router(fleet, site, silence);
    }
}

/// galena behind a router whose links are narrow, started.
fn behind_narrow(mtu: u16, tells: bool) -> Option<Fleet> {
    let mut fleet = three()?;
    let site = fleet.lab().put_behind("galena", Router::Open).unwrap();
    narrow(&mut fleet, site, mtu, tells);
    start(&mut fleet);
    Some(fleet)
}

fn transfers_go_through(mtu: u16, tells: bool) {
    let Some(fleet) = behind_narrow(mtu, tells) else {
        return;
    };
    // The first connection begins before anything is known of the way, the second after.
    transfer(&fleet, "galena", "pyrite");
    // The largest usual size below 1300 is 1280.
    becomes(&fleet, "galena", "pyrite", 1280);
    becomes(&fleet, "pyrite", "galena", 1280);
    transfer(&fleet, "pyrite", "galena");
}

#[test]
fn a_link_of_1300_bytes_carries_a_transfer() {
    transfers_go_through(1300, true);
}

#[test]
fn a_link_of_1300_bytes_that_tells_nobody_carries_a_transfer() {
    transfers_go_through(1300, false);
}

#[test]
fn a_link_of_1280_bytes_carries_a_transfer() {
    transfers_go_through(1280, true);
}

#[test]
fn a_link_of_1280_bytes_that_tells_nobody_carries_a_transfer() {
    transfers_go_through(1280, false);
}

#[test]
fn what_ipv6_promises_arrives_whole_over_a_narrower_link() {
    let Some(fleet) = behind_narrow(1280, false) else {
        return;
    };
    becomes(&fleet, "galena", "pyrite", 1280);
    // 1232 bytes, and 48 of headers.
    let to = fleet.address("pyrite").unwrap();
    let said = on_machine(
        &fleet,
        "galena",
        &format!("ping -M do -s 1232 -c 3 -i 0.2 {to}"),
    );
    assert!(said.contains(" 0% packet loss"), "{said}");
}

#[test]
fn a_packet_that_is_too_big_is_told_what_fits() {
    let Some(mut fleet) = three() else {
        return;
    };
    start(&mut fleet);
    becomes(&fleet, "galena", "pyrite", 1500);
    let to = fleet.address("pyrite").unwrap();
    let mtu = peer(&fleet, "galena", "pyrite").mtu.unwrap();
    // As if the kernel had been told otherwise: the agent itself answers, in the peer's name.
    let device = route_to(&fleet, "galena", to);
    let device = device
        .split(" dev ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let wider = format!(
        "ip -6 route replace {to}/128 dev {} mtu 8900",
        device.unwrap()
    );
    let ping = |bytes: u16| {
        on_machine(
            &fleet,
            "galena",
            &format!("{wider} && ping -M do -s {bytes} -c 1 -W 5 {to}"),
        )
    };
    let said = ping(3000);
    assert!(said.contains(&format!("From {to}")), "{said}");
    assert!(said.contains(&format!("mtu={mtu}")), "{said}");
    // 48 bytes of headers.
    let said = ping(mtu - 48);
    assert!(said.contains(" 0% packet loss"), "{said}");
}

#[test]
fn a_way_that_shrinks_under_a_transfer_is_followed() {
    let Some(mut fleet) = three() else {
        return;
    };
    let site = fleet.lab().put_behind("galena", Router::Open).unwrap();
    start(&mut fleet);
    becomes(&fleet, "galena", "pyrite", 1500);
    narrow(&mut fleet, site, 1400, false);
    transfer(&fleet, "galena", "pyrite");
    becomes(&fleet, "galena", "pyrite", 1400);
}
