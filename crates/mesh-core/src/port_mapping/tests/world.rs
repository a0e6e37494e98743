use mesh_wire::gateway::{nat_pmp, pcp};

use super::*;

/// A router, and the clock.
pub(super) struct World {
    pub(super) mapper: PortMapper,
    pub(super) now: Instant,
    pub(super) speaks: Vec<MappingProtocol>,
    pub(super) outside: Ipv4Addr,
    pub(super) started: Instant,
    /// External port and what is left of it.
    pub(super) mapped: Option<(u16, Option<Instant>)>,
    pub(super) lifetime_seconds: u32,
    pub(super) permanent_only: bool,
    /// Ports that are another machine's.
    pub(super) taken: Vec<u16>,
    pub(super) asks: usize,
}

impl World {
    pub(super) fn new(speaks: &[MappingProtocol]) -> Self {
        Self {
            mapper: PortMapper::new(NONCE, PORT),
            now: Instant::from_micros(50_000_000),
            speaks: speaks.to_vec(),
            outside: OUTSIDE,
            started: Instant::ZERO,
            mapped: None,
            lifetime_seconds: seconds(LEASE),
            permanent_only: false,
            taken: Vec::new(),
            asks: 0,
        }
    }

    pub(super) fn begin(speaks: &[MappingProtocol]) -> Self {
        let mut world = Self::new(speaks);
        world.mapper.set_gateway(Ok(GATEWAY), world.now);
        world.settle();
        world
    }

