use std::collections::BTreeMap;

use mesh_types::{IdentitySeed, MachineName, Serial};
use rsa::{
    sha2::Sha512,
    signature::{SignatureEncoding, Signer as _},
};
use serde_json::Value;
use ssh_key::{
    Algorithm, HashAlg, LineEnding, Mpint, PrivateKey, SshSig,
    private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData, RsaKeypair},
};

use super::{
    FORMAT, Hash, Head, Member, NAMESPACE, NetworkPart, Roster, RosterError, Signer, canonical,
    merkle, verify,
};

/// A roster that lacks only its signature.
#[derive(Clone, Debug)]
pub struct Unsigned {
    head: Value,
    network: Value,
    members: BTreeMap<MachineName, Value>,
    bytes: Vec<u8>,
}

/// What a head says beside the network and its members.
#[derive(Clone, Debug)]
pub struct HeadFields {
    /// The roster's serial.
    pub serial: Serial,
    /// When it is signed, in seconds since 1970.
    pub time: u64,
    /// Revision of the inventory's source; `None`: not known.
    pub revision: Option<String>,
    /// Hash of the previous head; `None` if unknown.
    pub previous: Option<Hash>,
}

impl Unsigned {
    /// Puts a head on a network part and members.
    ///
    /// # Errors
    ///
    /// [`RosterError`] for what no roster may hold; every check of [`Roster::verify`] but the
    /// signature's is made here.
    pub fn new(
        network: &NetworkPart,
        members: &BTreeMap<MachineName, Member>,
        fields: HeadFields,
    ) -> Result<Self, RosterError> {
        let network_value = to_value(network)?;
        let member_values = members
            .iter()
            .map(|(name, member)| Ok((name.clone(), to_value(member)?)))
            .collect::<Result<BTreeMap<_, _>, RosterError>>()?;
        let leaves: Vec<_> = member_values
            .values()
            .map(|member| merkle::leaf(&canonical::to_bytes(member)))
            .collect();
        let head = Head {
            format: FORMAT,
            network: network.id,
            serial: fields.serial,
            time: fields.time,
            revision: fields.revision,
            previous: fields.previous,
            network_hash: Hash::of(&canonical::to_bytes(&network_value)),
            member_count: leaves.len() as u64,
            member_root: merkle::root(&leaves),
        };
        let head = to_value(&head)?;
        verify::head(&head)?;
        verify::parts(network, members)?;
        Ok(Self {
            bytes: canonical::to_bytes(&head),
            head,
            network: network_value,
            members: member_values,
        })
    }

    /// What is signed, with namespace [`NAMESPACE`]: the canonical head.
    pub fn bytes_to_sign(&self) -> &[u8] {
        &self.bytes
    }

    /// What an SSH key signs for it: the head's SHA-512 in the frame of OpenSSH's `PROTOCOL.sshsig`.
    /// This is what an ssh-agent is asked to sign.
    pub fn ssh_signed_data(&self) -> Vec<u8> {
        SshSig::signed_data(NAMESPACE, HashAlg::Sha512, &self.bytes)
            .expect("the namespace is not empty")
    }

    /// Joins the roster and its signature, the armoured text that `ssh-keygen -Y sign -n mesh-roster`
    /// writes. The signature is verified; whether its maker is trusted is for others to judge.
    ///
    /// # Errors
    ///
    /// [`RosterError`] if the signature is not one, or not of this head.
    pub fn attach(self, signature: &str) -> Result<Roster, RosterError> {
        Roster::open(&self.to_file(signature))
    }

    /// Joins the roster and a signature that an ssh-agent made of [`Unsigned::ssh_signed_data`].
    ///
    /// # Errors
    ///
    /// [`RosterError`] if the signature is not one of this head by `key`.
    pub fn attach_ssh(
        self,
        key: &ssh_key::PublicKey,
        signature: ssh_key::Signature,
    ) -> Result<Roster, RosterError> {
        let signature = SshSig::new(
            key.key_data().clone(),
            NAMESPACE,
            HashAlg::Sha512,
            signature,
        )
        .and_then(|signature| signature.to_pem(LineEnding::LF))
        .map_err(|_| RosterError::SignatureForm)?;
        self.attach(&signature)
    }

