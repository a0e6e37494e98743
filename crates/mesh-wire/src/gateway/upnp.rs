//! UPnP's Internet Gateway Device: found by SSDP, described by XML, asked by SOAP.
//!
//! ```text
//!   M-SEARCH (UDP 1900) ──> LOCATION: http://192.168.1.1:5000/root.xml
//!   GET /root.xml ────────> controlURL of the service that maps ports
//!   POST (SOAP) ──────────> GetExternalIPAddress, AddPortMapping, …
//! ```
//!
//! A router may name any host in its answers; only those that name the router itself, as a number, are
//! taken. Documents are bounded in bytes by who fetches them ([`DOCUMENT_BYTES_MAX`]) and in nodes here.

use std::net::{Ipv4Addr, SocketAddrV4};

use roxmltree::{Document, ParsingOptions};

/// The UDP port of SSDP.
pub const PORT: u16 = 1900;

/// The group that devices listen on.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);

/// The longest document that is read. Descriptions of real routers have up to some 20 KiB.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// The most nodes of a document that are read, of about 100 bytes of memory each.
const NODES_MAX: u32 = 8 * 1024;

/// The longest path that is asked for.
const PATH_BYTES_MAX: usize = 512;

/// The services that map ports, the one that is taken first in front.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// A place on a router where something is asked by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The router.
    pub host: SocketAddrV4,
    /// Begins with a slash, and is printable ASCII without spaces.
    pub path: String,
}

/// The service of a router that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it is asked.
    pub url: Url,
    /// Its type, of the few that are known.
    pub kind: &'static str,
}

/// What a service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its external address.
    ExternalAddress,
    /// Who has a UDP port.
    Look {
        /// The external port.
        external_port: u16,
    },
    /// To map a UDP port.
    Add {
        /// The external port.
        external_port: u16,
        /// This machine's endpoint.
        internal: SocketAddrV4,
        /// For how long; zero: for good, which some routers insist on.
        lifetime_seconds: u32,
    },
    /// To map it no more.
    Delete {
        /// The external port.
        external_port: u16,
    },
}

/// What it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done. With what was asked for, as far as it makes sense.
    Done {
        /// `NewExternalIPAddress`.
        external: Option<Ipv4Addr>,
        /// `NewInternalClient`.
        client: Option<Ipv4Addr>,
    },
    /// Refused, with UPnP's number.
    Refused(u16),
}

/// An answer that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer of a UPnP router")]
pub struct Malformed;

/// Refusals that have a remedy.
pub mod refusal {
    /// There is no such mapping (`NoSuchEntryInArray`).
    pub const NO_ENTRY: u16 = 714;
    /// The port is somebody else's (`ConflictInMappingEntry`).
    pub const CONFLICT: u16 = 718;
    /// Mappings are for good or not at all (`OnlyPermanentLeasesSupported`).
    pub const PERMANENT_ONLY: u16 = 725;
}

/// The question for routers, to [`GROUP`] or to one router.
pub fn search() -> &'static [u8] {
    b"M-SEARCH * HTTP/1.1\r\n\
      HOST: 239.255.255.250:1900\r\n\
      ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
      MAN: \"ssdp:discover\"\r\n\
      MX: 1\r\n\r\n"
}

/// Where the answer to [`search`] says that the router describes itself.
///
/// # Errors
///
/// [`Malformed`], also if this is not on `router`.
pub fn location(answer: &[u8], router: Ipv4Addr) -> Result<Url, Malformed> {
    let text = str::from_utf8(answer).or(Err(Malformed))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return Err(Malformed);
    }
    let value = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("location")
            .then_some(value)
    });
    Url::parse(value.ok_or(Malformed)?.trim(), router)
}

impl Url {
    /// An absolute URL that leads to `router` by its number.
    fn parse(text: &str, router: Ipv4Addr) -> Result<Self, Malformed> {
        let rest = text.strip_prefix("http://").ok_or(Malformed)?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (ip, port) = host.split_once(':').unwrap_or((host, "80"));
        let ip: Ipv4Addr = ip.parse().or(Err(Malformed))?;
        let port: u16 = port.parse().or(Err(Malformed))?;
        if ip != router || port == 0 {
            return Err(Malformed);
        }
        let path = if path.is_empty() { "/" } else { path };
        Self::at(SocketAddrV4::new(ip, port), path)
    }

    fn at(host: SocketAddrV4, path: &str) -> Result<Self, Malformed> {
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || !path.starts_with('/') || path.len() > PATH_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(Self {
            host,
            path: path.to_owned(),
        })
    }

