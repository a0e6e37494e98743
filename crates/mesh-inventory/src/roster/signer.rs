use std::{fmt, str::FromStr};

use mesh_types::{ParseKeyError, PublicIdentity};
use serde::{Deserialize, Serialize};
use ssh_key::{
    Algorithm, EcdsaCurve, PublicKey,
    public::{Ed25519PublicKey, KeyData},
};

/// The least size of an RSA key that may sign, in bits of its modulus.
const RSA_BITS_MIN: usize = 2048;

/// The kinds of keys, beside RSA, whose signatures can be verified.
const VERIFIED: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::SkEd25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::SkEcdsaSha2NistP256,
];

/// Who may sign a roster: an SSH key, or a `mesh1` identity's Ed25519 half.
///
/// Two signers are equal if their keys are, whatever the form or comment they were written with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signer(Kind);

#[derive(Clone)]
enum Kind {
    Mesh(PublicIdentity),
    Ssh(PublicKey),
}

/// Text that names no signer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSignerError {
    /// It begins as an identity, and is none.
    #[error(transparent)]
    Identity(#[from] ParseKeyError),
    /// It is no SSH public key either.
    #[error(
        "not a signer: an SSH public key (`ssh-ed25519 AAAA…`) or a `mesh1…` identity is expected"
    )]
    Form,
    /// A key of a kind whose signatures cannot be verified.
    #[error(
        "SSH keys of kind `{0}` cannot sign rosters; use Ed25519, ECDSA P-256, RSA or their hardware-token forms"
    )]
    Algorithm(String),
    /// An RSA key that is too short.
    #[error("an RSA key must have at least {RSA_BITS_MIN} bits to sign rosters")]
    ShortRsa,
}

impl Signer {
    /// The key as SSH has it.
    pub fn key_data(&self) -> KeyData {
        match &self.0 {
            Kind::Mesh(identity) => {
                KeyData::Ed25519(Ed25519PublicKey(*identity.node_id().as_bytes()))
            }
            Kind::Ssh(key) => key.key_data().clone(),
        }
    }

    /// The identity, if the signer is one.
    pub fn identity(&self) -> Option<&PublicIdentity> {
        match &self.0 {
            Kind::Mesh(identity) => Some(identity),
            Kind::Ssh(_) => None,
        }
    }

    /// The fingerprint as OpenSSH shows it, such as `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        self.key_data()
            .fingerprint(ssh_key::HashAlg::Sha256)
            .to_string()
    }

    /// The signer as a line that `ssh-keygen -Y verify` reads from its list of allowed signers, without
    /// the principal: kind and key.
    pub fn to_openssh(&self) -> String {
        PublicKey::new(self.key_data(), "")
            .to_openssh()
            .expect("a key that was read can be written")
    }
}

impl From<PublicIdentity> for Signer {
    fn from(identity: PublicIdentity) -> Self {
        Self(Kind::Mesh(identity))
    }
}

impl TryFrom<PublicKey> for Signer {
    type Error = ParseSignerError;

    fn try_from(key: PublicKey) -> Result<Self, ParseSignerError> {
        let algorithm = key.algorithm();
        if matches!(algorithm, Algorithm::Rsa { .. }) {
            let modulus = key
                .key_data()
                .rsa()
                .and_then(|rsa| rsa.n.as_positive_bytes());
            if modulus.map_or(0, <[u8]>::len) * 8 < RSA_BITS_MIN {
                return Err(ParseSignerError::ShortRsa);
            }
        } else if !VERIFIED.contains(&algorithm) {
            return Err(ParseSignerError::Algorithm(algorithm.to_string()));
        }
        Ok(Self(Kind::Ssh(key)))
    }
}

impl FromStr for Signer {
    type Err = ParseSignerError;

    fn from_str(text: &str) -> Result<Self, ParseSignerError> {
        let text = text.trim();
        if text.starts_with("mesh1") {
            return Ok(text.parse::<PublicIdentity>()?.into());
        }
        let key = PublicKey::from_openssh(text).map_err(|_| ParseSignerError::Form)?;
        Self::try_from(key)
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.key_data() == other.key_data()
    }
}

impl Eq for Signer {}

impl TryFrom<String> for Signer {
    type Error = ParseSignerError;

    fn try_from(text: String) -> Result<Self, ParseSignerError> {
        text.parse()
    }
}

impl From<Signer> for String {
    fn from(signer: Signer) -> Self {
        signer.to_string()
    }
}

impl fmt::Display for Signer {
    /// `mesh1…`, or kind, key and comment as in an SSH public key file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Mesh(identity) => identity.fmt(f),
            Kind::Ssh(key) => f.write_str(&key.to_openssh().map_err(|_| fmt::Error)?),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({self})")
    }
}
