//! macOS: requests to name an interface's addresses, the route socket for routes, and lists by `sysctl`.
//!
//! What goes in and comes out is in [`crate::darwin`].

use std::{
    ffi::CStr,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use ipnet::IpNet;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
};

use super::{
    LinkError, failed,
    underlay::{Address, DefaultRoute, Interface},
};
use crate::darwin::{
    ioctl::{self, IFF_LOOPBACK, IFF_POINTOPOINT, IFF_UP},
    route::{self, Change, Kind, Message, Via, loop_back},
    underlay::interface_past_tunnels,
};

/// Lists grow between the question for their size and the list itself; after so many tries one gives up.
const LIST_TRIES: usize = 4;

/// The interfaces of this machine.
#[derive(Debug)]
pub struct Links {
    /// What interfaces are asked for through, by family.
    inet: OwnedFd,
    inet6: OwnedFd,
}

impl Links {
    /// Opens a conversation with the kernel.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if a sandbox hides it.
    pub fn open() -> Result<Self, LinkError> {
        let open = |family| open_socket(family, libc::SOCK_DGRAM);
        let both = || Ok((open(libc::AF_INET)?, open(libc::AF_INET6)?));
        both()
            .map(|(inet, inet6)| Self { inet, inet6 })
            .map_err(failed(|| "open a socket for interfaces".to_owned()))
    }