    /// Answers what is asked, until nothing more is.
    pub(super) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100, "it asks and asks: {:?}", self.mapper);
            let Some(ask) = self.mapper.poll_ask() else {
                return;
            };
            self.asks += 1;
            self.answer(ask);
        }
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            let next = self.mapper.poll_timeout().filter(|at| *at <= end);
            let Some(next) = next else {
                break;
            };
            self.now = next.max(self.now);
            if self
                .mapped
                .is_some_and(|(_, until)| until.is_some_and(|it| it <= self.now))
            {
                self.mapped = None;
            }
            self.mapper.handle_timeout(self.now);
            let later = self.mapper.poll_timeout();
            assert!(
                later.is_none_or(|at| at > self.now),
                "a busy loop: {:?}",
                self.mapper
            );
        }
        self.now = end;
    }

    pub(super) fn restart_router(&mut self) {
        self.mapped = None;
        self.started = self.now;
    }

    fn epoch(&self) -> u32 {
        seconds(self.now.saturating_since(self.started))
    }

    fn map(&mut self, suggested: u16, seconds: u32) -> u16 {
        if seconds == 0 {
            self.mapped = None;
            return 0;
        }
        let port = self.mapped.map_or(suggested, |(port, _)| port);
        let lifetime = Duration::from_secs(self.lifetime_seconds.into());
        self.mapped = Some((port, Some(self.now + lifetime)));
        port
    }

    fn answer(&mut self, ask: GatewayAsk) {
        match ask {
            GatewayAsk::Datagram { to, bytes } => {
                let pcp = self.speaks.contains(&MappingProtocol::Pcp);
                let nat_pmp = self.speaks.contains(&MappingProtocol::NatPmp);
                let upnp = self.speaks.contains(&MappingProtocol::Upnp);
                if *to.ip() != ROUTER {
                    return;
                }
                let answer = match (to.port(), bytes[0]) {
                    (gateway::PORT, pcp::VERSION) if pcp => self.pcp(&bytes),
                    (gateway::PORT, pcp::VERSION) if nat_pmp => {
                        [&[0, bytes[1] | 0x80, 0, 1][..], &self.epoch().to_be_bytes()].concat()
                    }
                    (gateway::PORT, nat_pmp::VERSION) if nat_pmp => self.nat_pmp(&bytes),
                    (upnp::PORT, _) if upnp => {
                        b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/d.xml\r\n\r\n"
                            .to_vec()
                    }
                    _ => return,
                };
                self.mapper.handle_datagram(to, &answer, self.now);
            }
            GatewayAsk::Http { id, url, soap } => {
                let (status, body) = self.http(&url, soap.as_ref());
                self.mapper
                    .handle_http(id, Ok((status, body.as_bytes())), self.now);
            }
        }
    }

    pub(super) fn pcp(&mut self, question: &[u8]) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[1] |= 0x80;
        answer[8..12].copy_from_slice(&self.epoch().to_be_bytes());
        if question[1] == 1 {
            let asked = u32::from_be_bytes(question[4..8].try_into().unwrap());
            let suggested = u16::from_be_bytes([question[42], question[43]]);
            let port = self.map(suggested, asked);
            let lifetime = if asked == 0 { 0 } else { self.lifetime_seconds };
            answer[4..8].copy_from_slice(&lifetime.to_be_bytes());
            answer[42..44].copy_from_slice(&port.to_be_bytes());
            answer[44..60].copy_from_slice(&self.outside.to_ipv6_mapped().octets());
        }
        answer
    }

    pub(super) fn nat_pmp(&mut self, question: &[u8]) -> Vec<u8> {
        let epoch = self.epoch().to_be_bytes();
        if question[1] == 0 {
            return [&[0, 128, 0, 0][..], &epoch, &self.outside.octets()].concat();
        }
        let asked = u32::from_be_bytes(question[8..12].try_into().unwrap());
        let port = self.map(u16::from_be_bytes([question[6], question[7]]), asked);
        let lifetime = if asked == 0 { 0 } else { self.lifetime_seconds };
        [
            &[0, 129, 0, 0][..],
            &epoch,
            &question[4..6],
            &port.to_be_bytes(),
            &lifetime.to_be_bytes(),
        ]
        .concat()
    }

    fn http(&mut self, url: &Url, soap: Option<&(String, String)>) -> (u16, String) {
        assert_eq!(*url.host.ip(), ROUTER);
        let Some((action, body)) = soap else {
            return (
                200,
                "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
                 </serviceType><controlURL>/c</controlURL></service></root>"
                    .to_owned(),
            );
        };
        let value = |name: &str| {
            let rest = body.split_once(&format!("<{name}>")).unwrap().1;
            rest.split_once('<').unwrap().0.to_owned()
        };
        let refuse = |code: u16| (500, format!("<f><errorCode>{code}</errorCode></f>"));
        let client = |ip: &str| {
            (
                200,
                format!("<r><NewInternalClient>{ip}</NewInternalClient></r>"),
            )
        };
        let action = action.split_once('#').unwrap().1.trim_end_matches('"');
        match action {
            "GetExternalIPAddress" => (
                200,
                format!(
                    "<r><NewExternalIPAddress>{}</NewExternalIPAddress></r>",
                    self.outside
                ),
            ),
            "GetSpecificPortMappingEntry" => {
                let port = value("NewExternalPort").parse().unwrap();
                match self.mapped {
                    _ if self.taken.contains(&port) => client("192.168.1.77"),
                    Some((mapped, _)) if mapped == port => client("192.168.1.5"),
                    _ => refuse(upnp::refusal::NO_ENTRY),
                }
            }
            "AddPortMapping" => {
                let port: u16 = value("NewExternalPort").parse().unwrap();
                let lifetime: u32 = value("NewLeaseDuration").parse().unwrap();
                assert!(
                    !self.taken.contains(&port),
                    "another machine's port is left alone"
                );
                if self.permanent_only && lifetime > 0 {
                    return refuse(upnp::refusal::PERMANENT_ONLY);
                }
                let until = (lifetime > 0).then(|| self.now + LEASE);
                self.mapped = Some((port, until));
                (200, "<r/>".to_owned())
            }
            "DeletePortMapping" => {
                self.mapped = None;
                (200, "<r/>".to_owned())
            }
            other => panic!("{other}"),
        }
    }

    pub(super) fn reason(&self) -> Unmapped {
        self.mapper.view().mapped.unwrap_err()
    }
}
