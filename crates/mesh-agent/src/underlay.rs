//! This machine's own endpoints: looked up at the start and whenever the network changes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_os::{
    link::{LinkError, Links, NetworkChanges, ways_out},
    sleep::SleepWatch,
};
use mesh_wire::control::ENDPOINTS_MAX;
use tracing::{debug, info, warn};

use crate::{agent::Agent, chain};

/// Looks the endpoints up, and tells those who report them if they changed; returns whether they did, or
/// whether packets go another way.
pub(crate) fn look(agent: &Agent) -> bool {
    let rerouted = avoid_tunnels(agent);
    look_up(agent) || rerouted
}

fn look_up(agent: &Agent) -> bool {
    match endpoints(agent) {
        Ok(found) => {
            let changed = agent.endpoints.send_if_modified(|known| {
                let differ = *known != found;
                *known = found;
                differ
            });
            if changed {
                debug!(endpoints = ?*agent.endpoints.borrow(), "own endpoints changed");
            }
            // Also if there are none from the start: that is a reason.
            let endpoints = agent.endpoints.borrow().clone();
            agent.overlay.set_own_endpoints(endpoints);
            changed
        }
        Err(error) => {
            warn!(
                error = chain(&error),
                "could not look up this machine's endpoints"
            );
            false
        }
    }
}

/// Keeps the data plane's packets out of other tunnels that have taken the routes to the world. Returns
/// whether they go another way than before.
fn avoid_tunnels(agent: &Agent) -> bool {
    let interface = match Links::open().and_then(|mut links| links.interface_past_tunnels()) {
        Ok(interface) => interface,
        Err(error) => {
            warn!(error = chain(&error), "could not look for other tunnels");
            return false;
        }
    };
    let bound = agent.overlay.socket.bind_to_interface(interface);
    match (&bound, interface) {
        (Ok(false), _) => {}
        (Ok(true), Some(index)) => info!(index, "bound to an interface, past another tunnel"),
        (Ok(true), None) => info!("not bound to an interface"),
        (Err(error), _) => warn!(%error, "could not bind to an interface"),
    }
    matches!(bound, Ok(true))
}

/// Does so after every change of the network, and after the machine slept, for ever.
pub(crate) async fn watch(agent: Arc<Agent>) {
    let mut changes = NetworkChanges::new().inspect_err(unnoticed).ok();
    let mut sleeps = SleepWatch::new();
    // What changed between the look at the start and now.
    look(&agent);
    let mut out = ways_out();
    loop {
        let slept = tokio::select! {
            () = next_change(&mut changes) => None,
            slept = sleeps.slept() => Some(slept),
        };
        if let Some(device) = &agent.device {
            device.restore();
        }
        // Routes may move to another interface while all addresses stay.
        let before = std::mem::replace(&mut out, ways_out());
        let changed = look(&agent) | (before != out);
        if changed {
            info!("the network changed");
        }
        if let Some(slept) = slept {
            info!(seconds = slept.as_secs(), "the machine slept");
            // Told anew, so that a connection which did not outlive the sleep is noticed.
            agent.endpoints.send_modify(|_| {});
        }
        // An interface of some container that comes or goes is no reason to greet the fleet.
        if changed || slept.is_some() {
            agent.overlay.network_changed();
        }
    }
}

/// Waits for a change of the network; for ever once there is nobody to tell of one.
async fn next_change(changes: &mut Option<NetworkChanges>) {
    let Some(listening) = changes else {
        return std::future::pending().await;
    };
    if let Err(error) = listening.changed().await {
        unnoticed(&error);
        *changes = None;
    }
}

fn unnoticed(error: &LinkError) {
    warn!(
        error = chain(error),
        "changes of the network will not be noticed"
    );
}

fn endpoints(agent: &Agent) -> Result<Vec<SocketAddr>, LinkError> {
    let prefix = agent.config().network.prefix().net();
    let mut addresses = Links::open()?.underlay_addresses(&[prefix.into()])?;
    let listen = agent.config().listen.ip();
    addresses.retain(|address| takes(listen, *address));
    addresses.truncate(ENDPOINTS_MAX);
    let port = agent.overlay.socket.port();
    Ok(addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

/// Whether a socket that listens on `listen` takes what is sent to `address`.
fn takes(listen: IpAddr, address: IpAddr) -> bool {
    match listen {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.is_ipv4(),
        IpAddr::V4(_) | IpAddr::V6(_) => address == listen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_socket_does_not_take_is_told_to_nobody() {
        let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        let taken = |listen: &str| {
            let takes = |address: &&str| takes(listen.parse().unwrap(), address.parse().unwrap());
            addresses.into_iter().filter(takes).collect::<Vec<_>>()
        };
        assert_eq!(taken("::"), addresses);
        assert_eq!(taken("0.0.0.0"), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(taken("192.0.2.2"), ["192.0.2.2"]);
        assert_eq!(taken("2001:db8::1"), ["2001:db8::1"]);
    }
}
