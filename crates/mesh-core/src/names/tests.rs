use std::collections::BTreeSet;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, RData, RecordType},
};
use mesh_types::NetworkId;
use proptest::prelude::*;

use super::*;

fn network() -> NetworkId {
    "000102030405060708090a0b0c0d0e0f".parse().unwrap()
}

fn machine(text: &str) -> MachineName {
    text.parse().unwrap()
}

/// A fleet of three, of which galena is switched off, as a roster has it.
fn table() -> NameTable {
    let names = ["cinnabar", "electrum", "galena"].map(machine);
    let aliases = [
        vec![
            "kanban".to_owned(),
            "*.apps".to_owned(),
            "deep.below".to_owned(),
        ],
        vec!["shop.apps".to_owned()],
        vec![
            "No_Name".to_owned(),
            "kanban".to_owned(),
            ["x"; 130].join("."),
        ],
    ];
    let hosts = names.iter().zip(&aliases).enumerate();
    let hosts = hosts.map(|(index, (name, aliases))| NamedHost {
        name,
        addresses: addresses(name, u8::try_from(index).unwrap()),
        aliases,
    });
    NameTable::new(
        &NamesConfig {
            domain: "Mesh.example",
            prefix: network().prefix().net(),
            pool: Some("100.64.7.0/24".parse().unwrap()),
            serial: Serial::try_from(7).unwrap(),
            server: &names[0],
        },
        hosts,
    )
    .unwrap()
}

