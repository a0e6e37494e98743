//! What a moon tells a client's other sockets: where it sees them, and a proof of that.
//!
//! Whoever sends a client's token from an address gets an answer there, no longer than what he sent, as
//! often as notices are sent. The answer has a proof that was computed from the client's key and the
//! address, so that it can be shown inside the session: what a client then asks to be sent to an address
//! goes only where it, or somebody who works with it, reads what comes. The moon keeps nothing for this.

use std::{net::IpAddr, sync::OnceLock};

use mesh_types::{Instant, WireguardPublicKey};
use mesh_wire::reflect::{REFLECT_BYTES, ReflectRequest, Reflection};
use rand::RngCore;

use super::RelayServer;
use crate::{Remote, cookie};

/// For how long a proof counts, at least, and at most twice as long: it is shown within seconds.
const PROOF_SECONDS: u64 = 60;

/// What proofs are computed with. There is none before the first token.
#[derive(Default)]
pub(super) struct Secret(OnceLock<[u8; 32]>);

impl Secret {
    pub(super) fn ensure(&self, rng: &mut impl RngCore) {
        self.0.get_or_init(|| {
            let mut secret = [0; 32];
            rng.fill_bytes(&mut secret);
            secret
        });
    }

    /// The proof that a client reads at `address` what comes there, in this part of time.
    fn proof(&self, client: &WireguardPublicKey, address: IpAddr, part: u64) -> Option<u64> {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let parts = [
            client.as_bytes().as_slice(),
            &address.octets(),
            &part.to_be_bytes(),
        ];
        let mac = cookie::mac(self.0.get()?, &parts);
        mac.first_chunk().copied().map(u64::from_be_bytes)
    }
}

fn part(now: Instant) -> u64 {
    now.as_micros() / (PROOF_SECONDS * 1_000_000)
}

impl RelayServer {
    /// Answers a client that asks where one of its sockets is seen; `None`: the datagram is no such request,
    /// is no client's, or is one too many.
    pub fn reflect(
        &self,
        from: Remote,
        datagram: &[u8],
        now: Instant,
    ) -> Option<[u8; REFLECT_BYTES]> {
        let request = ReflectRequest::parse(datagram)?;
        let Remote::Udp(observed) = from else {
            return None;
        };
        let client = self.client_with(request.token, now)?;
        let proof = self.secret.proof(&client, observed.ip(), part(now))?;
        self.notices.admit(from, now).then(|| {
            let id = request.id;
            Reflection {
                id,
                observed,
                proof,
            }
            .emit()
        })
    }

    /// Whether `proof` shows that a client reads what comes to `address`.
    pub(crate) fn is_shown(
        &self,
        client: &WireguardPublicKey,
        address: IpAddr,
        proof: u64,
        now: Instant,
    ) -> bool {
        let now = part(now);
        [Some(now), now.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|part| self.secret.proof(client, address, part) == Some(proof))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mesh_wire::reflect::Heard;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::{Carrier, RelayLimits, StreamId};

    fn key(member: u8) -> WireguardPublicKey {
        let mut bytes = [9; 32];
        bytes[0] = member;
        WireguardPublicKey::try_from(bytes.as_slice()).unwrap()
    }

    fn remote(number: u8, port: u16) -> Remote {
        Remote::Udp(SocketAddr::from(([203, 0, 113, number], port)))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// A moon with two members, of which the first is a client and has this token.
    fn moon() -> (RelayServer, u64) {
        let server = RelayServer::new(RelayLimits::default());
        server.set_members([key(1), key(2)]);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (from, renew) = (remote(1, 4193), std::time::Duration::ZERO);
        let granted = server.grant(&key(1), from, 0, renew, &mut rng, at(1));
        (server, granted.unwrap().token)
    }

    fn ask(server: &RelayServer, from: Remote, token: u64, now: Instant) -> Option<Reflection> {
        let answer = server.reflect(from, &ReflectRequest { token, id: 5 }.emit(), now)?;
        match Heard::parse(&answer) {
            Some(Heard::Reflection(reflection)) => Some(reflection),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_hears_where_another_socket_of_its_is_seen() {
        let (server, token) = moon();
        let reflection = ask(&server, remote(7, 5_000), token, at(2)).unwrap();
        assert_eq!(reflection.id, 5);
        assert_eq!(Remote::Udp(reflection.observed), remote(7, 5_000));
    }

    #[test]
    fn nobody_else_hears_anything() {
        let (server, token) = moon();
        assert_eq!(ask(&server, remote(7, 5_000), token ^ 1, at(2)), None);
        assert_eq!(ask(&server, remote(7, 5_000), token, at(61)), None, "gone");
        let stream = Remote::Stream(StreamId {
            carrier: Carrier::Quic,
            number: 1,
        });
        assert_eq!(ask(&server, stream, token, at(2)), None);
        server.set_members([key(2)]);
        assert_eq!(ask(&server, remote(7, 5_000), token, at(2)), None);
    }

    #[test]
    fn a_proof_counts_for_one_client_at_one_address_for_a_minute_or_two() {
        let (server, token) = moon();
        let proof = ask(&server, remote(7, 5_000), token, at(2)).unwrap().proof;
        let address = |number: u8| IpAddr::from([203, 0, 113, number]);
        assert!(server.is_shown(&key(1), address(7), proof, at(2)));
        assert!(server.is_shown(&key(1), address(7), proof, at(62)));
        assert!(!server.is_shown(&key(1), address(7), proof, at(122)));
        assert!(!server.is_shown(&key(1), address(8), proof, at(2)));
        assert!(!server.is_shown(&key(2), address(7), proof, at(2)));
        assert!(!server.is_shown(&key(1), address(7), proof ^ 1, at(2)));
        let other = RelayServer::new(RelayLimits::default());
        assert!(!other.is_shown(&key(1), address(7), 0, at(2)), "no secret");
    }

    #[test]
    fn a_source_gets_as_many_answers_as_notices() {
        let (server, token) = moon();
        let answers = (0..1_000)
            .filter(|_| ask(&server, remote(7, 5_000), token, at(2)).is_some())
            .count();
        assert_eq!(answers, 100);
    }
}
