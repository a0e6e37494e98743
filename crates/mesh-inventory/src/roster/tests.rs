use std::collections::BTreeMap;

use mesh_types::{IdentitySeed, MachineName, MemberKey, NetworkId, Serial};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";

fn network_id() -> NetworkId {
    NETWORK.parse().unwrap()
}

fn seed(byte: u8) -> IdentitySeed {
    IdentitySeed::from_bytes([byte; 32])
}

fn network() -> NetworkPart {
    NetworkPart {
        id: network_id(),
        name: "fleet".to_owned(),
        domain: "zt".to_owned(),
        prefix: network_id().prefix().net(),
        ipv4: None,
        signers: vec![seed(1).public().to_string()],
        rules: None,
        unknown: BTreeMap::new(),
    }
}

fn member(name: &str, byte: u8) -> (MachineName, Member) {
    let name: MachineName = name.parse().unwrap();
    let member = Member {
        name: name.clone(),
        class: MachineClass::Nixos,
        public_key: Some(MemberKey::Mesh(seed(byte).public())),
        address: network_id().address_of(&name).unwrap(),
        ipv4: None,
        enabled: true,
        tags: vec!["all".to_owned(), "nixos".to_owned()],
        roles: vec![Role::Peer],
        endpoints: vec![],
        aliases: vec![],
        routes: vec![],
        gateways: vec![],
        ciphers: vec!["aes".to_owned(), "chacha".to_owned()],
        ssh_host_keys: vec![],
        relay: true,
        relay_rate_limit: None,
        relay_only: false,
        unknown: BTreeMap::new(),
    };
    (name, member)
}

fn fields(serial: u64) -> HeadFields {
    HeadFields {
        serial: Serial::try_from(serial).unwrap(),
        time: 1_800_000_000,
        revision: Some("0123abc".to_owned()),
        previous: None,
    }
}

fn fleet(names: &[&str]) -> BTreeMap<MachineName, Member> {
    names
        .iter()
        .zip(1..)
        .map(|(name, byte)| member(name, byte))
        .collect()
}

fn roster(names: &[&str], fields: HeadFields) -> Roster {
    Unsigned::new(&network(), &fleet(names), fields)
        .unwrap()
        .sign_with_seed(&seed(1))
        .unwrap()
}

fn after(previous: &Roster, serial: u64, names: &[&str]) -> Roster {
    let previous = Some(previous.head_hash());
    roster(
        names,
        HeadFields {
            previous,
            ..fields(serial)
        },
    )
}

/// Signs parts that the builder would refuse, as another program might.
fn signed(network: &Value, members: &Value, change_head: impl Fn(&mut Value)) -> Vec<u8> {
    let leaves: Vec<_> = members
        .as_object()
        .unwrap()
        .values()
        .map(|member| merkle::leaf(&canonical::to_bytes(member)))
        .collect();
    let mut head = json!({
        "format": 1, "network": NETWORK, "serial": 7, "time": 1, "revision": null, "previous": null,
        "networkHash": Hash::of(&canonical::to_bytes(network)),
        "memberCount": leaves.len(),
        "memberRoot": merkle::root(&leaves),
    });
    change_head(&mut head);
    let key = ssh_key::private::Ed25519Keypair::from_seed(&[9; 32]);
    let signature = ssh_key::PrivateKey::from(key)
        .sign(
            NAMESPACE,
            ssh_key::HashAlg::Sha256,
            &canonical::to_bytes(&head),
        )
        .unwrap()
        .to_string();
    let file =
        json!({ "head": head, "signature": signature, "network": network, "members": members });
    serde_json::to_vec_pretty(&file).unwrap()
}

fn parts() -> (Value, Value) {
    let network = serde_json::to_value(network()).unwrap();
    let members = serde_json::to_value(fleet(&["alpha", "beta"])).unwrap();
    (network, members)
}

