//! Known answers, for a program that checks itself before it is trusted with sessions.

use mesh_aead::{PacketKey, TAG_BYTES};
use x25519_dalek::StaticSecret;

use super::{Asked, Initiator, KeyPair, NoiseError, Protocol, Start};

/// One published vector of `IKpsk2` with the payloads and keys of the cacophony test suite.
struct Vector {
    protocol: Protocol,
    message1: &'static str,
    message2: &'static str,
    /// The first transport message each way: payload and ciphertext.
    transport: [(&'static str, &'static str); 2],
}

const PROLOGUE: &str = "4a6f686e2047616c74";
const PRESHARED: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";
const INITIATOR_STATIC: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
const INITIATOR_EPHEMERAL: &str =
    "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
const RESPONDER_STATIC: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
const RESPONDER_EPHEMERAL: &str =
    "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
const PAYLOAD1: &str = "4c756477696720766f6e204d69736573";
const PAYLOAD2: &str = "4d757272617920526f746862617264";

const VECTORS: [Vector; 2] = [
    Vector {
        protocol: Protocol::Wireguard,
        message1: "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98ddd8e2ad57527207feb56253c9c94a9e496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab5000980c84831215f2441eba616548e832985464cf17e51ee93109008399a21f7e13f",
        message2: "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843cb765f2caef0751b8f007572dab0322217755c0632f365717edbf34d33e87a",
        transport: [
            (
                "462e20412e20486179656b",
                "8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7",
            ),
            (
                "4361726c204d656e676572",
                "07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef",
            ),
        ],
    },
    Vector {
        protocol: Protocol::MeshAes,
        message1: "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944f70d65fedfd7ad294f4c8f5c1324c7c90e54cd8af05652112a27b261e11ce99d9d517c4a1e0753038edb26066b4087b4c230aafa22b0552550b723eb69374a674d306a84e1852e30af2e2dbefeb4fd2f",
        message2: "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088434190dae84b6887641a5f81e03d83f7be91fa1134c18dde966e18fc404b97a8",
        transport: [
            (
                "462e20412e20486179656b",
                "061b631b380a639a0801920ddf205e2dbf6606c3328683c6af50fc",
            ),
            (
                "4361726c204d656e676572",
                "c4b5ecd181f80279f2cc41217d490ed56459e3e3fb5e758e522d0d",
            ),
        ],
    },
];

/// Cryptography that gives a wrong answer: a processor or a build that cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{protocol}: {what} is not as published")]
pub struct SelfTestError {
    protocol: &'static str,
    what: &'static str,
}

/// Makes a handshake and a packet of each protocol with the keys of the published vectors.
///
/// # Errors
///
/// [`SelfTestError`] names what came out wrong.
pub fn self_test() -> Result<(), SelfTestError> {
    VECTORS.iter().try_for_each(|vector| {
        check(vector).map_err(|what| SelfTestError {
            protocol: vector.protocol.name(),
            what,
        })
    })
}

fn check(vector: &Vector) -> Result<(), &'static str> {
    let failed = |what| move |_: NoiseError| what;
    let same = |is: &[u8], expected: &str, what| (is == hex(expected)).then_some(()).ok_or(what);
    let prologue = hex(PROLOGUE);
    let start = Start {
        protocol: vector.protocol,
        prologue: &prologue,
    };
    let preshared = key(PRESHARED);
    let initiator_static = key_pair(INITIATOR_STATIC);
    let responder_static = key_pair(RESPONDER_STATIC);
    let static_static = initiator_static
        .agree(&responder_static.public)
        .map_err(failed("the agreement"))?;

    let (initiator, message) = Initiator::start(
        start,
        &initiator_static.public,
        &responder_static.public,
        &static_static,
        key_pair(INITIATOR_EPHEMERAL),
        &hex(PAYLOAD1),
    )
    .map_err(failed("message 1"))?;
    let sent = [
        message.ephemeral.as_slice(),
        &message.sealed_static,
        &message.sealed_payload,
    ];
    same(&sent.concat(), vector.message1, "message 1")?;

    let ephemeral_static = responder_static
        .agree(&message.ephemeral)
        .map_err(failed("the agreement"))?;
    let asked = Asked::open(
        start,
        &responder_static.public,
        &ephemeral_static,
        &message.ephemeral,
        &message.sealed_static,
    )
    .map_err(failed("message 1, opened"))?;
    let (responder, payload) = asked
        .open_payload(&static_static, &message.sealed_payload)
        .map_err(failed("message 1, opened"))?;
    same(&payload, PAYLOAD1, "message 1, opened")?;
    let ephemeral = key_pair(RESPONDER_EPHEMERAL);
    let (responder_keys, sealed) = responder
        .answer(&ephemeral, &preshared, &hex(PAYLOAD2))
        .map_err(failed("message 2"))?;
    same(
        &[ephemeral.public.as_slice(), &sealed].concat(),
        vector.message2,
        "message 2",
    )?;

    let (keys, payload) = initiator
        .finish(&initiator_static, &ephemeral.public, &sealed, &preshared)
        .map_err(failed("message 2, opened"))?;
    same(&payload, PAYLOAD2, "message 2, opened")?;
    if keys.send != responder_keys.receive || keys.receive != responder_keys.send {
        return Err("the two sides' keys");
    }
    // In the vectors message 3 comes from the initiator, message 4 from the responder.
    for (key, (payload, ciphertext)) in [keys.send, keys.receive].iter().zip(vector.transport) {
        let mut buffer = [hex(payload).as_slice(), &[0; TAG_BYTES]].concat();
        let key = PacketKey::new(vector.protocol.cipher(), key);
        key.seal(0, &[], &mut buffer);
        same(&buffer, ciphertext, "a packet")?;
        let opened = key
            .open(0, &[], &mut buffer)
            .map_err(|_| "a packet, opened")?;
        same(opened, payload, "a packet, opened")?;
    }
    Ok(())
}

fn key_pair(secret: &str) -> KeyPair {
    KeyPair::new(StaticSecret::from(key(secret)))
}

fn key(text: &str) -> [u8; 32] {
    hex(text).try_into().expect("a key of the table above")
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    text.as_bytes()
        .chunks_exact(2)
        .filter_map(|pair| u8::try_from(digit(pair[0]) << 4 | digit(pair[1])).ok())
        .collect()
}
