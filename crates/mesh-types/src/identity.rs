use std::{fmt, str::FromStr};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// How the line in an identity file begins.
const SEED_TAG: &str = "mesh1-seed-";

/// How a public identity begins.
const PUBLIC_TAG: &str = "mesh1";

/// How a guest's key begins in an inventory.
const WIREGUARD_TAG: &str = "wireguard:";

/// A node's secret: 32 random bytes from which its two private keys derive.
///
/// Zeroed when dropped, and never shown: `Debug` is redacted and there is no `Display`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct IdentitySeed([u8; 32]);

/// What the fleet knows of a node's identity: its Ed25519 key (control channel, signatures) and its
/// X25519 key (WireGuard), both checked to be points of full order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicIdentity {
    ed25519: [u8; 32],
    x25519: [u8; 32],
}

/// The Ed25519 half of a [`PublicIdentity`]: what a node proves to hold on the control channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// A WireGuard public key (X25519), of a member's identity or of a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireguardPublicKey([u8; 32]);

/// The key of a member in the roster, as its `publicKey` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MemberKey {
    /// A machine that runs the agent: `mesh1…`.
    Mesh(PublicIdentity),
    /// A guest with stock WireGuard: `wireguard:<base64>`.
    Wireguard(WireguardPublicKey),
}

/// Text that is no identity seed. Holds none of the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity: one line `mesh1-seed-` and 43 characters of base64url is expected")]
pub struct ParseSeedError;

/// Text or bytes that are no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// Neither a public identity nor a guest's key.
    #[error("not a public key: `mesh1` and 86 characters, or `wireguard:` and 44, are expected")]
    Form,
    /// The secret seed where the public identity belongs.
    #[error(
        "this is the secret seed, not the public identity; take `mesh keygen --public FILE`'s output, and make a new identity if others saw this one"
    )]
    Secret,
    /// The length or the base64 is wrong.
    #[error("a public key of the wrong length or with characters that are no base64")]
    Encoding,
    /// The key is a point of low order, with which there is no secret to agree on.
    #[error("a key of low order, which no generator makes")]
    LowOrder,
}

impl IdentitySeed {
    /// The identity with this seed, which must come from the system's random source.
    pub const fn from_bytes(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// Reads the line of an identity file; a line feed at its end is allowed.
    ///
    /// # Errors
    ///
    /// [`ParseSeedError`] for anything else.
    pub fn parse(line: &str) -> Result<Self, ParseSeedError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let text = line.strip_prefix(SEED_TAG).ok_or(ParseSeedError)?;
        if text.len() != 43 {
            return Err(ParseSeedError);
        }
        let mut seed = Self([0; 32]);
        // 33 bytes is what the decoder asks for as room for 43 characters.
        let mut room = Zeroizing::new([0; 33]);
        let length = BASE64_URL_SAFE_NO_PAD
            .decode_slice(text, room.as_mut_slice())
            .map_err(|_| ParseSeedError)?;
        if length != 32 {
            return Err(ParseSeedError);
        }
        seed.0.copy_from_slice(&room[..32]);
        Ok(seed)
    }

    /// The line of an identity file, with its line feed: a secret.
    pub fn to_line(&self) -> Zeroizing<String> {
        // Room for everything, so that no half-written copy is left behind by growing.
        let mut line = Zeroizing::new(String::with_capacity(64));
        line.push_str(SEED_TAG);
        BASE64_URL_SAFE_NO_PAD.encode_string(self.0, &mut line);
        line.push('\n');
        line
    }

    /// The Ed25519 key of the control channel: HKDF-SHA256, empty salt, info `mesh-ed25519-v1`.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.derive("mesh-ed25519-v1"))
    }

    /// By what a router knows this machine's port mapping again: HKDF-SHA256, empty salt, info
    /// `mesh-port-mapping-v1`, the first 12 bytes.
    pub fn port_mapping_nonce(&self) -> [u8; 12] {
        let derived = self.derive("mesh-port-mapping-v1");
        std::array::from_fn(|index| derived[index])
    }

    /// The X25519 key of WireGuard: HKDF-SHA256, empty salt, info `mesh-x25519-v1`.
    pub fn static_secret(&self) -> StaticSecret {
        StaticSecret::from(*self.derive("mesh-x25519-v1"))
    }

    /// What others may know of this identity.
    pub fn public(&self) -> PublicIdentity {
        PublicIdentity {
            ed25519: self.signing_key().verifying_key().to_bytes(),
            x25519: PublicKey::from(&self.static_secret()).to_bytes(),
        }
    }

    fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, &self.0)
            .expand(info.as_bytes(), key.as_mut_slice())
            .expect("32 bytes are within what HKDF-SHA256 gives");
        key
    }
}

impl fmt::Debug for IdentitySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentitySeed(redacted)")
    }
}

impl PublicIdentity {
    /// The Ed25519 half.
    pub const fn node_id(&self) -> NodeId {
        NodeId(self.ed25519)
    }

    /// The X25519 half.
    pub const fn wireguard(&self) -> WireguardPublicKey {
        WireguardPublicKey(self.x25519)
    }
}

impl FromStr for PublicIdentity {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        if text.starts_with(SEED_TAG) {
            return Err(ParseKeyError::Secret);
        }
        let text = text.strip_prefix(PUBLIC_TAG).ok_or(ParseKeyError::Form)?;
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| ParseKeyError::Encoding)?;
        let (ed25519, x25519) = bytes.split_at_checked(32).ok_or(ParseKeyError::Encoding)?;
        let node_id = NodeId::try_from(ed25519)?;
        let wireguard = WireguardPublicKey::try_from(x25519)?;
        Ok(Self {
            ed25519: node_id.0,
            x25519: wireguard.0,
        })
    }
}