#[test]
fn a_signed_roster_is_verified_from_its_file() {
    let made = roster(&["alpha", "beta", "gamma"], fields(7));
    let trusted = [Signer::from(seed(1).public())];
    let read = Roster::verify(&made.to_file(), &network_id(), &trusted).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.network(), made.network());
    assert_eq!(read.members(), made.members());
    assert_eq!(read.signer(), &trusted[0]);
    assert_eq!(read.signer().to_string(), seed(1).public().to_string());
    assert_eq!(read.to_file(), made.to_file());
    let beta = read.member_by_node_id(&seed(2).public().node_id()).unwrap();
    assert_eq!(beta.name.as_ref(), "beta");
    let beta = read
        .member_by_wireguard(&seed(2).public().wireguard())
        .unwrap();
    assert_eq!(beta.name.as_ref(), "beta");
    assert!(
        read.member_by_node_id(&seed(9).public().node_id())
            .is_none()
    );
}

#[test]
fn an_identity_and_its_ed25519_half_as_ssh_key_are_one_signer() {
    let identity = Signer::from(seed(1).public());
    let ssh: Signer = format!("{} somebody", identity.to_openssh())
        .parse()
        .unwrap();
    assert_eq!(identity, ssh);
    assert!(ssh.to_string().ends_with(" somebody"));
    let made = roster(&["alpha"], fields(1));
    let read = Roster::verify(&made.to_file(), &network_id(), std::slice::from_ref(&ssh)).unwrap();
    assert_eq!(read.signer().to_string(), ssh.to_string());
}

#[test]
fn other_signers_and_networks_are_refused() {
    let file = roster(&["alpha"], fields(1)).to_file();
    let other = [Signer::from(seed(2).public())];
    assert!(matches!(
        Roster::verify(&file, &network_id(), &other),
        Err(RosterError::UntrustedSigner { trusted: 1, .. })
    ));
    let trusted = [Signer::from(seed(1).public())];
    assert!(matches!(
        Roster::verify(&file, &NetworkId::from_bytes([1; 16]), &trusted),
        Err(RosterError::Network { .. })
    ));
}

#[test]
fn text_that_is_no_signer_says_why() {
    assert_eq!("".parse::<Signer>(), Err(ParseSignerError::Form));
    assert_eq!(
        "ssh-ed25519 AAAA".parse::<Signer>(),
        Err(ParseSignerError::Form)
    );
    assert!(matches!(
        "mesh1abc".parse::<Signer>(),
        Err(ParseSignerError::Identity(_))
    ));
}

#[test]
fn fields_of_newer_releases_are_kept_and_signed() {
    let (mut network, mut members) = parts();
    network["seasons"] = json!([{ "from": "all", "to": ["all"] }]);
    members["alpha"]["colour"] = json!({ "name": "grün", "depth": 3 });
    let roster = Roster::open(&signed(&network, &members, |_| {})).unwrap();
    let alpha = &roster.members()["alpha"];
    assert_eq!(alpha.unknown["colour"]["depth"], 3);
    assert!(roster.network().unknown.contains_key("seasons"));
    assert_eq!(Roster::open(&roster.to_file()).unwrap(), roster);
}

#[test]
fn words_of_newer_releases_are_passed_over() {
    let (network, mut members) = parts();
    members["alpha"]["roles"] = json!(["archive", "peer"]);
    members["alpha"]["class"] = json!("plan9");
    let roster = Roster::open(&signed(&network, &members, |_| {})).unwrap();
    assert_eq!(roster.members()["alpha"].roles, [Role::Peer]);
    assert_eq!(roster.members()["alpha"].class, MachineClass::External);
}

#[test]
fn a_roster_of_another_format_is_refused_by_its_number() {
    let (network, members) = parts();
    let file = signed(&network, &members, |head| {
        head["format"] = json!(2);
        head["shape"] = json!("round");
    });
    let Err(RosterError::Format(format)) = Roster::open(&file) else {
        panic!("it was taken");
    };
    assert_eq!(format, "2");
}

#[test]
fn a_head_holds_printable_ascii_and_nothing_unknown() {
    let (network, members) = parts();
    for revision in ["é", "a\nb", "\u{7f}"] {
        let file = signed(&network, &members, |head| {
            head["revision"] = json!(revision)
        });
        assert!(
            matches!(Roster::open(&file), Err(RosterError::Strict(_))),
            "{revision}"
        );
    }
    let file = signed(&network, &members, |head| head["note"] = json!("hello"));
    assert!(matches!(Roster::open(&file), Err(RosterError::Json(_))));
    let file = signed(&network, &members, |head| head["serial"] = json!(0));
    assert!(matches!(Roster::open(&file), Err(RosterError::Json(_))));
}

