//! Each reason in words: what holds of a peer, and what would help.

use std::time::Duration;

use mesh_core::{Prediction, Reason};
use mesh_inventory::roster::Member;
use mesh_types::AGENT_PORT;
use mesh_wire::tunnel::RelayRefused;

use super::{Scene, skew_reason};

/// What `mesh status` shows of a peer; `None`: all is as it should be.
pub(crate) fn short(
    reason: Reason,
    member: &Member,
    skew: Option<Duration>,
    scene: &Scene,
) -> Option<String> {
    let text = match reason {
        Reason::Direct => return None,
        Reason::Stream => "only port 443 answers".to_owned(),
        Reason::Searching { .. } => "looking for a straight way".to_owned(),
        Reason::StraightSilent { since } => {
            format!("its straight way fell silent {} ago", scene.age(since))
        }
        Reason::StraightOwes { answers } => {
            format!("its straight way answers again, and is taken after {answers} more answers")
        }
        Reason::RelayOnly => "by the inventory, this pair is relayed".to_owned(),
        Reason::NoCandidates => "nobody said where else it is".to_owned(),
        Reason::NoCommonFamily => "the two have no IP version in common".to_owned(),
        Reason::BothNatsVary { prediction } => format!(
            "both NATs give each destination another port{}",
            predicted(prediction)
        ),
        Reason::OwnNatVaries => "the NAT here gives each destination another port".to_owned(),
        Reason::PeerNatVaries => "its NAT gives each destination another port".to_owned(),
        Reason::NoAnswer { candidates, probes } => {
            format!("no answer to {probes} probes of {candidates} candidates")
        }
        Reason::NoTraffic => "no traffic".to_owned(),
        Reason::Handshake { .. } => "handshake under way".to_owned(),
        Reason::NoWay if scene.controller => "no endpoint known".to_owned(),
        Reason::NoWay => "no endpoint known, and no controller is connected".to_owned(),
        Reason::NoNetwork { .. } => "this machine has no network".to_owned(),
        Reason::NeedsDisk { since } => {
            format!("handshakes wait for the disk for {}", scene.age(since))
        }
        Reason::NoMoonAnswers { since } => {
            format!("no answer for {}, and no moon answers", scene.age(since))
        }
        Reason::MoonsRefuse { since, refused } => format!(
            "no answer for {}, and the moons do not relay: {}",
            scene.age(since),
            refusal(refused)
        ),
        Reason::NotThere { since } => format!(
            "no answer for {}, and a moon has not heard of it lately",
            scene.age(since)
        ),
        Reason::NotAllowed { since } => format!(
            "no answer for {}, and a moon's roster does not let the two talk",
            scene.age(since)
        ),
        Reason::Unanswered { since, .. } => {
            format!("handshake unanswered for {}", scene.age(since))
        }
        Reason::Silent { since } => format!("no answer for {}", scene.age(since)),
        Reason::SwitchedOff => "switched off".to_owned(),
        Reason::NoKey => "no key in roster".to_owned(),
        Reason::Guest => {
            let gateways: Vec<_> = member.gateways.iter().map(ToString::to_string).collect();
            format!("a guest of {}", gateways.join(", "))
        }
        Reason::GuestWithoutGateway => "a guest without a gateway".to_owned(),
        Reason::NotAdmitted => "this machine is not admitted".to_owned(),
        Reason::ThisMachine => "this is the machine itself".to_owned(),
    };
    // A wrong clock may be why a handshake is refused.
    match reason.unanswered_since().and_then(|_| skew_reason(skew)) {
        Some(skew) if !matches!(reason, Reason::Handshake { .. }) => {
            Some(format!("{skew}; {text}"))
        }
        Some(_) | None => Some(text),
    }
}

