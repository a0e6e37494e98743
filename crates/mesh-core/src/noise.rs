//! The Noise handshake `IKpsk2` (Noise specification, revision 34) with X25519 and BLAKE2s, its cipher
//! and prologue given by a [`Protocol`].
//!
//! ```text
//! <- s
//! ...
//! -> e, es, s, ss      message 1, its payload a TAI64N stamp
//! <- e, ee, se, psk    message 2, its payload empty
//! ```
//!
//! Between two of our agents the second protocol serves as well: only name, prologue and nonce differ.

mod known;

use blake2::{Blake2s256, Digest};
use hmac::{Mac, SimpleHmac};
use mesh_aead::{Cipher, PacketKey, TAG_BYTES};
use rand::RngCore;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

pub use known::{SelfTestError, self_test};

/// A secret of 32 bytes, zeroed when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// The pre-shared key of peers that share none (WireGuard whitepaper section 5.4.2).
pub(crate) const NO_PRESHARED_KEY: [u8; 32] = [0; 32];

/// Which Noise protocol a handshake speaks, and so the cipher of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WireGuard's own, with ChaCha20-Poly1305: every peer speaks it.
    Wireguard,
    /// The one between two agents of this project, with AES-256-GCM.
    MeshAes,
}

impl Protocol {
    /// The protocol's name in Noise's notation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wireguard => "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
            Self::MeshAes => "Noise_IKpsk2_25519_AESGCM_BLAKE2s",
        }
    }

    /// What both sides mix in first.
    pub const fn prologue(self) -> &'static str {
        match self {
            Self::Wireguard => "WireGuard v1 zx2c4 Jason@zx2c4.com",
            Self::MeshAes => "mesh-wire-v1",
        }
    }

    /// The cipher of handshake and session.
    pub const fn cipher(self) -> Cipher {
        match self {
            Self::Wireguard => Cipher::ChaCha20Poly1305,
            Self::MeshAes => Cipher::Aes256Gcm,
        }
    }
}

/// Why a handshake message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoiseError {
    #[error("a key of low order")]
    LowOrder,
    #[error("not sealed for us, or changed")]
    NotAuthentic,
}

/// The two keys that a handshake ends with.
pub(crate) struct TransportKeys {
    pub(crate) send: Secret,
    pub(crate) receive: Secret,
}

/// The curve's arithmetic.
#[derive(Clone, Copy)]
pub struct Curve {
    /// A key pair for one handshake, from random bytes.
    pub ephemeral: fn(random: &[u8; 32]) -> (StaticSecret, [u8; 32]),
    /// What two keys agree on: from the secret and the public half of one's own, and the public half of the other's.
    pub agree: fn(own: &StaticSecret, own_public: &[u8; 32], peer: &[u8; 32]) -> [u8; 32],
}

/// X25519 (RFC 7748).
pub const X25519: Curve = Curve {
    ephemeral: |random| {
        let secret = StaticSecret::from(*random);
        let public = PublicKey::from(&secret).to_bytes();
        (secret, public)
    },
    agree: |own, _, peer| own.diffie_hellman(&PublicKey::from(*peer)).to_bytes(),
};

/// An X25519 key with its public half.
pub(crate) struct KeyPair {
    secret: StaticSecret,
    pub(crate) public: [u8; 32],
    curve: Curve,
}

impl KeyPair {
    pub(crate) fn new(secret: StaticSecret) -> Self {
        Self {
            public: PublicKey::from(&secret).to_bytes(),
            secret,
            curve: X25519,
        }
    }

    /// The same key, with other arithmetic.
    pub(crate) fn with_curve(self, curve: Curve) -> Self {
        Self { curve, ..self }
    }

    /// A key for one handshake of this one.
    pub(crate) fn ephemeral(&self, rng: &mut impl RngCore) -> Self {
        let mut random = Zeroizing::new([0; 32]);
        rng.fill_bytes(random.as_mut());
        let (secret, public) = (self.curve.ephemeral)(&random);
        Self {
            secret,
            public,
            curve: self.curve,
        }
    }

