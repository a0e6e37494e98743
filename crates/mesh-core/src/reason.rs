//! Why a peer is reached as it is, or is not.

use mesh_types::Instant;
use mesh_wire::tunnel::RelayRefused;

/// What holds of a peer at a moment: exactly one of these, of every peer, and none of them is "unknown".
///
/// Says what this machine knows and no more. `docs/paths.md` lists them with what helps; a test compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Packets go straight, by UDP.
    Direct,
    /// Packets go straight in a stream or a connection on port 443: plain UDP is not answered.
    Stream,
    /// Relayed while straight ways are being tried.
    Searching {
        /// When the search began.
        since: Instant,
    },
    /// Relayed: the straight way answered until then, and does not any more.
    StraightSilent {
        /// When it was left.
        since: Instant,
    },
    /// Relayed: the straight way was left, answers again, and is taken after so many more answers.
    StraightOwes {
        /// How many.
        answers: u32,
    },
    /// Relayed: the inventory lets the two speak through moons alone.
    RelayOnly,
    /// Relayed: nobody told where else the peer may be reached.
    NoCandidates,
    /// Relayed: the peer has endpoints of one IP family only, this machine addresses of the other only.
    NoCommonFamily,
    /// Relayed: on both sides a NAT gives each destination another port, so that neither can tell the other
    /// where to send to.
    BothNatsVary {
        /// What came of guessing it.
        prediction: Prediction,
    },
    /// Relayed: this side's NAT gives each destination another port, and no candidate answers.
    OwnNatVaries,
    /// Relayed: the peer's NAT gives each destination another port, and no candidate answers.
    PeerNatVaries,
    /// Relayed: no candidate answers, and no NAT is known that explains it.
    NoAnswer {
        /// How many candidates there are.
        candidates: usize,
        /// How many probes went to them.
        probes: u32,
    },
    /// Nothing is sent, and nothing expected.
    #[default]
    NoTraffic,
    /// The first handshakes are under way.
    Handshake {
        /// Since when.
        since: Instant,
    },
    /// Not reached: no endpoint of it is known, and no moon relays.
    NoWay,
    /// Not reached: this machine has no address of a network.
    NoNetwork {
        /// Since when the peer has not answered.
        since: Instant,
    },
    /// Not reached: handshakes wait until this machine has stored their stamps.
    NeedsDisk {
        /// Since when.
        since: Instant,
    },
    /// Not reached: it does not answer, and of this machine's moons none does.
    NoMoonAnswers {
        /// Since when the peer has not answered.
        since: Instant,
    },
    /// Not reached: it does not answer, and the moons relay nothing for this machine.
    MoonsRefuse {
        /// Since when the peer has not answered.
        since: Instant,
        /// What one of them said.
        refused: RelayRefused,
    },
    /// Not reached: a moon that answers has not heard of it lately.
    NotThere {
        /// Since when the peer has not answered.
        since: Instant,
    },
    /// Not reached: a moon's roster does not let the two talk.
    NotAllowed {
        /// Since when the peer has not answered.
        since: Instant,
    },
    /// Not reached: handshakes are not answered.
    Unanswered {
        /// Since when.
        since: Instant,
        /// By how many ways they are tried.
        ways: usize,
    },
    /// Not reached: there is a session, and nothing comes back.
    Silent {
        /// Since when.
        since: Instant,
    },
    /// Not tried: switched off in the roster.
    SwitchedOff,
    /// Not tried: the roster has no key of it.
    NoKey,
    /// Not tried: a guest, whom only its gateways reach.
    Guest,
    /// Not tried: a guest, and the roster names no gateway.
    GuestWithoutGateway,
    /// Not tried: this machine is not admitted.
    NotAdmitted,
    /// Not tried: it is this machine.
    ThisMachine,
}

/// What came of foretelling the ports of two NATs that give each destination another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prediction {
    /// Nothing is known: it was not tried yet, or is left to the peer.
    #[default]
    Pending,
    /// Fewer than two moons said where they see another socket of this machine.
    Unmeasured,
    /// The NAT here gives ports in no order.
    UnorderedHere,
    /// The peer says the same of its own.
    UnorderedThere,
    /// The peer does not say what its NAT does.
    Unanswered,
    /// So many attempts in a row found no port.
    Missed {
        /// How many.
        attempts: u32,
    },
}

/// What a reason comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Packets go straight.
    Straight,
    /// Packets go through a moon.
    Relayed,
    /// Nothing is sent.
    Idle,
    /// A handshake is under way.
    Connecting,
    /// It was tried, and does not answer.
    Unreachable,
    /// It is not tried.
    Untried,
}

