//! IPv4 addresses: pins first, then what the previous roster gave, then the lowest free in name order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mesh_types::MachineName;

use super::Resolver;
use crate::{
    report::Problem,
    roster::{NetworkPart, Roster},
};

impl Resolver<'_> {
    pub(super) fn ipv4(
        &mut self,
        network: &NetworkPart,
        previous: Option<&Roster>,
    ) -> BTreeMap<MachineName, Ipv4Addr> {
        let Some(pool) = network.ipv4 else {
            self.refuse_pins();
            return BTreeMap::new();
        };
        let mut given = self.pins(pool);
        let mut taken: BTreeSet<Ipv4Addr> = given.values().copied().collect();
        let machines = &self.inventory.document.machines;
        let previous_members = previous
            .filter(|roster| roster.head().network == network.id)
            .map(Roster::members);
        for name in machines.keys().filter(|_| previous_members.is_some()) {
            let kept = previous_members
                .and_then(|members| members.get(name))
                .and_then(|member| member.ipv4)
                .filter(|address| is_host(pool, *address));
            if let Some(address) = kept
                && !given.contains_key(name)
                && taken.insert(address)
            {
                given.insert(name.clone(), address);
            }
        }
        let mut free = pool.hosts().filter(|address| is_host(pool, *address));
        let mut provisional = false;
        for name in machines.keys() {
            if given.contains_key(name) {
                continue;
            }
            let Some(address) = free.by_ref().find(|address| !taken.contains(address)) else {
                self.exhausted(pool, name);
                break;
            };
            provisional = true;
            given.insert(name.clone(), address);
        }
        if provisional && previous_members.is_none() {
            self.warn_provisional();
        }
        given
    }

    fn pins(&mut self, pool: Ipv4Net) -> BTreeMap<MachineName, Ipv4Addr> {
        let mut given: BTreeMap<MachineName, Ipv4Addr> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for (name, machine) in &self.inventory.document.machines {
            let Some(pin) = &machine.mesh.ipv4 else {
                continue;
            };
            if !is_host(pool, pin.value) {
                let message = format!(
                    "the IPv4 address of machine `{name}`, `{}`, is no host's in the pool `{pool}`",
                    pin.value
                );
                self.problems.push(
                    Problem::error(pin.span.clone(), message)
                        .hint("pin one inside the pool, or leave the pin out"),
                );
            } else if let Some((other, span)) = owners.insert(pin.value, (name, pin.span.clone())) {
                let message = format!(
                    "machines `{other}` and `{name}` pin one IPv4 address, `{}`",
                    pin.value
                );
                self.problems.push(
                    Problem::error(pin.span.clone(), message)
                        .note(span, format!("`{other}` pins it here"))
                        .hint("pin another for one of the two"),
                );
            } else {
                given.insert(name.clone(), pin.value);
            }
        }
        given
    }

    fn refuse_pins(&mut self) {
        for (name, machine) in &self.inventory.document.machines {
            if let Some(pin) = &machine.mesh.ipv4 {
                let message =
                    format!("machine `{name}` pins an IPv4 address, and there is no pool");
                self.problems.push(
                    Problem::error(pin.span.clone(), message)
                        .hint("give the network a pool, `network.ipv4`, or leave the pin out"),
                );
            }
        }
    }

    fn exhausted(&mut self, pool: Ipv4Net, name: &MachineName) {
        let Some(place) = &self.inventory.document.network.ipv4 else {
            return;
        };
        let message = format!(
            "the IPv4 pool `{pool}` has no address left for machine `{name}` ({} machines)",
            self.inventory.document.machines.len()
        );
        self.problems
            .push(Problem::error(place.span.clone(), message).hint("take a larger pool"));
    }

    fn warn_provisional(&mut self) {
        let Some(place) = &self.inventory.document.network.ipv4 else {
            return;
        };
        self.problems.push(
            Problem::warning(
                place.span.clone(),
                "the IPv4 addresses are provisional: there is no previous roster to keep them from",
            )
            .hint("give the roster in force with `--previous ROSTER`"),
        );
    }
}

/// Whether a machine may have the address: not the pool's network or broadcast address.
fn is_host(pool: Ipv4Net, address: Ipv4Addr) -> bool {
    let reserved =
        pool.prefix_len() < 31 && (address == pool.network() || address == pool.broadcast());
    pool.contains(&address) && !reserved
}
