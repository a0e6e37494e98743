use std::{fmt, str::FromStr};

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

impl Filter {
    fn passes(&self, peer: &PeerStatus) -> bool {
        match self {
            Self::Name(name) => peer.name == *name,
            Self::Tag(tag) => peer.tags.contains(tag),
        }
    }
}

/// As in "no peer is called `galena`".
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "is called `{name}`"),
            Self::Tag(tag) => write!(f, "has the tag `{tag}`"),
        }
    }
}

/// The filters that no peer passes: misspelt, perhaps.
pub(crate) fn idle<'a>(peers: &[PeerStatus], filters: &'a [Filter]) -> Vec<&'a Filter> {
    let is_idle = |filter: &&Filter| !peers.iter().any(|peer| filter.passes(peer));
    filters.iter().filter(is_idle).collect()
}

/// Keeps the peers that any filter lets pass; without a filter, all of them.
pub(crate) fn keep(peers: &mut Vec<PeerStatus>, filters: &[Filter]) {
    if filters.is_empty() {
        return;
    }
    peers.retain(|peer| filters.iter().any(|filter| filter.passes(peer)));
}
