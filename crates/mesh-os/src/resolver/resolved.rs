//! systemd-resolved, by its D-Bus interface (org.freedesktop.resolve1(5)).
//!
//! What is set belongs to the interface: it goes when the interface goes, whatever happens to us.

use std::{net::Ipv6Addr, time::Duration};

use nix::net::if_::if_nametoindex;
use serde::Serialize;
use zbus::{Connection, DynamicType, connection::Builder};

use super::Split;

const NAME: &str = "org.freedesktop.resolve1";
const OBJECT: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";

/// How long an answer may take: systemd may have to start the service first.
const LIMIT: Duration = Duration::from_secs(10);

/// `AF_INET6` of Linux, as an argument.
const IPV6: i32 = libc::AF_INET6;

/// Whether it runs: whether its name is taken. It is not started for the question.
pub(super) fn runs() -> bool {
    let asked = on_the_bus(async |bus| {
        let answer = bus
            .call_method(
                Some("org.freedesktop.DBus"),
                "/org/freedesktop/DBus",
                Some("org.freedesktop.DBus"),
                "NameHasOwner",
                &(NAME,),
            )
            .await?;
        answer.body().deserialize::<bool>()
    });
    asked.unwrap_or(false)
}

/// Makes it ask the agent for the domain and the reverse zones, and for nothing else, over the mesh's
/// interface.
///
/// # Errors
///
/// Says what was refused; nothing is set then.
pub(super) fn set(split: &Split) -> Result<(), String> {
    let index = if_nametoindex(split.interface.as_str())
        .map_err(|error| format!("there is no interface `{}`: {error}", split.interface))?;
    let done = on_the_bus(async |bus| {
        let result = set_link(bus, number(index)?, split).await;
        if result.is_err() {
            let _ = call(bus, "RevertLink", &(number(index)?,)).await;
        }
        result
    });
    done.map_err(|error| format!("it refused: {error}"))
}

/// Takes back what was set for an interface, if there still is that one.
///
/// # Errors
///
/// Says what was refused.
pub(super) fn revert(interface: &str, index: u32) -> Result<(), String> {
    if if_nametoindex(interface) != Ok(index) || !runs() {
        return Ok(());
    }
    on_the_bus(async |bus| call(bus, "RevertLink", &(number(index)?,)).await)
        .map_err(|error| format!("it refused: {error}"))
}

async fn set_link(bus: &Connection, index: i32, split: &Split) -> zbus::Result<()> {
    // First of all: with servers and no domains, it would be asked for everything.
    call(bus, "SetLinkDefaultRoute", &(index, false)).await?;
    let zones = std::iter::once(&split.domain).chain(&split.reverse);
    // True: for routing only, never appended to a name that was asked for.
    let domains: Vec<(&str, bool)> = zones.map(|zone| (zone.as_str(), true)).collect();
    call(bus, "SetLinkDomains", &(index, domains)).await?;
    // The agent's zone is not signed, and what says so is above it, where nobody is asked. The packets go
    // through the tunnel, or never leave this machine.
    call(bus, "SetLinkDNSSEC", &(index, "no")).await?;
    call(bus, "SetLinkDNSOverTLS", &(index, "no")).await?;
    call(bus, "SetLinkLLMNR", &(index, "no")).await?;
    call(bus, "SetLinkMulticastDNS", &(index, "no")).await?;
    call(bus, "SetLinkDNS", &(index, servers(split.server))).await
}

fn servers(server: Ipv6Addr) -> Vec<(i32, Vec<u8>)> {
    vec![(IPV6, server.octets().to_vec())]
}

async fn call<B: Serialize + DynamicType>(
    bus: &Connection,
    method: &str,
    body: &B,
) -> zbus::Result<()> {
    bus.call_method(Some(NAME), OBJECT, Some(MANAGER), method, body)
        .await
        .map(drop)
}

fn number(index: u32) -> zbus::Result<i32> {
    i32::try_from(index).map_err(|_| zbus::Error::Failure(format!("{index} is no interface")))
}

/// Connects to the system's bus for the time of `work`.
fn on_the_bus<T>(work: impl AsyncFnOnce(&Connection) -> zbus::Result<T>) -> zbus::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let whole = async {
            let bus = Builder::system().method_timeout(LIMIT).build().await?;
            work(&bus).await
        };
        // The bus itself may not answer either.
        match tokio::time::timeout(2 * LIMIT, whole).await {
            Ok(result) => result,
            Err(_) => Err(zbus::Error::Failure(
                "the system's bus does not answer".to_owned(),
            )),
        }
    })
}
