use std::str::FromStr;

use mesh_api::PeerStatus;
use mesh_types::{MachineName, ParseNameError};

/// Which peers to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// The one with this name.
    Name(MachineName),
    /// Those with this tag.
    Tag(String),
}

impl FromStr for Filter {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        match text.strip_prefix("tag:") {
            Some(tag) => Ok(Self::Tag(tag.to_owned())),
            None => text.parse().map(Self::Name),
        }
    }
}

/// Keeps the peers that any filter lets pass; without a filter, all of them.
pub(crate) fn keep(peers: &mut Vec<PeerStatus>, filters: &[Filter]) {
    if filters.is_empty() {
        return;
    }
    peers.retain(|peer| {
        filters.iter().any(|filter| match filter {
            Filter::Name(name) => peer.name == *name,
            Filter::Tag(tag) => peer.tags.contains(tag),
        })
    });
}
