use mesh_aead::PacketKey;

use super::*;

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

#[test]
fn both_protocols_match_the_published_vectors() {
    for vector in &VECTORS {
        let start = Start {
            protocol: vector.protocol,
            prologue: &hex(PROLOGUE),
        };
        let preshared = key(PRESHARED);
        let initiator_static = StaticSecret::from(key(INITIATOR_STATIC));
        let initiator_public = PublicKey::from(&initiator_static).to_bytes();
        let responder_static = StaticSecret::from(key(RESPONDER_STATIC));
        let responder_public = PublicKey::from(&responder_static).to_bytes();
        let static_static = agree(&initiator_static, &responder_public).unwrap();

        let (initiator, message) = Initiator::start(
            start,
            &initiator_public,
            &responder_public,
            &static_static,
            StaticSecret::from(key(INITIATOR_EPHEMERAL)),
            &hex(PAYLOAD1),
        )
        .unwrap();
        let sent = [
            message.ephemeral.as_slice(),
            &message.sealed_static,
            &message.sealed_payload,
        ];
        assert_eq!(sent.concat(), hex(vector.message1));

        let ephemeral_static = agree(&responder_static, &message.ephemeral).unwrap();
        let asked = Asked::open(
            start,
            &responder_public,
            &ephemeral_static,
            &message.ephemeral,
            &message.sealed_static,
        )
        .unwrap();
        assert_eq!(asked.peer_public, initiator_public);
        let (responder, payload) = asked
            .open_payload(&static_static, &message.sealed_payload)
            .unwrap();
        assert_eq!(payload, hex(PAYLOAD1));
        let ephemeral = StaticSecret::from(key(RESPONDER_EPHEMERAL));
        let (responder_keys, public, sealed) = responder
            .answer(&ephemeral, &preshared, &hex(PAYLOAD2))
            .unwrap();
        assert_eq!([public.as_slice(), &sealed].concat(), hex(vector.message2));

        let (keys, payload) = initiator
            .finish(&initiator_static, &public, &sealed, &preshared)
            .unwrap();
        assert_eq!(payload, hex(PAYLOAD2));
        assert_eq!(keys.send, responder_keys.receive);
        assert_eq!(keys.receive, responder_keys.send);

        // In the vectors message 3 comes from the initiator, message 4 from the responder.
        for (key, (payload, ciphertext)) in [keys.send, keys.receive].iter().zip(vector.transport) {
            let mut buffer = [hex(payload).as_slice(), &[0; TAG_BYTES]].concat();
            PacketKey::new(vector.protocol.cipher(), key).seal(0, &[], &mut buffer);
            assert_eq!(buffer, hex(ciphertext));
        }
    }
}

#[test]
fn keys_of_low_order_agree_on_nothing() {
    let secret = StaticSecret::from([7; 32]);
    for low in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert_eq!(agree(&secret, &low), Err(NoiseError::LowOrder));
    }
}

fn key(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