impl Reach {
    /// Whether this machine looks for where the peer is.
    pub const fn is_sought(self) -> bool {
        matches!(self, Self::Connecting | Self::Unreachable)
    }
}

impl Reason {
    /// A word for programs: it stays the same from release to release.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Stream => "stream",
            Self::Searching { .. } => "searching",
            Self::StraightSilent { .. } => "straight-silent",
            Self::StraightOwes { .. } => "straight-owes",
            Self::RelayOnly => "relay-only",
            Self::NoCandidates => "no-candidates",
            Self::NoCommonFamily => "no-common-family",
            Self::BothNatsVary { .. } => "both-nats-vary",
            Self::OwnNatVaries => "own-nat-varies",
            Self::PeerNatVaries => "peer-nat-varies",
            Self::NoAnswer { .. } => "no-answer",
            Self::NoTraffic => "no-traffic",
            Self::Handshake { .. } => "handshake",
            Self::NoWay => "no-way",
            Self::NoNetwork { .. } => "no-network",
            Self::NeedsDisk { .. } => "needs-disk",
            Self::NoMoonAnswers { .. } => "no-moon-answers",
            Self::MoonsRefuse { .. } => "moons-refuse",
            Self::NotThere { .. } => "not-there",
            Self::NotAllowed { .. } => "not-allowed",
            Self::Unanswered { .. } => "unanswered",
            Self::Silent { .. } => "silent",
            Self::SwitchedOff => "switched-off",
            Self::NoKey => "no-key",
            Self::Guest => "guest",
            Self::GuestWithoutGateway => "guest-without-gateway",
            Self::NotAdmitted => "not-admitted",
            Self::ThisMachine => "this-machine",
        }
    }

    /// What it comes down to.
    pub const fn reach(self) -> Reach {
        match self {
            Self::Direct | Self::Stream => Reach::Straight,
            Self::Searching { .. }
            | Self::StraightSilent { .. }
            | Self::StraightOwes { .. }
            | Self::RelayOnly
            | Self::NoCandidates
            | Self::NoCommonFamily
            | Self::BothNatsVary { .. }
            | Self::OwnNatVaries
            | Self::PeerNatVaries
            | Self::NoAnswer { .. } => Reach::Relayed,
            Self::NoTraffic => Reach::Idle,
            Self::Handshake { .. } => Reach::Connecting,
            Self::NoWay
            | Self::NoNetwork { .. }
            | Self::NeedsDisk { .. }
            | Self::NoMoonAnswers { .. }
            | Self::MoonsRefuse { .. }
            | Self::NotThere { .. }
            | Self::NotAllowed { .. }
            | Self::Unanswered { .. }
            | Self::Silent { .. } => Reach::Unreachable,
            Self::SwitchedOff
            | Self::NoKey
            | Self::Guest
            | Self::GuestWithoutGateway
            | Self::NotAdmitted
            | Self::ThisMachine => Reach::Untried,
        }
    }

    /// Since when the peer has not answered, if it does not.
    pub const fn unanswered_since(self) -> Option<Instant> {
        match self {
            Self::Handshake { since }
            | Self::NoNetwork { since }
            | Self::NeedsDisk { since }
            | Self::NoMoonAnswers { since }
            | Self::MoonsRefuse { since, .. }
            | Self::NotThere { since }
            | Self::NotAllowed { since }
            | Self::Unanswered { since, .. }
            | Self::Silent { since } => Some(since),
            Self::Direct
            | Self::Stream
            | Self::Searching { .. }
            | Self::StraightSilent { .. }
            | Self::StraightOwes { .. }
            | Self::RelayOnly
            | Self::NoCandidates
            | Self::NoCommonFamily
            | Self::BothNatsVary { .. }
            | Self::OwnNatVaries
            | Self::PeerNatVaries
            | Self::NoAnswer { .. }
            | Self::NoTraffic
            | Self::NoWay
            | Self::SwitchedOff
            | Self::NoKey
            | Self::Guest
            | Self::GuestWithoutGateway
            | Self::NotAdmitted
            | Self::ThisMachine => None,
        }
    }
}

/// What is known of the NATs between this machine and the internet, for one IP family: what its moons see
/// of it, compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// No moon sees this machine by this family.
    Unseen,
    /// Moons see it at an address and port of its own.
    None,
    /// One moon sees it at another endpoint than its own: there is a NAT, and what it does for other
    /// destinations is not known.
    Translated,
    /// Several moons see it at the same endpoint.
    Same,
    /// Several moons see it at different endpoints: each destination gets another.
    Varies,
}
