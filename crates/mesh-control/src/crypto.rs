//! Who the other side is: raw Ed25519 keys in TLS 1.3 (RFC 7250), and nothing else.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::{digest, hmac};
use mesh_types::{IdentitySeed, NodeId};
use mesh_wire::control::ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

/// What precedes the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What precedes the 32 bytes of an Ed25519 seed in PKCS #8 (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Which servers a client takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any that proves to hold some key; the caller judges it afterwards.
    Any,
    /// One that proves to hold one of these.
    OneOf(Vec<NodeId>),
}

/// The server that was met and not expected.
pub(crate) type Unexpected = Arc<OnceLock<NodeId>>;

/// The TLS side of a server with this identity; clients may have one, and prove it if they do.
pub(crate) fn server_config(identity: &IdentitySeed) -> QuicServerConfig {
    server_tls(identity, ALPN)
        .try_into()
        .expect("TLS 1.3 has QUIC's initial cipher suite")
}

/// The same for any transport, for the application protocol `alpn`.
pub(crate) fn server_tls(identity: &IdentitySeed, alpn: &[u8]) -> rustls::ServerConfig {
    let key = certified_key(identity);
    let mut config = rustls::ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(Verifier::new(Expect::Any)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed handshake would save one signature and keep keys of old connections around.
    config.send_tls13_tickets = 0;
    config
}

/// The TLS side of a client, and where an unexpected server's key is left.
pub(crate) fn client_config(
    identity: Option<&IdentitySeed>,
    expect: Expect,
) -> (QuicClientConfig, Unexpected) {
    let (config, unexpected) = client_tls(identity, expect, ALPN);
    let config = config
        .try_into()
        .expect("TLS 1.3 has QUIC's initial cipher suite");
    (config, unexpected)
}

/// The same for any transport, for the application protocol `alpn`.
pub(crate) fn client_tls(
    identity: Option<&IdentitySeed>,
    expect: Expect,
    alpn: &[u8],
) -> (rustls::ClientConfig, Unexpected) {
    let verifier = Verifier::new(expect);
    let unexpected = Arc::clone(&verifier.unexpected);
    let resolver: Arc<dyn ResolvesClientCert> = match identity {
        Some(identity) => Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified_key(
            identity,
        ))),
        None => Arc::new(NoClientKey),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    // Names mean nothing here: a server is its key.
    config.enable_sni = false;
    (config, unexpected)
}

/// The key that the other side proved to hold; `None` if it came without one.
pub(crate) fn proven_key(connection: &quinn::Connection) -> Option<NodeId> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    node_id(chain.first()?)
}

/// The key of a chain that the other side showed and proved; `None` if it showed none.
pub(crate) fn shown_key(chain: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
    node_id(chain?.first()?)
}

/// A secret for one purpose of the QUIC endpoint, the same after every restart: a client whose server
/// was restarted then learns at once that its connection is gone (RFC 9000 section 10.3).
pub(crate) fn endpoint_secret(identity: &IdentitySeed, purpose: &str) -> digest::Digest {
    let seed = Zeroizing::new(identity.signing_key().to_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_slice());
    let tag = hmac::sign(&key, purpose.as_bytes());
    digest::digest(&digest::SHA256, tag.as_ref())
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn certified_key(identity: &IdentitySeed) -> Arc<CertifiedKey> {
    let mut private = Zeroizing::new([0; 48]);
    private[..16].copy_from_slice(&PKCS8_PREFIX);
    let seed = Zeroizing::new(identity.signing_key().to_bytes());
    private[16..].copy_from_slice(seed.as_slice());
    let key = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(private.as_slice()))
        .expect("any 32 bytes are an Ed25519 seed");
    let public = [
        &SPKI_PREFIX[..],
        identity.public().node_id().as_bytes().as_slice(),
    ]
    .concat();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key))
}

/// Reads a raw public key; anything but a strong Ed25519 key is none.
fn node_id(spki: &[u8]) -> Option<NodeId> {
    NodeId::try_from(spki.strip_prefix(&SPKI_PREFIX)?).ok()
}

/// Has no key to show, and says that it speaks raw keys only, so that the server goes on without one.
#[derive(Debug)]
struct NoClientKey;

impl ResolvesClientCert for NoClientKey {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Takes raw Ed25519 keys, of either side.
#[derive(Debug)]
struct Verifier {
    expect: Expect,
    unexpected: Unexpected,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(expect: Expect) -> Self {
        Self {
            expect,
            unexpected: Unexpected::default(),
            provider: crypto(),
        }
    }

    fn check(&self, key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let key = node_id(key).ok_or(CertificateError::BadEncoding)?;
        if !others.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        match &self.expect {
            Expect::OneOf(expected) if !expected.contains(&key) => {
                let _ = self.unexpected.set(key);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Expect::OneOf(_) | Expect::Any => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
        }
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
