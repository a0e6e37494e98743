//! This machine's own endpoints: looked up at the start and whenever the network changes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_os::link::{LinkError, Links, NetworkChanges};
use mesh_wire::control::ENDPOINTS_MAX;
use tracing::{debug, info, warn};

use crate::{agent::Agent, chain};

/// Looks the endpoints up, and tells those who report them if they changed; returns whether they did.
pub(crate) fn look(agent: &Agent) -> bool {
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

/// Does so after every change of the network, for ever.
pub(crate) async fn watch(agent: Arc<Agent>) {
    let mut changes = match NetworkChanges::new() {
        Ok(changes) => changes,
        Err(error) => {
            warn!(
                error = chain(&error),
                "changes of the network will not be noticed"
            );
            return std::future::pending().await;
        }
    };
    // What changed between the look at the start and now.
    look(&agent);
    loop {
        if let Err(error) = changes.changed().await {
            warn!(
                error = chain(&error),
                "changes of the network will not be noticed"
            );
            return std::future::pending().await;
        }
        if let Some(device) = &agent.device {
            device.restore();
        }
        // An interface of some container that comes or goes is no reason to greet the fleet.
        if look(&agent) {
            info!("the network changed");
            agent.overlay.network_changed();
        }
    }
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
