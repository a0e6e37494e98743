//! Whom a rule speaks of.

use std::{fmt, str::FromStr};

use mesh_types::{MachineName, MemberKey};
use serde::{Deserialize, Serialize};

use crate::roster::{Member, Role};

/// Whom a rule speaks of: `*`, `guests`, a machine's name, `machine:NAME`, `tag:TAG` or `role:ROLE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// Everyone, guests too.
    Everyone,
    /// Everyone with plain WireGuard.
    Guests,
    /// One machine or guest.
    Machine(MachineName),
    /// Everyone with a tag.
    Tag(String),
    /// Everyone with a role in the mesh.
    Role(Role),
}

/// Why a text says nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectorError {
    /// It has no form that is known.
    #[error("not `*`, `guests`, a machine's name, `tag:TAG` or `role:ROLE`")]
    Form,
    /// The mesh has no such role.
    #[error("the mesh has the roles `controller`, `moon` and `peer`")]
    Role,
}

const EVERYONE: &str = "*";
const GUESTS: &str = "guests";
const MACHINE: &str = "machine:";
const TAG: &str = "tag:";
const ROLE: &str = "role:";

impl Selector {
    /// Whether it speaks of `member`.
    pub fn matches(&self, member: &Member) -> bool {
        match self {
            Self::Everyone => true,
            Self::Guests => matches!(member.public_key, Some(MemberKey::Wireguard(_))),
            Self::Machine(name) => member.name == *name,
            Self::Tag(tag) => member.tags.contains(tag),
            Self::Role(role) => member.roles.contains(role),
        }
    }
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            EVERYONE => return Ok(Self::Everyone),
            GUESTS => return Ok(Self::Guests),
            _ => {}
        }
        if let Some(tag) = text.strip_prefix(TAG) {
            return match tag.is_empty() {
                true => Err(ParseSelectorError::Form),
                false => Ok(Self::Tag(tag.to_owned())),
            };
        }
        if let Some(role) = text.strip_prefix(ROLE) {
            return Role::named(role)
                .map(Self::Role)
                .ok_or(ParseSelectorError::Role);
        }
        let name = text.strip_prefix(MACHINE).unwrap_or(text);
        let name = name.parse().map_err(|_| ParseSelectorError::Form)?;
        Ok(Self::Machine(name))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str(EVERYONE),
            Self::Guests => f.write_str(GUESTS),
            // The one machine whose name says something else.
            Self::Machine(name) if name.as_str() == GUESTS => write!(f, "{MACHINE}{name}"),
            Self::Machine(name) => write!(f, "{name}"),
            Self::Tag(tag) => write!(f, "{TAG}{tag}"),
            Self::Role(role) => write!(f, "{ROLE}{}", role.name()),
        }
    }
}

impl TryFrom<String> for Selector {
    type Error = ParseSelectorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}