    /// Brings interface `index` up or down.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), LinkError> {
        let action = || format!("bring interface {index} {}", if up { "up" } else { "down" });
        self.with_name(index, action, |links, name| {
            let mut flags = ioctl::ifreq(name);
            request(&links.inet, ioctl::GET_FLAGS, &mut flags)?;
            ioctl::set_up(&mut flags, up);
            request(&links.inet, ioctl::SET_FLAGS, &mut flags)
        })
    }

    /// Sets the MTU of interface `index`, in bytes.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), LinkError> {
        let action = || format!("set the MTU of interface {index} to {mtu}");
        self.with_name(index, action, |links, name| {
            request(
                &links.inet,
                ioctl::SET_MTU,
                &mut ioctl::ifreq_mtu(name, mtu),
            )
        })
    }

    /// How many packets wait for whoever reads them is not the interface's business here: they wait in the
    /// receive buffer of the `utun` socket, which is large from the start (512 KiB). Does nothing.
    ///
    /// # Errors
    ///
    /// None here.
    pub fn set_queue(&mut self, _index: u32, _packets: u32) -> Result<(), LinkError> {
        Ok(())
    }

    /// There are no large packets here. Does nothing.
    ///
    /// # Errors
    ///
    /// None here.
    pub fn set_segments(&mut self, _index: u32, _packets: u32) -> Result<(), LinkError> {
        Ok(())
    }

    /// Adds an address to interface `index`, for itself alone (/128 or /32) and usable at once (no
    /// duplicate address detection).
    ///
    /// # Errors
    ///
    /// [`LinkError`]; an address that is there already is none.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let action = || format!("add the address `{address}` to interface {index}");
        self.with_name(index, action, |links, name| match address.addr() {
            IpAddr::V6(ip) => {
                let mut alias = ioctl::add_address6(name, ip);
                request(&links.inet6, ioctl::ADD_ADDRESS6, &mut alias)
            }
            IpAddr::V4(ip) => {
                let mut alias = ioctl::add_address(name, ip);
                request(&links.inet, ioctl::ADD_ADDRESS, &mut alias)?;
                // Without it, only talking to one's own IPv4 address fails.
                if let Err(error) = replace_route(|kind| loop_back(ip, kind)) {
                    tracing::debug!(%error, "could not lead the own address back");
                }
                Ok(())
            }
        })
    }

    /// Removes an address from interface `index`.
    ///
    /// # Errors
    ///
    /// [`LinkError`], also if it is not there.
    pub fn remove_address(&mut self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let action = || format!("remove the address `{address}` from interface {index}");
        self.with_name(index, action, |links, name| match address.addr() {
            IpAddr::V6(ip) => {
                let mut named = ioctl::in6_ifreq(name, ip);
                request(&links.inet6, ioctl::DELETE_ADDRESS6, &mut named)
            }
            IpAddr::V4(ip) => {
                // It may be gone with the address of an earlier interface.
                let _ = change_route(loop_back(ip, Kind::Delete));
                let mut named = ioctl::delete_address(name, ip);
                request(&links.inet, ioctl::DELETE_ADDRESS, &mut named)
            }
        })
    }

    /// The addresses of interface `index`, with their prefix lengths; link-local ones, which the system
    /// gives to every interface, left out.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, LinkError> {
        let (_, addresses) = interfaces().map_err(failed(|| "list the addresses".to_owned()))?;
        Ok(addresses
            .into_iter()
            .filter(|address| address.interface == index && !is_link_local(address.net))
            .map(|address| address.net)
            .collect())
    }

    /// Routes `to` through interface `index`, with `source` as the address that packets leave with and `mtu` as
    /// the largest that goes there, instead of the interface's own.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; a route that is there already is none.
    pub fn add_route(
        &mut self,
        index: u32,
        to: IpNet,
        source: Option<IpAddr>,
        mtu: Option<u32>,
    ) -> Result<(), LinkError> {
        let set = || {
            let via = Via::Interface(short(index)?);
            replace_route(|kind| Change {
                kind,
                to,
                via,
                source,
                mtu,
            })
        };
        set().map_err(failed(|| format!("route `{to}` through interface {index}")))
    }

    /// Removes the route to `to` through interface `index`.
    ///
    /// # Errors
    ///
    /// [`LinkError`], also if it is not there.
    pub fn remove_route(&mut self, index: u32, to: IpNet) -> Result<(), LinkError> {
        let remove = || {
            change_route(Change {
                kind: Kind::Delete,
                to,
                via: Via::Interface(short(index)?),
                source: None,
                mtu: None,
            })
        };
        remove().map_err(failed(|| {
            format!("remove the route to `{to}` through interface {index}")
        }))
    }

    /// What is routed through interface `index`, multicast, broadcast and link-local networks left out.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn routes(&mut self, index: u32) -> Result<Vec<IpNet>, LinkError> {
        let routes = all_routes().map_err(failed(|| "list the routes".to_owned()))?;
        Ok(routes
            .into_iter()
            .filter(|route| route.interface == index && !route.is_scoped)
            .map(|route| route.to)
            .filter(|to| !is_link_local(*to) && !to.addr().is_multicast())
            .filter(|to| to.addr() != Ipv4Addr::BROADCAST)
            .collect())
    }

    /// The interface that this process's own packets are to be bound to, so that they do not leave through
    /// a tunnel (another VPN's) that has taken the routes to the world; `None` if there is no such tunnel.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn interface_past_tunnels(&mut self) -> Result<Option<u32>, LinkError> {
        let look = || Ok((interfaces()?.0, all_routes()?));
        let (interfaces, routes) = look().map_err(failed(|| "list the routes".to_owned()))?;
        Ok(interface_past_tunnels(&interfaces, &routes))
    }

    /// Link-local addresses stay: they do no harm here, and are left out of what is listed.
    pub(super) fn prepare(&mut self, _index: u32) -> Result<(), LinkError> {
        Ok(())
    }

    /// An address without duplicate address detection can be used as soon as it is set.
    pub(super) fn wait_delivered(&mut self, _addresses: &[IpNet]) -> Result<(), LinkError> {
        Ok(())
    }

    /// Whether interface `index` is up.
    pub(super) fn is_up(&mut self, index: u32) -> Result<bool, LinkError> {
        let (interfaces, _) = interfaces().map_err(failed(|| "list the interfaces".to_owned()))?;
        Ok(interfaces
            .iter()
            .any(|interface| interface.index == index && interface.flags & IFF_UP != 0))
    }

    /// All interfaces and addresses, to choose from.
    pub(super) fn underlay(&mut self) -> Result<(Vec<Interface>, Vec<Address>), LinkError> {
        let (interfaces, addresses) =
            interfaces().map_err(failed(|| "list the interfaces".to_owned()))?;
        let addresses = addresses.iter().map(|address| Address {
            interface: address.interface,
            ip: address.net.addr(),
            is_settled: self.is_settled(address),
        });
        let addresses = addresses.collect();
        let interfaces = interfaces.into_iter().map(|interface| Interface {
            index: interface.index,
            name: interface.name,
            is_up: interface.flags & IFF_UP != 0,
            is_loopback: interface.flags & IFF_LOOPBACK != 0,
            is_tunnel: interface.flags & IFF_POINTOPOINT != 0,
        });
        Ok((interfaces.collect(), addresses))
    }

    /// The default routes of IPv4 that lead to a router; those scoped to an interface come last.
    pub(super) fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, LinkError> {
        let routes = all_routes().map_err(failed(|| "list the routes".to_owned()))?;
        Ok(routes.iter().filter_map(default_route).collect())
    }

    /// Whether an address is neither a duplicate, nor still checked, nor on its way out. One that is gone
    /// by now is not settled.
    fn is_settled(&self, address: &route::Address) -> bool {
        let IpAddr::V6(ip) = address.net.addr() else {
            return true;
        };
        let Ok(name) = name_of(address.interface) else {
            return false;
        };
        let mut flags = ioctl::in6_ifreq(&name, ip);
        request(&self.inet6, ioctl::GET_ADDRESS_FLAGS6, &mut flags).is_ok()
            && ioctl::is_settled(&flags)
    }

    fn with_name(
        &self,
        index: u32,
        action: impl FnOnce() -> String,
        act: impl FnOnce(&Self, &str) -> io::Result<()>,
    ) -> Result<(), LinkError> {
        name_of(index)
            .and_then(|name| act(self, &name))
            .map_err(failed(action))
    }
}

