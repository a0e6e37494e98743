//! What is said to a router by UPnP, one question after the other.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use mesh_types::Instant;
use mesh_wire::gateway::upnp::{Action, Answer, Service, Url, refusal};

use super::{LEASE, MappingProtocol, Port, Unmapped, is_public, questions::seconds};

/// How long an answer may take; who asks gives up a second earlier.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Ports that are tried, as long as they are others'.
const PORTS_MAX: usize = 4;

/// The ports that no service has (RFC 6335).
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// A conversation, from the description to the mapping.
#[derive(Debug)]
pub(super) struct Conversation {
    /// The question that waits for an answer, and until when.
    pub(super) id: u64,
    pub(super) deadline: Instant,
    step: Step,
    port: Port,
    /// Ports that were others'.
    taken: usize,
    lifetime_seconds: u32,
}

/// What was asked last.
#[derive(Clone, Debug)]
enum Step {
    Describe(Url),
    Address(Service),
    Look(Service, Ipv4Addr),
    Add(Service, Ipv4Addr),
}

/// What comes of an answer.
pub(super) enum Outcome {
    /// A further question: where, and SOAP's action and body.
    Ask(Url, Option<(String, String)>),
    Mapped {
        service: Service,
        external: SocketAddrV4,
        /// Zero: for good.
        lifetime_seconds: u32,
    },
    Failed(Unmapped),
}

impl Conversation {
    /// With a router that describes itself at `url`.
    pub(super) fn new(url: Url, port: Port) -> Self {
        Self::at(Step::Describe(url), port)
    }

    /// With a router that mapped the port before.
    pub(super) fn renew(service: Service, port: Port) -> Self {
        Self::at(Step::Address(service), port)
    }

    fn at(step: Step, port: Port) -> Self {
        Self {
            id: u64::MAX,
            deadline: Instant::ZERO,
            step,
            port,
            taken: 0,
            lifetime_seconds: seconds(LEASE),
        }
    }

    pub(super) fn begin(&mut self) -> Outcome {
        self.ask()
    }

    /// Takes the answer to the last question.
    pub(super) fn handle(&mut self, answer: Result<(u16, &[u8]), String>) -> Outcome {
        const NONSENSE: Unmapped = Unmapped::Nonsense(MappingProtocol::Upnp);
        let (status, body) = match answer {
            Ok(answer) => answer,
            Err(reason) => return Outcome::Failed(Unmapped::Http(reason)),
        };
        let refused = |code| Outcome::Failed(Unmapped::Refused(MappingProtocol::Upnp, code));
        let step = self.step.clone();
        if let Step::Describe(url) = step {
            return match Service::parse(body, &url) {
                Ok(service) if status == 200 => self.go(Step::Address(service)),
                Ok(_) | Err(_) => Outcome::Failed(NONSENSE),
            };
        }
        let answer = Answer::parse(status, body);
        match (step, answer) {
            (Step::Describe(_), _) => Outcome::Failed(NONSENSE),
            (Step::Address(service), Ok(Answer::Done { external, .. })) => match external {
                Some(ip) if is_public(ip) => self.go(Step::Look(service, ip)),
                Some(ip) => Outcome::Failed(Unmapped::BehindNat(ip)),
                None => Outcome::Failed(NONSENSE),
            },
            // A router may write over what is another machine's: looked up first.
            (Step::Look(service, ip), Ok(Answer::Done { client, .. })) => {
                if client.is_some_and(|client| client != *self.port.internal.ip()) {
                    return self.next_port(service, ip);
                }
                self.go(Step::Add(service, ip))
            }
            (Step::Look(service, ip), Ok(Answer::Refused(_)) | Err(_)) => {
                self.go(Step::Add(service, ip))
            }
            (Step::Add(service, ip), Ok(Answer::Done { .. })) => Outcome::Mapped {
                service,
                external: SocketAddrV4::new(ip, self.port.external),
                lifetime_seconds: self.lifetime_seconds,
            },
            (Step::Add(service, ip), Ok(Answer::Refused(refusal::CONFLICT))) => {
                self.next_port(service, ip)
            }
            (Step::Add(service, ip), Ok(Answer::Refused(refusal::PERMANENT_ONLY)))
                if self.lifetime_seconds > 0 =>
            {
                self.lifetime_seconds = 0;
                self.go(Step::Add(service, ip))
            }
            (Step::Address(_) | Step::Add(..), Ok(Answer::Refused(code))) => refused(code),
            (Step::Address(_) | Step::Add(..), Err(_)) => Outcome::Failed(NONSENSE),
        }
    }

    fn next_port(&mut self, service: Service, ip: Ipv4Addr) -> Outcome {
        self.taken += 1;
        if self.taken >= PORTS_MAX {
            let reason = Unmapped::Refused(MappingProtocol::Upnp, refusal::CONFLICT);
            return Outcome::Failed(reason);
        }
        let secret = &self.port.nonce.0[2 * self.taken..];
        let random = u16::from_be_bytes([secret[0], secret[1]]);
        self.port.external = DYNAMIC_PORTS.start() + random % (DYNAMIC_PORTS.len() as u16);
        self.go(Step::Look(service, ip))
    }

    fn go(&mut self, step: Step) -> Outcome {
        self.step = step;
        self.ask()
    }

    fn ask(&mut self) -> Outcome {
        let external_port = self.port.external;
        let (service, action) = match &self.step {
            Step::Describe(url) => return Outcome::Ask(url.clone(), None),
            Step::Address(service) => (service, Action::ExternalAddress),
            Step::Look(service, _) => (service, Action::Look { external_port }),
            Step::Add(service, _) => (
                service,
                Action::Add {
                    external_port,
                    internal: self.port.internal,
                    lifetime_seconds: self.lifetime_seconds,
                },
            ),
        };
        Outcome::Ask(service.url.clone(), Some(service.question(action)))
    }
}