fn addresses(name: &MachineName, index: u8) -> Vec<IpAddr> {
    vec![
        network().address_of(name).unwrap().into(),
        [100, 64, 7, index + 1].into(),
    ]
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn respond(message: &Message) -> Message {
    let bytes = answer(&table(), &message.to_vec().unwrap(), Transport::Udp).unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn ask(name: &str, kind: RecordType) -> Message {
    let reply = respond(&question(name, kind));
    assert_eq!(
        (reply.id, reply.message_type),
        (4711, MessageType::Response)
    );
    assert!(reply.recursion_desired && !reply.recursion_available);
    assert_eq!(reply.queries, question(name, kind).queries);
    reply
}

/// The records as text, and the code.
fn told(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let reply = ask(name, kind);
    let records = reply.answers.iter().map(|record| record.data.to_string());
    (reply.response_code, records.collect())
}

fn assert_denied(name: &str, kind: RecordType, code: ResponseCode, apex: &str) {
    let reply = ask(name, kind);
    assert_eq!(reply.response_code, code, "{name}");
    assert!(reply.authoritative && reply.answers.is_empty(), "{name}");
    let [soa] = reply.authorities.as_slice() else {
        panic!("{name}: {reply:?}");
    };
    assert_eq!((soa.name.to_string().as_str(), soa.ttl), (apex, 10));
    assert!(matches!(&soa.data, RData::SOA(soa) if soa.minimum == 10 && soa.serial == 7));
}

const OK: ResponseCode = ResponseCode::NoError;
const NO_SUCH: ResponseCode = ResponseCode::NXDomain;

#[test]
fn machines_have_their_addresses_under_the_domain() {
    let derived = network().address_of(&machine("cinnabar")).unwrap();
    let v6 = (OK, vec![derived.to_string()]);
    assert_eq!(told("cinnabar.mesh.example.", RecordType::AAAA), v6);
    let v4 = (OK, vec!["100.64.7.1".to_owned()]);
    assert_eq!(told("cinnabar.mesh.example.", RecordType::A), v4);
    assert!(ask("cinnabar.mesh.example.", RecordType::A).authoritative);
    // Switched off, and still what it is.
    let galena = (OK, vec!["100.64.7.3".to_owned()]);
    assert_eq!(told("galena.mesh.example.", RecordType::A), galena);
}

#[test]
fn the_spelling_of_the_question_comes_back() {
    let reply = ask("CinNabar.mEsh.EXAMPLE.", RecordType::AAAA);
    assert_eq!(reply.answers.len(), 1);
    let spelled = reply.answers[0].name.to_string();
    assert_eq!(spelled, "CinNabar.mEsh.EXAMPLE.");
}

#[test]
fn an_alias_has_the_addresses_of_its_machine_as_its_own() {
    let v4 = (OK, vec!["100.64.7.1".to_owned()]);
    assert_eq!(told("kanban.mesh.example.", RecordType::A), v4);
    assert_eq!(told("deep.below.mesh.example.", RecordType::A), v4);
    let passed_over: BTreeSet<_> = table().passed_over().iter().cloned().collect();
    assert_eq!(passed_over.len(), 3);
    assert!(passed_over.contains("no_name") && passed_over.contains("kanban"));
}

#[test]
fn a_wildcard_stands_for_what_is_missing_below_it() {
    let cinnabar = (OK, vec!["100.64.7.1".to_owned()]);
    for name in ["wiki", "a.b.c", "*", "under_score", r"dot\.ted"] {
        let name = format!("{name}.apps.mesh.example.");
        assert_eq!(told(&name, RecordType::A), cinnabar, "{name}");
    }
    // What is there itself is not covered, nor what is below it (RFC 4592 section 2.2.1).
    let electrum = (OK, vec!["100.64.7.2".to_owned()]);
    assert_eq!(told("shop.apps.mesh.example.", RecordType::A), electrum);
    assert_denied(
        "x.shop.apps.mesh.example.",
        RecordType::A,
        NO_SUCH,
        "mesh.example.",
    );
    assert_denied(
        "wiki.apps.mesh.example.",
        RecordType::MX,
        OK,
        "mesh.example.",
    );
}

#[test]
fn reverse_names_tell_the_machine() {
    let address = network().address_of(&machine("electrum")).unwrap();
    let name = format!("{}.", reverse_name(address.into()));
    let electrum = (OK, vec!["electrum.mesh.example.".to_owned()]);
    assert_eq!(told(&name, RecordType::PTR), electrum);
    assert_eq!(told("2.7.64.100.in-addr.arpa.", RecordType::PTR), electrum);
    let pool = "7.64.100.in-addr.arpa.";
    assert_denied("9.7.64.100.in-addr.arpa.", RecordType::PTR, NO_SUCH, pool);
    let prefix = "1.6.b.d.e.2.8.5.3.c.d.f.ip6.arpa.";
    assert_denied(&format!("f.f.{prefix}"), RecordType::PTR, NO_SUCH, prefix);
    // Subnet 0 is on the way to every machine.
    assert_denied(&format!("0.0.{prefix}"), RecordType::PTR, OK, prefix);
}

#[test]
fn what_is_not_there_is_denied_with_the_soa() {
    let denied = |name: &str, kind, code| {
        assert_denied(&format!("{name}mesh.example."), kind, code, "mesh.example.");
    };
    denied("nobody.", RecordType::AAAA, NO_SUCH);
    denied("x.cinnabar.", RecordType::AAAA, NO_SUCH);
    denied("cinnabar.", RecordType::TXT, OK);
    denied("cinnabar.", RecordType::CNAME, OK);
    denied("cinnabar.", RecordType::SOA, OK);
    // On the way to another name (RFC 8020), and the domain itself.
    denied("below.", RecordType::A, OK);
    denied("apps.", RecordType::A, OK);
    denied("", RecordType::A, OK);
    denied("", RecordType::DS, OK);
}

#[test]
fn every_zone_says_who_is_its_authority() {
    for apex in [
        "mesh.example.",
        "7.64.100.in-addr.arpa.",
        "1.6.b.d.e.2.8.5.3.c.d.f.ip6.arpa.",
    ] {
        let ns = ask(apex, RecordType::NS);
        assert_eq!(ns.answers[0].data.to_string(), "cinnabar.mesh.example.");
        assert_eq!(ns.additionals.len(), 2, "{ns:?}");
        let (code, soa) = told(apex, RecordType::SOA);
        assert_eq!(code, OK);
        let text = "cinnabar.mesh.example. hostmaster.mesh.example. 7 3600 600 86400 10";
        assert_eq!(soa, [text]);
    }
}

#[test]
fn any_is_answered_with_one_kind_of_records() {
    let kinds = |name: &str| -> Vec<RecordType> {
        let reply = ask(name, RecordType::ANY);
        let kinds = reply.answers.iter().map(|record| record.record_type());
        kinds.collect()
    };
    assert_eq!(kinds("cinnabar.mesh.example."), [RecordType::AAAA]);
    assert_eq!(kinds("mesh.example."), [RecordType::SOA]);
    assert_eq!(kinds("1.7.64.100.in-addr.arpa."), [RecordType::PTR]);
    assert_denied("apps.mesh.example.", RecordType::ANY, OK, "mesh.example.");
}

#[test]
fn nothing_outside_is_answered() {
    let refused = (ResponseCode::Refused, vec![]);
    for name in [
        ".",
        "example.",
        "example.org.",
        "xmesh.example.",
        "8.64.100.in-addr.arpa.",
        "ip6.arpa.",
    ] {
        assert_eq!(told(name, RecordType::A), refused, "{name}");
        assert!(!ask(name, RecordType::A).authoritative);
    }
    for transfer in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(told("mesh.example.", transfer), refused);
    }
    let mut chaos = question("mesh.example.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(respond(&chaos).response_code, ResponseCode::Refused);
}

#[test]
fn malformed_and_unknown_questions_are_called_that() {
    let table = table();
    let mut two = question("cinnabar.mesh.example.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(respond(&two).response_code, ResponseCode::FormErr);
    let mut none = two.clone();
    none.queries.clear();
    assert_eq!(respond(&none).response_code, ResponseCode::FormErr);
    let mut update = two.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(respond(&update).response_code, ResponseCode::NotImp);
    let mut response = two;
    response.metadata.message_type = MessageType::Response;
    let bytes = response.to_vec().unwrap();
    assert_eq!(answer(&table, &bytes, Transport::Udp), None);
    assert_eq!(refuse(&bytes, Transport::Udp), None);

    let whole = question("cinnabar.mesh.example.", RecordType::A);
    let whole = whole.to_vec().unwrap();
    for length in 0..whole.len() {
        let reply = answer(&table, &whole[..length], Transport::Udp);
        let code = reply.map(|bytes| Message::from_vec(&bytes).unwrap().response_code);
        let expected = (length >= 12).then_some(ResponseCode::FormErr);
        assert_eq!(code, expected, "{length} bytes");
    }
}

#[test]
fn a_question_that_points_into_its_own_header_is_malformed() {
    // The identifier and the flags read as a label: two bytes of a question would come back as five.
    let mut bytes = b"\x03ab\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    bytes[2] = 0x01;
    bytes.extend([0xc0, 0x00, 0, 1, 0, 1]);
    for reply in [
        answer(&table(), &bytes, Transport::Udp).unwrap(),
        refuse(&bytes, Transport::Udp).unwrap(),
    ] {
        assert_eq!(reply.len(), 12, "{reply:02x?}");
        let code = Message::from_vec(&reply).unwrap().response_code;
        assert_eq!(code, ResponseCode::FormErr);
    }
}

#[test]
fn edns_is_spoken_in_version_0() {
    let with = |version, size: u16| {
        let mut message = question("cinnabar.mesh.example.", RecordType::AAAA);
        let mut edns = Edns::new();
        edns.set_version(version).set_max_payload(size);
        message.set_edns(edns);
        message
    };
    let reply = respond(&with(0, 4096));
    assert_eq!(reply.response_code, ResponseCode::NoError);
    let edns = reply.edns.as_ref().unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, UDP_BYTES_MAX));
    let reply = respond(&with(1, 4096));
    // 16 is BADVERS here and BADSIG elsewhere.
    assert_eq!(u16::from(reply.response_code), 16);
    assert_eq!(reply.edns.as_ref().map(Edns::version), Some(0));
    assert!(reply.answers.is_empty());
    assert!(
        ask("cinnabar.mesh.example.", RecordType::AAAA)
            .edns
            .is_none()
    );
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_for_again_over_tcp() {
    // No machine has so many addresses; a client that takes few bytes gets there with fewer.
    let name = machine("a");
    let addresses = (0..60).map(|index| [100, 64, 7, index].into()).collect();
    let config = NamesConfig {
        domain: "mesh",
        prefix: network().prefix().net(),
        pool: None,
        serial: Serial::FIRST,
        server: &name,
    };
    let host = NamedHost {
        name: &name,
        addresses,
        aliases: &[],
    };
    let table = NameTable::new(&config, [host]).unwrap();
    let reply = |edns: Option<u16>, transport| {
        let mut message = question("a.mesh.", RecordType::A);
        message.edns = edns.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        let bytes = answer(&table, &message.to_vec().unwrap(), transport).unwrap();
        let reply = Message::from_vec(&bytes).unwrap();
        (bytes.len(), reply.truncation, reply.answers.len())
    };
    let (length, truncated, answers) = reply(None, Transport::Udp);
    assert!(length <= 512 && truncated && answers == 0);
    let (length, truncated, answers) = reply(Some(600), Transport::Udp);
    assert!(length <= 600 && truncated && answers == 0);
    let (length, truncated, answers) = reply(Some(4096), Transport::Udp);
    assert!(length <= 1232 && !truncated && answers == 60);
    let (_, truncated, answers) = reply(None, Transport::Tcp);
    assert!(!truncated && answers == 60);
}

#[test]
fn a_domain_that_is_none_has_no_table() {
    let name = machine("a");
    for domain in ["", "a..b", "under_score", "x.", &["x"; 127].join(".")] {
        let config = NamesConfig {
            domain,
            prefix: network().prefix().net(),
            pool: None,
            serial: Serial::FIRST,
            server: &name,
        };
        assert!(NameTable::new(&config, []).is_err(), "{domain}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_within_the_limit_or_not_at_all(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let table = table();
        if let Some(reply) = answer(&table, &bytes, Transport::Udp) {
            prop_assert!(reply.len() <= 1232);
            prop_assert_eq!(&reply[..2], &bytes[..2]);
            // QR is set and RA is not.
            prop_assert_eq!((reply[2] & 0x80, reply[3] & 0x80), (0x80, 0));
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
        if let Some(reply) = refuse(&bytes, Transport::Udp) {
            prop_assert!(reply.len() <= bytes.len());
        }
    }

    #[test]
    fn changed_questions_are_answered_within_the_limit_or_not_at_all(
        kind in any::<u16>(),
        options in prop::collection::vec(any::<u8>(), 0..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let table = table();
        let mut message = question("wiki.apps.mesh.example.", RecordType::from(kind));
        message.set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        bytes.extend(options);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        // Whole half of the time.
        bytes.truncate(bytes.len() / 2 + cut.index(bytes.len()));
        if let Some(reply) = answer(&table, &bytes, Transport::Udp) {
            prop_assert!(reply.len() <= 1232);
            prop_assert_eq!(&reply[..2], &bytes[..2]);
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
        let refusal = refuse(&bytes, Transport::Udp);
        prop_assert!(refusal.is_none_or(|refusal| refusal.len() <= bytes.len()));
    }

    #[test]
    fn only_names_of_the_table_have_addresses(labels in prop::collection::vec("[a-z]{1,3}|apps|cinnabar|\\*", 1..4)) {
        let table = table();
        let name = format!("{}.mesh.example", labels.join("."));
        let (code, records) = told(&format!("{name}."), RecordType::A);
        let listed = table.forward().contains_key(&name);
        // The wildcard's own subtree; the wildcard itself is there, and covers nothing below it.
        let covered = name.ends_with(".apps.mesh.example")
            && !name.ends_with(".*.apps.mesh.example");
        prop_assert_eq!(!records.is_empty(), listed || covered, "{}", name);
        let below = format!(".{name}");
        let on_the_way = table.forward().keys().any(|name| name.ends_with(&below));
        prop_assert_eq!(code == OK, listed || covered || on_the_way, "{}", name);
    }
}
