//! What a router does with what passes: the kernel's own NAT and filter.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// What a router does with what passes (RFC 4787's words in brackets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Lets everything pass, of both families, and translates nothing.
    Open,
    /// Translates nothing, and lets in what comes from where something was sent; both families.
    Firewall,
    /// The same for IPv6 alone; there is no IPv4.
    FirewallIpv6,
    /// Translates and keeps the port where it can, so that all destinations see one mapping; lets in what
    /// comes from where something was sent (port-preserving, address- and port-dependent filtering). No IPv6.
    Masquerade,
    /// Translates to a random port for each destination (address- and port-dependent mapping). No IPv6.
    MasqueradeRandom,
    /// [`Router::Masquerade`] without a filter before the router itself: what comes unasked is the router's
    /// own, and the kernel gives its port to nobody else for as long as it remembers it.
    MasqueradeUnfiltered,
    /// [`Router::MasqueradeRandom`] for IPv4, and [`Router::FirewallIpv6`].
    DualStack,
}

impl Router {
    pub(crate) const fn translates(self) -> bool {
        match self {
            Self::Open | Self::Firewall | Self::FirewallIpv6 => false,
            Self::Masquerade
            | Self::MasqueradeRandom
            | Self::MasqueradeUnfiltered
            | Self::DualStack => true,
        }
    }

    pub(crate) const fn carries_ipv4(self) -> bool {
        !matches!(self, Self::FirewallIpv6)
    }

    pub(crate) const fn carries_ipv6(self) -> bool {
        match self {
            Self::Open | Self::Firewall | Self::FirewallIpv6 | Self::DualStack => true,
            Self::Masquerade | Self::MasqueradeRandom | Self::MasqueradeUnfiltered => false,
        }
    }

    pub(crate) fn rules(self, outer: &str, inner: &str) -> String {
        self.rules_after(0, outer, inner)
    }

    /// The rules after the NAT was started anew so many times.
    ///
    /// What comes unasked is dropped, as routers do: a connection that the kernel began to track for it would
    /// take the port from the machine behind.
    pub(crate) fn rules_after(self, rebinds: u16, outer: &str, inner: &str) -> String {
        let ports = match self {
            Self::MasqueradeRandom | Self::DualStack => "fully-random".to_owned(),
            Self::Masquerade | Self::MasqueradeUnfiltered if rebinds > 0 => {
                format!("to :{}", 20_000 + rebinds)
            }
            Self::Masquerade
            | Self::MasqueradeUnfiltered
            | Self::Open
            | Self::Firewall
            | Self::FirewallIpv6 => String::new(),
        };
        let translate = if self.translates() {
            format!(
                "chain translate {{
    type nat hook postrouting priority srcnat;
    oifname {outer} meta nfproto ipv4 meta l4proto udp masquerade {ports};
    oifname {outer} meta nfproto ipv4 masquerade;
  }}"
            )
        } else {
            String::new()
        };
        let arrive = if self == Self::MasqueradeUnfiltered {
            String::new()
        } else {
            format!(
                "chain arrive {{
    type filter hook input priority filter;
    iifname {outer} meta l4proto udp drop;
  }}"
            )
        };
        let policy = if self == Self::Open { "accept" } else { "drop" };
        format!(
            "table inet router
delete table inet router
table inet router {{
  {translate}
  {arrive}
  chain pass {{
    type filter hook forward priority filter; policy {policy};
    ct state established,related accept
    iifname {inner} accept
  }}
}}
"
        )
    }
}

/// Has `nft` apply a file, in this thread's namespace.
pub(crate) fn apply(rules: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run `nft`")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "`nft` failed ({status}) on:\n{rules}");
    Ok(())
}

/// Makes the NAT of this thread's namespace forget what it translates.
pub(crate) fn forget_mappings() -> anyhow::Result<()> {
    let netfilter = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // IPCTNL_MSG_CT_DELETE of the subsystem NFNL_SUBSYS_CTNETLINK, for all families and without a connection:
    // all of them. NLM_F_REQUEST | NLM_F_ACK; see linux/netfilter/nfnetlink.h.
    let length: u32 = 20;
    let kind: u16 = (1 << 8) | 2;
    let flags: u16 = 5;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 12]);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&netfilter);
    sendto(fd, &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(fd, &mut answer, MsgFlags::empty())?;
    ensure!(
        length >= 20 && answer[16..20] == [0; 4],
        "the kernel does not forget its connections: {:?}",
        &answer[..length]
    );
    Ok(())
}
