use std::{net::Ipv6Addr, time::Duration};

use super::*;
use crate::{ping::Pinger, sandbox};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);

const fn at(site: u16, number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, number)
}

#[test]
fn machines_reach_each_other_until_cut_or_renumbered() {
    if !sandbox::enter_test() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    lab.add("a").unwrap();
    lab.add("b").unwrap();
    let pinger = Pinger::new(lab.namespace("a").unwrap()).unwrap();
    assert!(pinger.ping(at(0, 2), LONG).unwrap().is_some());
    lab.cut("b").unwrap();
    assert_eq!(pinger.ping(at(0, 2), SHORT).unwrap(), None);
    lab.restore("b").unwrap();
    assert!(pinger.ping(at(0, 2), LONG).unwrap().is_some());
    lab.renumber("b").unwrap();
    assert_eq!(pinger.ping(at(0, 2), SHORT).unwrap(), None);
    assert!(pinger.ping(at(0, 102), LONG).unwrap().is_some());
    assert_eq!(lab.address("b").unwrap(), Ipv4Addr::new(192, 0, 2, 102));
}

#[test]
fn what_is_behind_routers_is_reached_through_all_of_them() {
    if !sandbox::enter_test() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    lab.add("a").unwrap();
    lab.add("b").unwrap();
    let outer = lab.site(Router::Open, Lab::INTERNET).unwrap();
    let inner = lab.site(Router::Open, outer).unwrap();
    lab.join("b", inner).unwrap();
    let pinger = Pinger::new(lab.namespace("a").unwrap()).unwrap();
    assert!(pinger.ping(at(2, 1), LONG).unwrap().is_some());
    assert_eq!(lab.address("b").unwrap(), Ipv4Addr::new(198, 18, 2, 1));
}

#[test]
fn a_default_route_moves_to_another_uplink_and_goes() {
    if !sandbox::enter_test() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    lab.add("a").unwrap();
    lab.add("b").unwrap();
    let first = lab.site(Router::Open, Lab::INTERNET).unwrap();
    let second = lab.site(Router::Firewall, Lab::INTERNET).unwrap();
    lab.join("b", first).unwrap();
    lab.add_uplink("b", "eth1", second).unwrap();
    let out = Pinger::new(lab.namespace("b").unwrap()).unwrap();
    let to = Pinger::new(lab.namespace("a").unwrap()).unwrap();
    assert!(to.ping(at(1, 1), LONG).unwrap().is_some());
    lab.route_by("b", "eth1", Families::V6).unwrap();
    assert!(out.ping(at(0, 1), LONG).unwrap().is_some());
    lab.take_down("b", "eth0").unwrap();
    assert!(out.ping(at(0, 1), LONG).unwrap().is_some());
    lab.unroute("b", Families::V6).unwrap();
    assert_eq!(out.ping(at(0, 1), SHORT).unwrap(), None);
    lab.set_up("b", "eth0").unwrap();
    lab.route_by("b", "eth0", Families::V6).unwrap();
    assert!(to.ping(at(1, 1), LONG).unwrap().is_some());
}
