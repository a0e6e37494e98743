use aes_gcm::Aes256Gcm;
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Tag};

use crate::{Cipher, KEY_BYTES, OpenError, TAG_BYTES};

/// A key in the RustCrypto implementations.
pub(crate) enum Key {
    ChaCha(Box<ChaCha20Poly1305>),
    Aes(Box<Aes256Gcm>),
}

impl Key {
    pub(crate) fn new(cipher: Cipher, key: &[u8; KEY_BYTES]) -> Self {
        match cipher {
            Cipher::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
            Cipher::Aes256Gcm => Self::Aes(Box::new(Aes256Gcm::new(key.into()))),
        }
    }

    pub(crate) fn seal(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        packet: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let tag = match self {
            Self::ChaCha(key) => key.encrypt_in_place_detached(nonce.into(), additional, packet),
            Self::Aes(key) => key.encrypt_in_place_detached(nonce.into(), additional, packet),
        };
        tag.expect("a packet is far shorter than the cipher's limit")
            .into()
    }

    pub(crate) fn open(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        packet: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        let tag = Tag::from_slice(tag);
        match self {
            Self::ChaCha(key) => {
                key.decrypt_in_place_detached(nonce.into(), additional, packet, tag)
            }
            Self::Aes(key) => key.decrypt_in_place_detached(nonce.into(), additional, packet, tag),
        }
        .map_err(|_| OpenError)
    }
}