/// What the reader can do; `None`: nothing, or nothing is wrong.
pub(crate) fn helps(reason: Reason, member: &Member, scene: &Scene) -> Option<String> {
    let name = &member.name;
    let port = scene.listen_port;
    let text = match reason {
        Reason::Direct
        | Reason::Searching { .. }
        | Reason::StraightOwes { .. }
        | Reason::Handshake { .. }
        | Reason::ThisMachine => return None,
        Reason::NoTraffic => format!("nothing is wrong; `mesh ping {name}` tries it"),
        Reason::Stream => format!(
            "let UDP out of the network here, and UDP {AGENT_PORT} in at `{name}`: a connection on port 443 is slower"
        ),
        Reason::StraightSilent { .. } => format!(
            "a firewall or NAT between may have changed; UDP {AGENT_PORT} forwarded to `{name}`, or UDP {port} to this machine, does not depend on it"
        ),
        Reason::RelayOnly => format!(
            "nothing is wrong; remove `relayOnly` of `{name}` or of this machine from the inventory to let the two speak straight"
        ),
        Reason::NoCandidates => format!(
            "give `{name}` an entry in `endpoints` of the inventory, or look whether its agent finds addresses: `mesh why` there says what it tells"
        ),
        Reason::NoCommonFamily => {
            "an address of the other IP version on either side; until then a moon with both carries the packets".to_owned()
        }
        Reason::BothNatsVary { .. } => format!(
            "a port forwarding of UDP {port} to this machine or of UDP {AGENT_PORT} to `{name}`, or IPv6 on both sides"
        ),
        Reason::OwnNatVaries => format!(
            "a port forwarding of UDP {port} to this machine, or of UDP {AGENT_PORT} to `{name}`"
        ),
        Reason::PeerNatVaries => format!(
            "a port forwarding of UDP {AGENT_PORT} to `{name}`, or of UDP {port} to this machine"
        ),
        Reason::NoAnswer { .. } => format!(
            "let UDP {AGENT_PORT} in to `{name}`, or UDP {port} to this machine, in the firewall or by a port forwarding on the router"
        ),
        Reason::NoWay if scene.controller => format!(
            "start the agent of `{name}`, or give `{name}` an entry in `endpoints` of the inventory, or run a moon that both reach"
        ),
        Reason::NoWay => format!(
            "reach a controller (`mesh status` says why it is not connected), or give `{name}` an entry in `endpoints` of the inventory, or run a moon"
        ),
        Reason::NoNetwork { .. } => {
            "connect this machine: it has no address but those of tunnels".to_owned()
        }
        Reason::NeedsDisk { .. } => {
            "make room in the agent's `state_dir`, or make it writable: `mesh logs` names the error".to_owned()
        }
        Reason::NoMoonAnswers { .. } => format!(
            "let UDP {AGENT_PORT} out of the network here, or TCP 443 with `relay_listen` on a moon; if other machines have it, too, look after the moons"
        ),
        Reason::MoonsRefuse { .. } => {
            "run another moon, or look into the roster that the moons hold (`mesh status` there)".to_owned()
        }
        Reason::NotThere { .. } => format!(
            "look whether `{name}` is on, has a network, and its agent runs (`mesh status` there)"
        ),
        Reason::NotAllowed { .. } => {
            "compare the roster's serial in `mesh status` here and on the moon: one of them is behind".to_owned()
        }
        Reason::Unanswered { .. } | Reason::Silent { .. } => format!(
            "look whether `{name}` is on and its agent runs (`mesh status` there); if it is, let UDP {AGENT_PORT} in, or run a moon that both reach"
        ),
        Reason::SwitchedOff => format!("`enabled: true` for `{name}` in the inventory"),
        Reason::NoKey => format!(
            "put the public key of `{name}` into the inventory: `mesh keygen` there prints it, `mesh pending` on the controller shows who asked to join"
        ),
        Reason::Guest => format!("reach `{name}` through its gateways"),
        Reason::GuestWithoutGateway => {
            format!("name moons in `gateways` of `{name}` in the inventory")
        }
        Reason::NotAdmitted => "`mesh status` says why this machine is not admitted".to_owned(),
    };
    Some(text)
}

/// What came of guessing the ports.
fn predicted(prediction: Prediction) -> String {
    match prediction {
        Prediction::Pending => String::new(),
        Prediction::Unmeasured => "; which one comes next, no two moons say".to_owned(),
        Prediction::UnorderedHere => ", the one here in no order".to_owned(),
        Prediction::UnorderedThere => ", the one there in no order".to_owned(),
        Prediction::Unanswered => "; its agent does not say which one comes next".to_owned(),
        Prediction::Missed { attempts: 1 } => "; guessing them failed once".to_owned(),
        Prediction::Missed { attempts } => format!("; guessing them failed {attempts} times"),
    }
}

/// Why a moon does not relay.
pub(crate) fn refusal(refused: RelayRefused) -> String {
    match refused {
        RelayRefused::NoMoon => "by its own roster it is no moon".to_owned(),
        RelayRefused::Full => "it has as many clients as it can serve".to_owned(),
        RelayRefused::Other(code) => format!("reason {code} of a later release"),
    }
}