    /// Signs with an SSH private key, which must not be encrypted.
    ///
    /// # Errors
    ///
    /// [`RosterError`] if the key is of a kind that cannot sign rosters.
    pub fn sign_with_ssh(self, key: &PrivateKey) -> Result<Roster, RosterError> {
        let data = self.ssh_signed_data();
        let signature = if let KeypairData::Rsa(rsa) = key.key_data() {
            sign_with_rsa(rsa, &data)
        } else {
            key.try_sign(&data).map_err(|_| ssh_key::Error::Crypto)
        };
        let signature = signature.map_err(RosterError::Sign)?;
        self.attach_ssh(key.public_key(), signature)
    }

    /// Signs with the Ed25519 half of an identity, such as a controller's own.
    ///
    /// # Errors
    ///
    /// [`RosterError`] as [`Unsigned::attach`].
    pub fn sign_with_seed(self, seed: &IdentitySeed) -> Result<Roster, RosterError> {
        let keypair =
            Ed25519Keypair::from(Ed25519PrivateKey::from_bytes(seed.signing_key().as_bytes()));
        let roster = self.sign_with_ssh(&PrivateKey::from(keypair))?;
        Ok(roster.signed_by(Signer::from(seed.public())))
    }

    /// One line a part and a line a member, so that a change shows well in a diff of text.
    fn to_file(&self, signature: &str) -> Vec<u8> {
        let mut file = b"{\"head\":".to_vec();
        file.extend(&self.bytes);
        file.extend(b",\n\"signature\":");
        file.extend(canonical::to_bytes(&Value::from(signature)));
        file.extend(b",\n\"network\":");
        file.extend(canonical::to_bytes(&self.network));
        file.extend(b",\n\"members\":{");
        for (index, (name, member)) in self.members.iter().enumerate() {
            file.extend(if index > 0 { ",\n\"" } else { "\n\"" }.bytes());
            file.extend(name.as_ref().bytes());
            file.extend(b"\":");
            file.extend(canonical::to_bytes(member));
        }
        file.extend(b"\n}}\n");
        file
    }

    /// The head, as it will be signed.
    pub fn head(&self) -> Head {
        serde_json::from_value(self.head.clone()).expect("it was made from a head")
    }
}

/// RSA with PKCS #1 v1.5 and SHA-512 (`rsa-sha2-512`, RFC 8332). Built from the key's numbers, because
/// ssh-key 0.6.7 hands the first prime over twice.
fn sign_with_rsa(key: &RsaKeypair, data: &[u8]) -> Result<ssh_key::Signature, ssh_key::Error> {
    let number = |mpint: &Mpint| rsa::BigUint::try_from(mpint);
    let primes = vec![number(&key.private.p)?, number(&key.private.q)?];
    let key = rsa::RsaPrivateKey::from_components(
        number(&key.public.n)?,
        number(&key.public.e)?,
        number(&key.private.d)?,
        primes,
    )
    .map_err(|_| ssh_key::Error::Crypto)?;
    let signature = rsa::pkcs1v15::SigningKey::<Sha512>::new(key)
        .try_sign(data)
        .map_err(|_| ssh_key::Error::Crypto)?;
    ssh_key::Signature::new(
        Algorithm::Rsa {
            hash: Some(HashAlg::Sha512),
        },
        signature.to_vec(),
    )
}

fn to_value<T: serde::Serialize>(part: &T) -> Result<Value, RosterError> {
    let value = serde_json::to_value(part).map_err(RosterError::Json)?;
    canonical::check(&value).map_err(RosterError::Strict)?;
    Ok(value)
}