#[test]
fn hashes_and_counts_must_be_those_of_the_head() {
    let (network, members) = parts();
    let file = signed(&network, &members, |head| head["memberCount"] = json!(3));
    assert!(matches!(Roster::open(&file), Err(RosterError::MemberRoot)));
    let file = signed(&network, &members, |head| {
        head["networkHash"] = json!(Hash([0; 32]));
    });
    assert!(matches!(Roster::open(&file), Err(RosterError::NetworkHash)));
}

#[test]
fn members_that_contradict_each_other_are_refused() {
    type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let changes: [(&str, Change); 9] = [
        ("calls itself", &|_, members| {
            members["alpha"]["name"] = json!("gamma")
        }),
        ("outside the network's prefix", &|_, members| {
            members["alpha"]["address"] = json!("fd00::1");
        }),
        ("has the address", &|_, members| {
            members["alpha"]["address"] = members["beta"]["address"].clone();
        }),
        ("has the same key", &|_, members| {
            members["alpha"]["publicKey"] = members["beta"]["publicKey"].clone();
        }),
        ("the same key", &|_, members| {
            members["alpha"]["publicKey"] =
                json!(format!("wireguard:{}", seed(2).public().wireguard()));
            members["alpha"]["ciphers"] = json!(["chacha"]);
        }),
        ("name of another member", &|_, members| {
            members["alpha"]["aliases"] = json!(["beta"]);
        }),
        ("has the alias", &|_, members| {
            members["alpha"]["aliases"] = json!(["www"]);
            members["beta"]["aliases"] = json!(["www"]);
        }),
        ("default route", &|_, members| {
            members["alpha"]["routes"] = json!(["::/0"])
        }),
        ("is not that of network", &|network, _| {
            network["prefix"] = json!("fd00::/48")
        }),
    ];
    for (expected, change) in changes {
        let (mut network, mut members) = parts();
        change(&mut network, &mut members);
        let error = Roster::open(&signed(&network, &members, |_| {})).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} / {expected}");
    }
}

#[test]
fn a_key_twice_in_a_member_is_refused() {
    let file = String::from_utf8(roster(&["alpha"], fields(1)).to_file()).unwrap();
    let twice = file.replace("\"enabled\":true", "\"enabled\":true,\"enabled\":true");
    assert_ne!(file, twice);
    let error = Roster::open(twice.as_bytes()).unwrap_err();
    assert!(matches!(error, RosterError::Json(_)), "{error}");
}

#[test]
fn every_kind_of_ssh_key_signs() {
    for (key, _) in ssh_keys() {
        let unsigned = Unsigned::new(&network(), &fleet(&["alpha"]), fields(1)).unwrap();
        let roster = unsigned.sign_with_ssh(&key).unwrap();
        let signer: Signer = key.public_key().to_openssh().unwrap().parse().unwrap();
        Roster::verify(&roster.to_file(), &network_id(), &[signer]).unwrap();
    }
}

#[test]
fn a_hardware_tokens_signature_is_verified() {
    // What a token does (OpenSSH's PROTOCOL.u2f), with the private half in hand.
    let keypair = ssh_key::private::Ed25519Keypair::from_seed(&[5; 32]);
    let public = ssh_key::public::SkEd25519::new(keypair.public, "ssh:");
    let key = PublicKey::from(ssh_key::public::KeyData::from(public));
    let sign = |data: &[u8]| {
        let trailer = [1, 0, 0, 0, 7];
        let hash = |bytes: &[u8]| Hash::of(bytes).0;
        let signed = [&hash(b"ssh:")[..], &trailer, &hash(data)].concat();
        let signature = rsa::signature::Signer::sign(&keypair, &signed);
        let signature: ssh_key::Signature = signature;
        let bytes = [signature.as_bytes(), &trailer].concat();
        ssh_key::Signature::new(ssh_key::Algorithm::SkEd25519, bytes).unwrap()
    };
    let unsigned = Unsigned::new(&network(), &fleet(&["alpha"]), fields(1)).unwrap();
    let signature = sign(&unsigned.ssh_signed_data());
    let roster = unsigned.clone().attach_ssh(&key, signature).unwrap();
    let signer: Signer = key.to_openssh().unwrap().parse().unwrap();
    Roster::verify(&roster.to_file(), &network_id(), &[signer]).unwrap();
    let wrong = unsigned
        .attach_ssh(&key, sign(b"something else"))
        .unwrap_err();
    assert!(matches!(wrong, RosterError::BadSignature(_)), "{wrong}");
}