impl fmt::Display for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.ed25519, self.x25519].concat();
        write!(f, "{PUBLIC_TAG}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({self})")
    }
}

impl NodeId {
    /// The key's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key, ready to verify signatures with.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::from_bytes(&self.0).expect("checked when this value was made")
    }
}

impl TryFrom<&[u8]> for NodeId {
    type Error = ParseKeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseKeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| ParseKeyError::Encoding)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| ParseKeyError::Encoding)?;
        if key.is_weak() {
            return Err(ParseKeyError::LowOrder);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl WireguardPublicKey {
    /// The key's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for WireguardPublicKey {
    type Error = ParseKeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseKeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| ParseKeyError::Encoding)?;
        // Any secret serves: its scalar is a multiple of 8, so a point of low order gives zero.
        let shared = StaticSecret::from([0x42; 32]).diffie_hellman(&PublicKey::from(bytes));
        if !shared.was_contributory() {
            return Err(ParseKeyError::LowOrder);
        }
        Ok(Self(bytes))
    }
}

impl FromStr for WireguardPublicKey {
    type Err = ParseKeyError;

    /// Reads WireGuard's own form, base64 with padding.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = BASE64_STANDARD
            .decode(text)
            .map_err(|_| ParseKeyError::Encoding)?;
        Self::try_from(bytes.as_slice())
    }
}

impl fmt::Display for WireguardPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for WireguardPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireguardPublicKey({self})")
    }
}

impl MemberKey {
    /// The key that handshakes are made with.
    pub const fn wireguard(&self) -> WireguardPublicKey {
        match self {
            Self::Mesh(identity) => identity.wireguard(),
            Self::Wireguard(key) => *key,
        }
    }

    /// The key of the control channel; `None` for a guest, which has none.
    pub const fn node_id(&self) -> Option<NodeId> {
        match self {
            Self::Mesh(identity) => Some(identity.node_id()),
            Self::Wireguard(_) => None,
        }
    }
}

impl FromStr for MemberKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        match text.strip_prefix(WIREGUARD_TAG) {
            Some(key) => key.parse().map(Self::Wireguard),
            None => text.parse().map(Self::Mesh),
        }
    }
}

impl fmt::Display for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh(identity) => identity.fmt(f),
            Self::Wireguard(key) => write!(f, "{WIREGUARD_TAG}{key}"),
        }
    }
}

/// Serialisation as the text of `Display`, parsed by `FromStr`.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = ParseKeyError;

            fn try_from(text: String) -> Result<Self, ParseKeyError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(key: $type) -> Self {
                key.to_string()
            }
        }
    };
}

as_text!(PublicIdentity);
as_text!(MemberKey);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: &str = "mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA";

    fn documented() -> IdentitySeed {
        IdentitySeed::from_bytes(std::array::from_fn(|i| i as u8))
    }

    #[test]
    fn the_documented_seed_has_the_documented_public_identity() {
        assert_eq!(documented().public().to_string(), PUBLIC);
        assert_eq!(PUBLIC.parse(), Ok(documented().public()));
    }

    #[test]
    fn a_seed_line_is_read_back_and_nothing_else_is() {
        let line = documented().to_line();
        assert_eq!(
            line.as_str(),
            "mesh1-seed-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n"
        );
        assert_eq!(
            IdentitySeed::parse(&line).unwrap().public(),
            documented().public()
        );
        assert!(IdentitySeed::parse(line.trim_end()).is_ok());
        // The last character carries two unused bits, which must be zero.
        for bad in [
            "",
            "mesh1-seed-",
            PUBLIC,
            &line.replace("Hh8", "Hh9"),
            &format!("{}A", line.trim_end()),
            &format!("{}\n", line.as_str()),
        ] {
            assert!(IdentitySeed::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_is_never_shown() {
        assert_eq!(format!("{:?}", documented()), "IdentitySeed(redacted)");
    }

    #[test]
    fn a_seed_given_as_public_key_is_named_as_such() {
        let error = documented()
            .to_line()
            .trim_end()
            .parse::<PublicIdentity>()
            .unwrap_err();
        assert_eq!(error, ParseKeyError::Secret);
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        assert_eq!(
            WireguardPublicKey::try_from(&[0; 32][..]),
            Err(ParseKeyError::LowOrder)
        );
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(
            WireguardPublicKey::try_from(&one[..]),
            Err(ParseKeyError::LowOrder)
        );
        // The neutral element of Ed25519.
        assert_eq!(NodeId::try_from(&one[..]), Err(ParseKeyError::LowOrder));
    }

    #[test]
    fn a_guests_key_is_written_as_wireguard_writes_it() {
        let key = documented().public().wireguard();
        let text = format!("wireguard:{key}");
        assert_eq!(text.parse(), Ok(MemberKey::Wireguard(key)));
        assert_eq!(MemberKey::Wireguard(key).to_string(), text);
        assert_eq!(key.to_string().len(), 44);
    }

    proptest! {
        #[test]
        fn identities_survive_their_text(seed in any::<[u8; 32]>()) {
            let public = IdentitySeed::from_bytes(seed).public();
            prop_assert_eq!(public.to_string().parse(), Ok(public));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<MemberKey>();
            let _ = format!("mesh1{text}").parse::<MemberKey>();
            let _ = IdentitySeed::parse(&format!("mesh1-seed-{text}"));
        }
    }
}
