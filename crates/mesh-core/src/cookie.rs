//! WireGuard's two MACs and its cookies (whitepaper sections 5.3 and 5.4.4): who does not know our
//! public key gets no work out of us, and under load nobody does who cannot receive at their address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use blake2::{Blake2s256, Blake2sMac, Digest, digest::consts::U16};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use hmac::Mac;
use mesh_types::Instant;
use mesh_wire::wireguard::{COOKIE_REPLY_BYTES, CookieReply};
use rand::RngCore;
use rand_chacha::ChaCha20Rng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The secret behind cookies lives this long, and so does a cookie (whitepaper section 5.3).
const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// Initiations a second that are answered without a cookie. Each costs three scalar multiplications,
/// about 0.15 ms: this much keeps a core 98 % free, and a fleet's joins stay below it.
const CALM_INITIATIONS_PER_SECOND: u32 = 100;

/// Under load, what one address may ask at once, and how soon it may ask again.
const BURST_PER_SOURCE: u32 = 5;
const INTERVAL_PER_SOURCE: Duration = Duration::from_millis(50);

/// Sources under watch. Only an address that has proven itself by a cookie takes a place; when all
/// are taken the source that has been quiet longest gives its place up.
const SOURCES_MAX: usize = 1024;

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// The keys that MACs and cookies for one receiver are made with, from its public key.
#[derive(Clone)]
pub(crate) struct ReceiverKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl ReceiverKeys {
    pub(crate) fn new(public: &[u8; 32]) -> Self {
        let key = |label: &[u8]| {
            Blake2s256::new()
                .chain_update(label)
                .chain_update(public)
                .finalize()
                .into()
        };
        Self {
            mac1: key(LABEL_MAC1),
            cookie: key(LABEL_COOKIE),
        }
    }

    /// Fills in `mac1` at `macs_offset`, and `mac2` after it if there is a cookie. Returns `mac1`.
    pub(crate) fn sign(
        &self,
        message: &mut [u8],
        macs_offset: usize,
        cookie: Option<&[u8; 16]>,
    ) -> [u8; 16] {
        let mac1 = mac(&self.mac1, &[&message[..macs_offset]]);
        message[macs_offset..macs_offset + 16].copy_from_slice(&mac1);
        if let Some(cookie) = cookie {
            let mac2 = mac(cookie, &[&message[..macs_offset + 16]]);
            message[macs_offset + 16..macs_offset + 32].copy_from_slice(&mac2);
        }
        mac1
    }

    /// Whether `mac1` of a message to this receiver is right.
    pub(crate) fn verify(&self, message: &[u8], macs_offset: usize) -> bool {
        let expected = mac(&self.mac1, &[&message[..macs_offset]]);
        expected
            .ct_eq(&message[macs_offset..macs_offset + 16])
            .into()
    }

    /// Opens a cookie that this receiver sent in answer to a message with `mac1`.
    pub(crate) fn open_cookie(&self, reply: &CookieReply, mac1: &[u8; 16]) -> Option<[u8; 16]> {
        XChaCha20Poly1305::new(&self.cookie.into())
            .decrypt(
                &reply.nonce.into(),
                Payload {
                    msg: &reply.sealed_cookie,
                    aad: mac1,
                },
            )
            .ok()?
            .try_into()
            .ok()
    }
}

/// A cookie as its receiver keeps it.
#[derive(Clone, Copy)]
pub(crate) struct Cookie {
    bytes: [u8; 16],
    received: Instant,
}

impl Cookie {
    pub(crate) const fn new(bytes: [u8; 16], received: Instant) -> Self {
        Self { bytes, received }
    }

    /// The cookie's bytes while it may be used.
    pub(crate) fn fresh(&self, now: Instant) -> Option<&[u8; 16]> {
        (now.saturating_since(self.received) < COOKIE_LIFETIME).then_some(&self.bytes)
    }
}

/// What to do with an initiation whose `mac1` is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Do the work.
    Welcome,
    /// Send a cookie instead.
    CookieFirst,
    /// Say nothing: this source asks too often.
    TooOften,
}