    /// Agrees on a secret with whoever has the other public key.
    pub(crate) fn agree(&self, peer: &[u8; 32]) -> Result<Secret, NoiseError> {
        let shared = Zeroizing::new((self.curve.agree)(&self.secret, &self.public, peer));
        if bool::from(shared.ct_eq(&[0; 32])) {
            return Err(NoiseError::LowOrder);
        }
        Ok(shared)
    }
}

/// An initiator between message 1 and message 2.
pub(crate) struct Initiator {
    state: Symmetric,
    ephemeral: KeyPair,
}

/// Message 1 without WireGuard's framing.
pub(crate) struct Message1 {
    pub(crate) ephemeral: [u8; 32],
    pub(crate) sealed_static: Vec<u8>,
    pub(crate) sealed_payload: Vec<u8>,
}

impl Initiator {
    /// Writes message 1. `static_static` is the secret that the two static keys agree on.
    pub(crate) fn start(
        start: Start<'_>,
        own_public: &[u8; 32],
        peer_public: &[u8; 32],
        static_static: &Secret,
        ephemeral: KeyPair,
        payload: &[u8],
    ) -> Result<(Self, Message1), NoiseError> {
        let mut state = Symmetric::new(start, peer_public);
        state.mix_ephemeral(&ephemeral.public);
        state.mix_key(&*ephemeral.agree(peer_public)?);
        let sealed_static = state.seal(own_public);
        state.mix_key(&**static_static);
        let sealed_payload = state.seal(payload);
        let message = Message1 {
            ephemeral: ephemeral.public,
            sealed_static,
            sealed_payload,
        };
        Ok((Self { state, ephemeral }, message))
    }

    /// Reads message 2. On an error the initiator goes on waiting: anyone can send a forged answer.
    pub(crate) fn finish(
        &self,
        own: &KeyPair,
        peer_ephemeral: &[u8; 32],
        sealed_payload: &[u8],
        preshared_key: &[u8; 32],
    ) -> Result<(TransportKeys, Vec<u8>), NoiseError> {
        let mut state = self.state.clone();
        state.mix_ephemeral(peer_ephemeral);
        state.mix_key(&*self.ephemeral.agree(peer_ephemeral)?);
        state.mix_key(&*own.agree(peer_ephemeral)?);
        state.mix_key_and_hash(preshared_key);
        let payload = state.open(sealed_payload)?;
        let (send, receive) = state.split();
        Ok((TransportKeys { send, receive }, payload))
    }
}

/// A responder that has opened the initiator's static key, and so knows who claims to ask.
pub(crate) struct Asked {
    state: Symmetric,
    peer_ephemeral: [u8; 32],
    /// Claimed until the payload is opened.
    pub(crate) peer_public: [u8; 32],
}

impl Asked {
    /// Opens the static key in message 1. `ephemeral_static` is what the initiator's ephemeral key and
    /// our static one agree on, the same for every protocol.
    pub(crate) fn open(
        start: Start<'_>,
        own_public: &[u8; 32],
        ephemeral_static: &Secret,
        peer_ephemeral: &[u8; 32],
        sealed_static: &[u8],
    ) -> Result<Self, NoiseError> {
        let mut state = Symmetric::new(start, own_public);
        state.mix_ephemeral(peer_ephemeral);
        state.mix_key(&**ephemeral_static);
        let peer_public = state
            .open(sealed_static)?
            .try_into()
            .map_err(|_| NoiseError::NotAuthentic)?;
        Ok(Self {
            state,
            peer_ephemeral: *peer_ephemeral,
            peer_public,
        })
    }

    /// Opens the payload, which proves that the initiator holds its static key.
    pub(crate) fn open_payload(
        mut self,
        static_static: &Secret,
        sealed_payload: &[u8],
    ) -> Result<(Responder, Vec<u8>), NoiseError> {
        self.state.mix_key(&**static_static);
        let payload = self.state.open(sealed_payload)?;
        let responder = Responder {
            state: self.state,
            peer_ephemeral: self.peer_ephemeral,
            peer_public: self.peer_public,
        };
        Ok((responder, payload))
    }
}

