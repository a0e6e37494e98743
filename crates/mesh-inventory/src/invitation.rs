//! Invitations: what lets one new machine in, once, without anybody at hand. `docs/joining.md` tells the whole story.

use std::str::FromStr;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _};
use mesh_types::{IdentitySeed, MachineName, NetworkId, PublicIdentity};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::roster::Signer;

/// What every token begins with.
const TAG: &str = "mesh1-invitation-";

/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What the newcomer's proof is of.
const CONTEXT: &str = "mesh-join-v1";

/// Everything that a new machine needs to know. Whoever has it can join as that machine, until it is used or expires.
#[derive(Debug)]
pub struct Invitation {
    /// The network.
    pub network: NetworkId,
    /// The new machine's name.
    pub name: MachineName,
    /// Until when it counts, in seconds since 1970.
    pub expires: u64,
    /// Who may sign rosters.
    pub signers: Vec<Signer>,
    /// Where the controllers are that know of it, and who they are.
    pub controllers: Vec<InvitingController>,
    /// What proves it. The controllers have the public half.
    pub secret: IdentitySeed,
}

/// A controller that knows of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvitingController {
    /// `host:port`.
    pub endpoint: String,
    /// Its identity; no other server is spoken to.
    pub identity: PublicIdentity,
}

/// Why a text is no invitation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseInvitationError {
    /// It does not begin as one.
    #[error("an invitation begins with `{TAG}`")]
    Tag,
    /// It is not whole.
    #[error("the invitation is cut short or was changed")]
    Damaged,
    /// It is of a release that knows more.
    #[error("the invitation is of form {0}, and this release knows form 1: update it")]
    Form(u32),
}

/// What is inside of a token.
#[derive(Serialize, Deserialize)]
struct Text {
    form: u32,
    network: NetworkId,
    name: MachineName,
    expires: u64,
    signers: Vec<Signer>,
    controllers: Vec<InvitingController>,
    secret: Line,
}

/// The line of a seed.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Line(String);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Invitation {
    /// The token: one word, and a secret.
    pub fn to_token(&self) -> Zeroizing<String> {
        let text = Text {
            form: 1,
            network: self.network,
            name: self.name.clone(),
            expires: self.expires,
            signers: self.signers.clone(),
            controllers: self.controllers.clone(),
            secret: Line(self.secret.to_line().to_string()),
        };
        let json = Zeroizing::new(serde_json::to_vec(&text).expect("it has string keys only"));
        let mut token = Zeroizing::new(String::with_capacity(TAG.len() + json.len() * 4 / 3 + 4));
        token.push_str(TAG);
        BASE64_URL_SAFE_NO_PAD.encode_string(json.as_slice(), &mut token);
        token
    }

    /// What the newcomer with `identity` shows a controller.
    pub fn proof(&self, identity: &PublicIdentity) -> String {
        let message = message(&self.network, &self.name, identity);
        let signature = self.secret.signing_key().sign(message.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(signature.to_bytes())
    }
}

/// Whether `proof` shows that the one with `identity` has the secret of the invitation with this public half, for this name
/// and network.
pub fn is_proof(
    invitation: &PublicIdentity,
    network: &NetworkId,
    name: &MachineName,
    identity: &PublicIdentity,
    proof: &str,
) -> bool {
    let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(proof) else {
        return false;
    };
    let Ok(signature) = Signature::from_slice(&bytes) else {
        return false;
    };
    let key = invitation.node_id().verifying_key();
    key.verify_strict(message(network, name, identity).as_bytes(), &signature)
        .is_ok()
}

fn message(network: &NetworkId, name: &MachineName, identity: &PublicIdentity) -> String {
    format!("{CONTEXT}\n{network}\n{name}\n{identity}")
}

impl FromStr for Invitation {
    type Err = ParseInvitationError;

    fn from_str(token: &str) -> Result<Self, Self::Err> {
        let body = token
            .trim()
            .strip_prefix(TAG)
            .ok_or(ParseInvitationError::Tag)?;
        if body.len() > TOKEN_BYTES_MAX {
            return Err(ParseInvitationError::Damaged);
        }
        let damaged = |_| ParseInvitationError::Damaged;
        let json = BASE64_URL_SAFE_NO_PAD
            .decode(body)
            .map(Zeroizing::new)
            .map_err(|_| ParseInvitationError::Damaged)?;
        /// What every form has.
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let Form { form } = serde_json::from_slice(&json).map_err(damaged)?;
        if form != 1 {
            return Err(ParseInvitationError::Form(form));
        }
        let text: Text = serde_json::from_slice(&json).map_err(damaged)?;
        let secret =
            IdentitySeed::parse(&text.secret.0).map_err(|_| ParseInvitationError::Damaged)?;
        Ok(Self {
            network: text.network,
            name: text.name,
            expires: text.expires,
            signers: text.signers,
            controllers: text.controllers,
            secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed(byte: u8) -> IdentitySeed {
        IdentitySeed::from_bytes([byte; 32])
    }

    fn invitation() -> Invitation {
        Invitation {
            network: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
            name: "stibnite".parse().unwrap(),
            expires: 1_800_000_000,
            signers: vec![Signer::from(seed(1).public())],
            controllers: vec![InvitingController {
                endpoint: "cinnabar.example.org:4194".to_owned(),
                identity: seed(2).public(),
            }],
            secret: seed(3),
        }
    }

    #[test]
    fn a_token_is_read_again_and_is_one_word() {
        let token = invitation().to_token();
        assert!(!token.contains(char::is_whitespace));
        let read: Invitation = format!(" {}\n", *token).parse().unwrap();
        assert_eq!(read.to_token(), token);
        assert_eq!(read.controllers, invitation().controllers);
        assert!(!format!("{read:?}").contains("seed-"), "no secret is shown");
    }

    #[test]
    fn what_is_no_token_says_why() {
        let parsed = |text: &str| text.parse::<Invitation>().unwrap_err();
        assert_eq!(parsed("mesh1-seed-abc"), ParseInvitationError::Tag);
        let token = invitation().to_token();
        assert_eq!(
            parsed(&token[..token.len() - 9]),
            ParseInvitationError::Damaged
        );
        let newer = BASE64_URL_SAFE_NO_PAD.encode(r#"{"form":2}"#);
        assert_eq!(
            parsed(&format!("{TAG}{newer}")),
            ParseInvitationError::Form(2)
        );
    }

    #[test]
    fn a_proof_is_of_one_machine_in_one_network() {
        let invitation = invitation();
        let (key, newcomer) = (seed(3).public(), seed(4).public());
        let proof = invitation.proof(&newcomer);
        let (other, another) = (seed(5).public(), seed(6).public());
        let elsewhere = NetworkId::from_bytes([9; 16]);
        let network = invitation.network;
        for (key, network, name, identity, proof, holds) in [
            (key, network, "stibnite", newcomer, proof.as_str(), true),
            (key, elsewhere, "stibnite", newcomer, &proof, false),
            (key, network, "galena", newcomer, &proof, false),
            (key, network, "stibnite", other, &proof, false),
            (another, network, "stibnite", newcomer, &proof, false),
            (key, network, "stibnite", newcomer, &proof[1..], false),
            (key, network, "stibnite", newcomer, "", false),
        ] {
            let name = name.parse().unwrap();
            assert_eq!(is_proof(&key, &network, &name, &identity, proof), holds);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = text.parse::<Invitation>();
            let _ = format!("{TAG}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)).parse::<Invitation>();
        }
    }
}