/// A socket that hears of every change of interfaces, addresses and routes.
pub(super) fn listen_for_changes() -> io::Result<OwnedFd> {
    let fd = open_socket(libc::PF_ROUTE, libc::SOCK_RAW)?;
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// Whether what such a socket gave is worth a look.
pub(super) fn tells_of_change(messages: &[u8]) -> bool {
    route::tells_of_change(messages)
}

fn open_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes plain numbers.
    let fd = Errno::result(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Asks through `fd`; `N` is the size that is part of `number`.
fn request<const N: usize>(fd: &OwnedFd, number: u64, argument: &mut [u8; N]) -> io::Result<()> {
    debug_assert_eq!(number >> 16 & 0x1fff, N as u64, "the size is in the number");
    // SAFETY: the kernel reads and writes as many bytes as the number says, which `argument` has.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), number, argument.as_mut_ptr()) };
    Errno::result(asked)?;
    Ok(())
}

fn name_of(index: u32) -> io::Result<String> {
    let mut name = [0; ioctl::NAME_BYTES];
    // SAFETY: `name` has the room for the longest name and its zero (IFNAMSIZ).
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system wrote a name with a zero at its end into `name`, which `found` points to.
    let name = unsafe { CStr::from_ptr(found) };
    Ok(name.to_string_lossy().into_owned())
}

/// The index as routes have it.
fn short(index: u32) -> io::Result<u16> {
    u16::try_from(index).map_err(|_| io::Error::from(Errno::ENXIO))
}

/// Adds a route, or changes the one that is there.
fn replace_route(of_kind: impl Fn(Kind) -> Change) -> io::Result<()> {
    match change_route(of_kind(Kind::Add)) {
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
            // One that leads elsewhere is not always changed in place.
            change_route(of_kind(Kind::Change)).or_else(|_| {
                change_route(of_kind(Kind::Delete))?;
                change_route(of_kind(Kind::Add))
            })
        }
        result => result,
    }
}

/// Writes a change to a route socket of its own. The kernel refuses by the result of the write; what it
/// answers besides is not waited for.
fn change_route(change: Change) -> io::Result<()> {
    let socket = open_socket(libc::PF_ROUTE, libc::SOCK_RAW)?;
    let mut socket = std::fs::File::from(socket);
    let bytes = change.to_bytes(1);
    socket.write_all(&bytes)
}

fn interfaces() -> io::Result<(Vec<route::Interface>, Vec<route::Address>)> {
    let list = list(libc::AF_UNSPEC, libc::NET_RT_IFLIST2)?;
    let (mut interfaces, mut addresses) = (Vec::new(), Vec::new());
    for message in route::messages(&list) {
        match message {
            Message::Interface(interface) => interfaces.push(interface),
            Message::Address(address) => addresses.push(address),
            Message::Route(_) | Message::Other => {}
        }
    }
    Ok((interfaces, addresses))
}

fn all_routes() -> io::Result<Vec<route::Route>> {
    let mut routes = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let list = list(family, libc::NET_RT_DUMP)?;
        routes.extend(route::messages(&list).filter_map(|message| match message {
            Message::Route(route) => Some(route),
            Message::Interface(_) | Message::Address(_) | Message::Other => None,
        }));
    }
    Ok(routes)
}

/// One of the route socket's lists (sysctl(3), `CTL_NET`, `PF_ROUTE`).
fn list(family: libc::c_int, kind: libc::c_int) -> io::Result<Vec<u8>> {
    let mut name = [libc::CTL_NET, libc::PF_ROUTE, 0, family, kind, 0];
    let mut ask = |buffer: *mut u8, length: &mut usize| {
        // SAFETY: `name` has six numbers; the kernel writes at most `length` bytes to `buffer`, or none to
        // a null pointer, and how many (or how many there are) to `length`.
        let asked = unsafe {
            libc::sysctl(
                name.as_mut_ptr(),
                6,
                buffer.cast(),
                length,
                std::ptr::null_mut(),
                0,
            )
        };
        Errno::result(asked)
    };
    for _ in 0..LIST_TRIES {
        let mut length = 0;
        ask(std::ptr::null_mut(), &mut length)?;
        // Room for what is added meanwhile.
        length += length / 4 + 1024;
        let mut bytes = vec![0; length];
        match ask(bytes.as_mut_ptr(), &mut length) {
            Ok(_) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(Errno::ENOMEM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::ENOMEM.into())
}

fn default_route(route: &route::Route) -> Option<DefaultRoute> {
    let (0, Some(IpAddr::V4(gateway))) = (route.to.prefix_len(), route.gateway) else {
        return None;
    };
    Some(DefaultRoute {
        interface: route.interface,
        gateway,
        metric: u32::from(route.is_scoped),
    })
}

fn is_link_local(net: IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