    /// What `text`, found in the document of this place, leads to.
    fn join(&self, text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if text.contains("://") {
            return Self::parse(text, *self.host.ip());
        }
        if text.starts_with('/') {
            return Self::at(self.host, text);
        }
        let folder = self.path.rfind('/').map_or("", |end| &self.path[..end]);
        Self::at(self.host, &format!("{folder}/{text}"))
    }
}

impl Service {
    /// The service in the description that `from` gave.
    ///
    /// # Errors
    ///
    /// [`Malformed`], also if it has none that is known, or it is elsewhere.
    pub fn parse(description: &[u8], from: &Url) -> Result<Self, Malformed> {
        let text = text(description)?;
        let document = parse(text)?;
        // UPnP 1.0: what relative URLs are relative to.
        let base = document
            .descendants()
            .find(|node| node.tag_name().name() == "URLBase")
            .and_then(|node| node.text())
            .map(str::trim)
            .filter(|base| !base.is_empty());
        let base = match base {
            Some(base) => from.join(base)?,
            None => from.clone(),
        };
        SERVICES
            .iter()
            .find_map(|kind| {
                let service = document.descendants().find(|node| {
                    node.tag_name().name() == "service" && child(*node, "serviceType") == Some(kind)
                })?;
                let url = base.join(child(service, "controlURL")?).ok()?;
                Some(Self { url, kind })
            })
            .ok_or(Malformed)
    }

    /// The value of the header `SOAPAction`, and the body.
    pub fn question(&self, action: Action) -> (String, String) {
        let name = action.name();
        let arguments = match action {
            Action::ExternalAddress => String::new(),
            Action::Look { external_port } | Action::Delete { external_port } => {
                port(external_port)
            }
            Action::Add {
                external_port,
                internal,
                lifetime_seconds,
            } => format!(
                "{}<NewInternalPort>{}</NewInternalPort><NewInternalClient>{}</NewInternalClient>\
                 <NewEnabled>1</NewEnabled><NewPortMappingDescription>mesh</NewPortMappingDescription>\
                 <NewLeaseDuration>{lifetime_seconds}</NewLeaseDuration>",
                port(external_port),
                internal.port(),
                internal.ip(),
            ),
        };
        let kind = self.kind;
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{name} xmlns:u=\"{kind}\">{arguments}</u:{name}></s:Body></s:Envelope>\r\n"
        );
        (format!("\"{kind}#{name}\""), body)
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::ExternalAddress => "GetExternalIPAddress",
            Self::Look { .. } => "GetSpecificPortMappingEntry",
            Self::Add { .. } => "AddPortMapping",
            Self::Delete { .. } => "DeletePortMapping",
        }
    }
}

impl Answer {
    /// Reads the body of the answer with this status of HTTP.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn parse(status: u16, body: &[u8]) -> Result<Self, Malformed> {
        let text = text(body)?;
        let document = parse(text)?;
        let value = |name: &str| {
            let node = document
                .descendants()
                .find(|node| node.tag_name().name() == name);
            node.and_then(|node| node.text()).map(str::trim)
        };
        let ip = |name: &str| value(name).and_then(|text| text.parse().ok());
        match (status, value("errorCode")) {
            (200, None) => Ok(Self::Done {
                external: ip("NewExternalIPAddress"),
                client: ip("NewInternalClient"),
            }),
            (_, Some(code)) => code.parse().map(Self::Refused).or(Err(Malformed)),
            (_, None) => Err(Malformed),
        }
    }
}

/// The arguments by which a mapping of UDP is named.
fn port(external: u16) -> String {
    format!(
        "<NewRemoteHost></NewRemoteHost><NewExternalPort>{external}</NewExternalPort>\
         <NewProtocol>UDP</NewProtocol>"
    )
}

fn text(document: &[u8]) -> Result<&str, Malformed> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(Malformed);
    }
    let text = str::from_utf8(document).or(Err(Malformed))?;
    // Some routers end their documents with a zero.
    Ok(text.trim_end_matches('\0').trim())
}

fn parse(text: &str) -> Result<Document<'_>, Malformed> {
    let options = ParsingOptions {
        // No definitions, so no entities that grow.
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).or(Err(Malformed))
}

fn child<'a>(node: roxmltree::Node<'a, '_>, name: &str) -> Option<&'a str> {
    let child = node.children().find(|node| node.tag_name().name() == name);
    child.and_then(|node| node.text()).map(str::trim)
}

#[cfg(test)]
mod tests;