#[test]
fn a_signature_for_another_head_or_namespace_is_refused_on_attaching() {
    let unsigned = |serial| Unsigned::new(&network(), &fleet(&["alpha"]), fields(serial)).unwrap();
    let (key, _) = ssh_keys().remove(0);
    for (namespace, message) in [
        (NAMESPACE, unsigned(1).bytes_to_sign()),
        ("file", unsigned(2).bytes_to_sign()),
    ] {
        let signature = key
            .sign(namespace, ssh_key::HashAlg::Sha512, message)
            .unwrap();
        let error = unsigned(2).attach(&signature.to_string()).unwrap_err();
        assert!(matches!(error, RosterError::BadSignature(_)), "{error}");
    }
    assert!(matches!(
        unsigned(1).attach("hello"),
        Err(RosterError::SignatureForm)
    ));
}

#[test]
fn rosters_are_admitted_in_order_only() {
    let one = roster(&["a", "b", "c"], fields(10));
    let two = after(&one, 11, &["a", "b", "c", "d"]);
    assert_eq!(admit(None, &one, None, false), Ok(()));
    assert_eq!(admit(Some(&one), &two, None, false), Ok(()));
    assert!(matches!(
        admit(Some(&two), &one, None, true),
        Err(RosterRefused::Stale { .. })
    ));
    assert!(matches!(
        admit(Some(&one), &one.clone(), None, true),
        Err(RosterRefused::AlreadyInForce(_))
    ));
    let rival = after(&one, 11, &["a", "b"]);
    assert!(matches!(
        admit(Some(&two), &rival, None, true),
        Err(RosterRefused::Conflict { .. })
    ));
    assert!(matches!(
        admit(None, &one, Some(Serial::try_from(11).unwrap()), true),
        Err(RosterRefused::BelowMinimum { .. })
    ));
}

#[test]
fn surprises_need_force() {
    let one = roster(&["a", "b", "c", "d"], fields(10));
    let other = roster(&["a", "b", "c"], fields(10));
    let cases = [
        (
            roster(&["a", "b", "c", "d"], fields(11)),
            "names no predecessor",
        ),
        (
            after(&other, 11, &["a", "b", "c", "d"]),
            "follows another roster",
        ),
        (
            after(&one, 1_000_011, &["a", "b", "c", "d"]),
            "over 1000000 above",
        ),
        (after(&one, 11, &["a"]), "removes 3 of 4 members"),
    ];
    for (candidate, expected) in cases {
        let refused = admit(Some(&one), &candidate, None, false).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(refused.is_forceable());
        assert_eq!(admit(Some(&one), &candidate, None, true), Ok(()));
    }
    // Exactly half is not over half.
    assert_eq!(
        admit(Some(&one), &after(&one, 11, &["a", "b"]), None, false),
        Ok(())
    );
    assert_eq!(
        admit(
            Some(&one),
            &after(&one, 1_000_010, &["a", "b"]),
            None,
            false
        ),
        Ok(())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_byte_is_refused_or_changes_nothing(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let made = roster(&["alpha", "beta"], fields(7));
        let mut file = made.to_file();
        let at = at.index(file.len());
        file[at] = to;
        let trusted = [Signer::from(seed(1).public())];
        if let Ok(read) = Roster::verify(&file, &network_id(), &trusted) {
            prop_assert_eq!(read.members(), made.members());
            prop_assert_eq!(read.network(), made.network());
            prop_assert_eq!(read.head(), made.head());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Roster::open(&bytes);
        let _ = String::from_utf8_lossy(&bytes).parse::<Signer>();
    }
}

/// One unencrypted key of each kind, with its name.
fn ssh_keys() -> Vec<(ssh_key::PrivateKey, &'static str)> {
    [
        (include_str!("tests/id_ed25519"), "ed25519"),
        (include_str!("tests/id_ecdsa"), "ecdsa"),
        (include_str!("tests/id_rsa"), "rsa"),
    ]
    .map(|(text, kind)| (ssh_key::PrivateKey::from_openssh(text).unwrap(), kind))
    .to_vec()
}
