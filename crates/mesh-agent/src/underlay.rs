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
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{agent::Agent, chain, port_mapping};

/// Looks the endpoints up, and tells those who report them if they changed; returns whether they did, or
/// whether packets go another way.
pub(crate) fn look(agent: &Agent) -> bool {
    let rerouted = avoid_tunnels(agent);
    look_up(agent) || rerouted
}

fn look_up(agent: &Agent) -> bool {
    match endpoints(agent) {
        Ok(found) => {
            let changed = replace(&agent.interfaces, found);
            publish(agent);
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

/// Tells those who report this machine's endpoints of them, the router's port included, if they changed.
pub(crate) fn publish(agent: &Agent) {
    let mapped = port_mapping::external(&agent.mapping.borrow());
    let endpoints = with_mapped(agent.interfaces.borrow().clone(), mapped);
    if replace(&agent.endpoints, endpoints.clone()) {
        debug!(?endpoints, "own endpoints changed");
    }
    // Also if there are none from the start: that is a reason.
    agent.overlay.set_own_endpoints(endpoints);
}

/// The router's port comes before what only the own network reaches, and before the last that is told.
fn with_mapped(mut endpoints: Vec<SocketAddr>, mapped: Option<SocketAddr>) -> Vec<SocketAddr> {
    if let Some(mapped) = mapped.filter(|mapped| !endpoints.contains(mapped)) {
        let at = endpoints.iter().position(SocketAddr::is_ipv4);
        let at = at.unwrap_or(endpoints.len()).min(ENDPOINTS_MAX - 1);
        endpoints.insert(at, mapped);
        endpoints.truncate(ENDPOINTS_MAX);
    }
    endpoints
}

/// Returns whether it is another value.
fn replace<T: PartialEq>(watched: &watch::Sender<T>, value: T) -> bool {
    watched.send_if_modified(|known| {
        let differs = *known != value;
        *known = value;
        differs
    })
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
    let bound = agent.overlay.socket().bind_to_interface(interface);
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
        agent.network.send_replace(());
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
    let port = agent.overlay.socket().port();
    Ok(addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

/// Whether a socket that listens on `listen` takes what is sent to `address`.
pub(crate) fn takes(listen: IpAddr, address: IpAddr) -> bool {
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
    fn the_routers_port_is_told_before_private_addresses_and_within_the_bound() {
        let endpoint = |text: &str| text.parse::<SocketAddr>().unwrap();
        let six: Vec<_> = (0..ENDPOINTS_MAX)
            .map(|port| SocketAddr::new("2001:db8::1".parse().unwrap(), 1 + port as u16))
            .collect();
        let mapped = endpoint("203.0.113.9:4193");
        let own = endpoint("192.168.1.5:4193");
        assert_eq!(with_mapped(vec![own], Some(mapped)), [mapped, own]);
        assert_eq!(
            with_mapped(vec![six[0], own], Some(mapped)),
            [six[0], mapped, own]
        );
        assert_eq!(with_mapped(vec![mapped], Some(mapped)), [mapped]);
        assert_eq!(with_mapped(vec![own], None), [own]);
        let full = with_mapped(six, Some(mapped));
        assert_eq!(full.len(), ENDPOINTS_MAX);
        assert_eq!(full.last(), Some(&mapped));
    }

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