/// A responder between message 1 and message 2.
pub(crate) struct Responder {
    state: Symmetric,
    peer_ephemeral: [u8; 32],
    peer_public: [u8; 32],
}

impl Responder {
    /// Seals the payload of message 2, whose other part is our ephemeral public key.
    pub(crate) fn answer(
        mut self,
        ephemeral: &KeyPair,
        preshared_key: &[u8; 32],
        payload: &[u8],
    ) -> Result<(TransportKeys, Vec<u8>), NoiseError> {
        self.state.mix_ephemeral(&ephemeral.public);
        self.state.mix_key(&*ephemeral.agree(&self.peer_ephemeral)?);
        self.state.mix_key(&*ephemeral.agree(&self.peer_public)?);
        self.state.mix_key_and_hash(preshared_key);
        let sealed = self.state.seal(payload);
        let (receive, send) = self.state.split();
        Ok((TransportKeys { send, receive }, sealed))
    }
}

/// What a handshake starts from.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) prologue: &'a [u8],
}

impl From<Protocol> for Start<'static> {
    fn from(protocol: Protocol) -> Self {
        Self {
            protocol,
            prologue: protocol.prologue().as_bytes(),
        }
    }
}

/// Noise's symmetric state. In `IKpsk2` each cipher key seals one thing, so its nonce is always zero.
#[derive(Clone)]
struct Symmetric {
    cipher: Cipher,
    chaining_key: Secret,
    hash: [u8; 32],
    key: Secret,
}

impl Symmetric {
    fn new(start: Start<'_>, responder_public: &[u8; 32]) -> Self {
        // Both names are longer than a hash, so Noise takes their hash.
        let hash: [u8; 32] = Blake2s256::digest(start.protocol.name()).into();
        let mut state = Self {
            cipher: start.protocol.cipher(),
            chaining_key: Zeroizing::new(hash),
            hash,
            key: Zeroizing::new([0; 32]),
        };
        state.mix_hash(start.prologue);
        state.mix_hash(responder_public);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Blake2s256::new()
            .chain_update(self.hash)
            .chain_update(data)
            .finalize()
            .into();
    }

    /// The token `e`: with a pre-shared key in the pattern it is mixed into the key too.
    fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        let [chaining_key, _] = derive(&self.chaining_key, public);
        self.chaining_key = chaining_key;
    }

    fn mix_key(&mut self, input: &[u8]) {
        [self.chaining_key, self.key] = derive(&self.chaining_key, input);
    }

    fn mix_key_and_hash(&mut self, preshared_key: &[u8; 32]) {
        let [chaining_key, hashed, key] = derive(&self.chaining_key, preshared_key);
        self.chaining_key = chaining_key;
        self.mix_hash(&*hashed);
        self.key = key;
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = [plaintext, &[0; TAG_BYTES]].concat();
        PacketKey::new(self.cipher, &self.key).seal(0, &self.hash, &mut sealed);
        self.mix_hash(&sealed);
        sealed
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut buffer = sealed.to_vec();
        let length = PacketKey::new(self.cipher, &self.key)
            .open(0, &self.hash, &mut buffer)
            .map_err(|_| NoiseError::NotAuthentic)?
            .len();
        self.mix_hash(sealed);
        buffer.truncate(length);
        Ok(buffer)
    }

    /// The keys of the initiator's and of the responder's packets.
    fn split(self) -> (Secret, Secret) {
        let [initiator, responder] = derive(&self.chaining_key, &[]);
        (initiator, responder)
    }
}

/// Noise's HKDF with HMAC-BLAKE2s: `N` outputs of 32 bytes.
fn derive<const N: usize>(chaining_key: &Secret, input: &[u8]) -> [Secret; N] {
    let extracted = hmac(&**chaining_key, &[input]);
    let mut previous = Zeroizing::new([0; 32]);
    std::array::from_fn(|i| {
        let number = u8::try_from(i + 1).expect("at most three outputs are taken");
        let output = match i {
            0 => hmac(&*extracted, &[&[number]]),
            _ => hmac(&*extracted, &[&*previous, &[number]]),
        };
        previous = output.clone();
        output
    })
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac =
        SimpleHmac::<Blake2s256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests;
