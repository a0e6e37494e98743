use std::{collections::VecDeque, net::SocketAddr};

use mesh_types::Prefix;
use mesh_wire::control::ENDPOINTS_MAX;

/// Where one peer may be reached, as others say.
#[derive(Debug, Default)]
pub struct Hearsay(VecDeque<SocketAddr>);

impl Hearsay {
    /// Hears of endpoints. Returns all that are known, the latest heard first; of more than
    /// [`ENDPOINTS_MAX`] the oldest are forgotten.
    pub fn hear(&mut self, endpoints: &[SocketAddr]) -> Vec<SocketAddr> {
        for endpoint in endpoints.iter().rev() {
            self.0.retain(|other| other != endpoint);
            self.0.push_front(*endpoint);
        }
        self.0.truncate(ENDPOINTS_MAX);
        self.0.iter().copied().collect()
    }
}

/// Those of `endpoints` that may be tried, at most [`ENDPOINTS_MAX`]. An endpoint inside the mesh, whose
/// addresses are `prefix`, would lead a tunnel through itself.
pub fn usable_endpoints(endpoints: Vec<SocketAddr>, prefix: Prefix) -> Vec<SocketAddr> {
    let usable = |endpoint: &SocketAddr| {
        let inside = prefix.holds(endpoint.ip());
        endpoint.port() != 0
            && !endpoint.ip().is_unspecified()
            && !endpoint.ip().is_multicast()
            && !inside
    };
    endpoints
        .into_iter()
        .map(|endpoint| SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port()))
        .filter(usable)
        .take(ENDPOINTS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use mesh_types::NetworkId;

    use super::*;

    #[test]
    fn the_latest_endpoints_come_first_and_the_oldest_are_forgotten() {
        let at = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let mut hearsay = Hearsay::default();
        assert_eq!(hearsay.hear(&[at(1), at(2)]), [at(1), at(2)]);
        assert_eq!(hearsay.hear(&[at(2), at(3)]), [at(2), at(3), at(1)]);
        let many: Vec<_> = (10..50).map(at).collect();
        let known = hearsay.hear(&many);
        assert_eq!(known.len(), ENDPOINTS_MAX);
        assert_eq!(known[0], at(10));
    }

    #[test]
    fn endpoints_inside_the_mesh_or_of_nobody_are_not_tried() {
        let network: NetworkId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        let given = [
            "192.0.2.7:4193",
            "192.0.2.7:0",
            "0.0.0.0:4193",
            "[::]:4193",
            "224.0.0.1:4193",
            "[ff02::1]:4193",
            "[fdc3:582e:db61::7]:4193",
            "[fd00::7]:4193",
            "[::ffff:192.0.2.8]:4193",
        ];
        let given: Vec<SocketAddr> = given.iter().map(|text| text.parse().unwrap()).collect();
        let left: Vec<_> = usable_endpoints(given, network.prefix())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(left, ["192.0.2.7:4193", "[fd00::7]:4193", "192.0.2.8:4193"]);
        let many = (1..100).map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        assert_eq!(
            usable_endpoints(many.collect(), network.prefix()).len(),
            ENDPOINTS_MAX
        );
    }
}
