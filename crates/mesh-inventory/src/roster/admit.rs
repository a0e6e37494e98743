//! Whether a genuine roster may take the place of the one in force.

use mesh_types::{NetworkId, Serial};

use super::{Hash, Roster};

/// The largest step from one serial to the next that is taken without force.
pub const SERIAL_JUMP_MAX: u64 = 1_000_000;

/// Why a genuine roster does not replace the one in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterRefused {
    /// It is of another network.
    #[error("it is for network `{candidate}`, and this is `{current}`")]
    Network {
        /// The network of the roster in force.
        current: NetworkId,
        /// The network of the refused one.
        candidate: NetworkId,
    },
    /// Its serial is below the least one that the configuration takes.
    #[error("its serial {candidate} is below {minimum}, the least that the configuration takes")]
    BelowMinimum {
        /// The least serial.
        minimum: Serial,
        /// The refused roster's.
        candidate: Serial,
    },
    /// Its serial is lower than that in force.
    #[error("its serial {candidate} is lower than {current}, which is in force")]
    Stale {
        /// The serial in force.
        current: Serial,
        /// The refused roster's.
        candidate: Serial,
    },
    /// It is the roster in force: nothing to do.
    #[error("serial {0} is in force already")]
    AlreadyInForce(Serial),
    /// Another head with the serial in force: somebody signed two. To be kept as evidence.
    #[error("it is another roster with serial {serial}, which is in force with head {current}")]
    Conflict {
        /// The serial of both.
        serial: Serial,
        /// Hash of the head in force.
        current: Hash,
        /// Hash of the refused head.
        candidate: Hash,
    },
    /// It names no predecessor, and there is a roster in force.
    #[error(
        "it names no predecessor, and serial {current} is in force; sign with `--previous`, or force it"
    )]
    NoPredecessor {
        /// The serial in force.
        current: Serial,
    },
    /// It names another predecessor than the roster in force.
    #[error(
        "it follows another roster than serial {current}, which is in force; sign it again with that as `--previous`, or force it"
    )]
    UnexpectedPredecessor {
        /// The serial in force.
        current: Serial,
    },
    /// Its serial is over a million higher.
    #[error(
        "its serial {candidate} is over {SERIAL_JUMP_MAX} above {current}, which is in force; force it if that is meant"
    )]
    Jump {
        /// The serial in force.
        current: Serial,
        /// The refused roster's.
        candidate: Serial,
    },
    /// It removes over half of the members.
    #[error("it removes {removed} of {members} members; force it if that is meant")]
    Shrinks {
        /// How many members are gone.
        removed: usize,
        /// How many there are.
        members: usize,
    },
}

impl RosterRefused {
    /// Whether `force` would have let it pass.
    pub const fn is_forceable(&self) -> bool {
        match self {
            Self::NoPredecessor { .. }
            | Self::UnexpectedPredecessor { .. }
            | Self::Jump { .. }
            | Self::Shrinks { .. } => true,
            Self::Network { .. }
            | Self::BelowMinimum { .. }
            | Self::Stale { .. }
            | Self::AlreadyInForce(_)
            | Self::Conflict { .. } => false,
        }
    }
}

/// Decides whether `candidate`, which was verified, replaces `current`.
///
/// `min_serial` is the least serial that the configuration takes. `force` leaves out what guards an
/// admin against mistakes: predecessor, jump, removal of over half the members. A node that fetches
/// rosters passes `true`, because it may have missed any number of them; the signature and the higher
/// serial are what it goes by. A controller passes what the push says.
///
/// # Errors
///
/// [`RosterRefused`] says why not.
pub fn admit(
    current: Option<&Roster>,
    candidate: &Roster,
    min_serial: Option<Serial>,
    force: bool,
) -> Result<(), RosterRefused> {
    let head = candidate.head();
    if let Some(minimum) = min_serial.filter(|minimum| head.serial < *minimum) {
        return Err(RosterRefused::BelowMinimum {
            minimum,
            candidate: head.serial,
        });
    }
    let Some(current) = current else {
        return Ok(());
    };
    in_order(current, candidate)?;
    if force {
        Ok(())
    } else {
        unsurprising(current, candidate)
    }
}

/// What no force overrides.
fn in_order(current: &Roster, candidate: &Roster) -> Result<(), RosterRefused> {
    let (old, new) = (current.head(), candidate.head());
    if old.network != new.network {
        return Err(RosterRefused::Network {
            current: old.network,
            candidate: new.network,
        });
    }
    if new.serial < old.serial {
        return Err(RosterRefused::Stale {
            current: old.serial,
            candidate: new.serial,
        });
    }
    if new.serial > old.serial {
        return Ok(());
    }
    if current.head_hash() == candidate.head_hash() {
        return Err(RosterRefused::AlreadyInForce(old.serial));
    }
    Err(RosterRefused::Conflict {
        serial: old.serial,
        current: current.head_hash(),
        candidate: candidate.head_hash(),
    })
}

/// What an admin may have to confirm.
fn unsurprising(current: &Roster, candidate: &Roster) -> Result<(), RosterRefused> {
    let (old, new) = (current.head(), candidate.head());
    match new.previous {
        Some(previous) if previous == current.head_hash() => {}
        Some(_) => {
            return Err(RosterRefused::UnexpectedPredecessor {
                current: old.serial,
            });
        }
        None => {
            return Err(RosterRefused::NoPredecessor {
                current: old.serial,
            });
        }
    }
    if new.serial.get() - old.serial.get() > SERIAL_JUMP_MAX {
        return Err(RosterRefused::Jump {
            current: old.serial,
            candidate: new.serial,
        });
    }
    let members = current.members().len();
    let removed = current
        .members()
        .keys()
        .filter(|name| !candidate.members().contains_key(*name))
        .count();
    if removed * 2 > members {
        return Err(RosterRefused::Shrinks { removed, members });
    }
    Ok(())
}