/// Decides how much work strangers get out of us.
pub(crate) struct Gate {
    secret: Zeroizing<[u8; 32]>,
    secret_made: Option<Instant>,
    /// Start of the second that is being counted, and initiations in it.
    second: Instant,
    initiations: u32,
    loaded_until: Option<Instant>,
    sources: BTreeMap<IpAddr, Bucket>,
}

/// A token bucket, kept as the time at which it is full again.
struct Bucket {
    full_at: Instant,
}

impl Gate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            secret: Zeroizing::new([0; 32]),
            secret_made: None,
            second: now,
            initiations: 0,
            loaded_until: None,
            sources: BTreeMap::new(),
        }
    }

    /// Judges an initiation by its `mac2` and by how many there are.
    pub(crate) fn admit(
        &mut self,
        message: &[u8],
        macs_offset: usize,
        from: SocketAddr,
        now: Instant,
    ) -> Admission {
        if !self.is_loaded(now) {
            return Admission::Welcome;
        }
        if !self.proves_address(message, macs_offset, from, now) {
            return Admission::CookieFirst;
        }
        if self.within_rate(from.ip(), now) {
            Admission::Welcome
        } else {
            Admission::TooOften
        }
    }

    /// Writes the cookie for the sender of a message with this `sender` index and `mac1`.
    pub(crate) fn reply(
        &mut self,
        own: &ReceiverKeys,
        sender: u32,
        mac1: &[u8; 16],
        from: SocketAddr,
        now: Instant,
        rng: &mut ChaCha20Rng,
    ) -> [u8; COOKIE_REPLY_BYTES] {
        let expired = |made: Instant| now.saturating_since(made) >= COOKIE_LIFETIME;
        if self.secret_made.is_none_or(expired) {
            rng.fill_bytes(self.secret.as_mut_slice());
            self.secret_made = Some(now);
        }
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let cookie = self.cookie(from);
        let sealed = XChaCha20Poly1305::new(&own.cookie.into())
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: &cookie,
                    aad: mac1,
                },
            )
            .expect("16 bytes are far below the cipher's limit");
        CookieReply {
            receiver: sender,
            nonce,
            sealed_cookie: sealed.try_into().expect("16 bytes and a tag"),
        }
        .emit()
    }

    fn is_loaded(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.initiations = 0;
        }
        self.initiations = self.initiations.saturating_add(1);
        if self.initiations > CALM_INITIATIONS_PER_SECOND {
            self.loaded_until = Some(now + Duration::from_secs(1));
        }
        self.loaded_until.is_some_and(|until| now < until)
    }

    fn proves_address(
        &self,
        message: &[u8],
        macs_offset: usize,
        from: SocketAddr,
        now: Instant,
    ) -> bool {
        let live = |made: Instant| now.saturating_since(made) < COOKIE_LIFETIME;
        if !self.secret_made.is_some_and(live) {
            return false;
        }
        let expected = mac(&self.cookie(from), &[&message[..macs_offset + 16]]);
        expected
            .ct_eq(&message[macs_offset + 16..macs_offset + 32])
            .into()
    }

    fn cookie(&self, from: SocketAddr) -> [u8; 16] {
        let port = from.port().to_be_bytes();
        match from.ip() {
            IpAddr::V4(address) => mac(&*self.secret, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(&*self.secret, &[&address.octets(), &port]),
        }
    }

    fn within_rate(&mut self, source: IpAddr, now: Instant) -> bool {
        // One subscriber commonly has a /64.
        let source = match source {
            IpAddr::V4(_) => source,
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        };
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, bucket| bucket.full_at > now);
            if self.sources.len() >= SOURCES_MAX {
                let quietest = self
                    .sources
                    .iter()
                    .min_by_key(|(_, bucket)| bucket.full_at)
                    .map(|(source, _)| *source);
                quietest.map(|source| self.sources.remove(&source));
            }
        }
        let bucket = self
            .sources
            .entry(source)
            .or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now) + INTERVAL_PER_SOURCE;
        if full_at.saturating_since(now) > INTERVAL_PER_SOURCE * BURST_PER_SOURCE {
            return false;
        }
        bucket.full_at = full_at;
        true
    }
}

/// BLAKE2s keyed by `key`, 16 bytes long.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac =
        <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("16 and 32 bytes are valid keys");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
