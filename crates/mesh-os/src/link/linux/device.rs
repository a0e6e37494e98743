//! What an interface itself is set to.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags},
};

use super::{Links, link_message};
use crate::link::LinkError;

impl Links {
    /// Brings interface `index` up or down.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), LinkError> {
        let mut message = link_message(index);
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("bring interface {index} {}", if up { "up" } else { "down" })
        })
    }

    /// Sets the MTU of interface `index`, in bytes.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), LinkError> {
        let mut message = link_message(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set the MTU of interface {index} to {mtu}")
        })
    }

    /// Sets how many packets wait at most in interface `index` for whoever reads them.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn set_queue(&mut self, index: u32, packets: u32) -> Result<(), LinkError> {
        let mut message = link_message(index);
        message.attributes.push(LinkAttribute::TxQueueLen(packets));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set the queue of interface {index} to {packets} packets")
        })
    }

    /// Sets of how many packets at most the large ones are made that the kernel hands to interface `index`.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn set_segments(&mut self, index: u32, packets: u32) -> Result<(), LinkError> {
        let mut message = link_message(index);
        message.attributes.push(LinkAttribute::GsoMaxSegs(packets));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set the large packets of interface {index} to {packets} packets")
        })
    }

    /// Keeps the kernel from giving interface `index` a link-local address: a tunnel has no use for one,
    /// and its solicitations would be sent into it.
    pub(in super::super) fn prepare(&mut self, index: u32) -> Result<(), LinkError> {
        let mut message = link_message(index);
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let spec = AfSpecUnspec::Inet6(vec![mode]);
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![spec]));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!(
                "keep interface {index} without link-local address (is IPv6 off on this machine?)"
            )
        })
    }
}
