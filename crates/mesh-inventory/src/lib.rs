//! The inventory, its resolution, the signed roster, and the difference of two of them.
//!
//! From file to force: [`inventory::parse`] reads what an admin wrote, [`resolve()`] makes of it the
//! members with their addresses, [`Resolution::unsigned`] puts a head on them, a key signs that, and
//! every node takes it by [`Roster::verify`] and [`admit`]. Everything here is pure: bytes in, values
//! out; no file, clock, socket or entropy.
//!
//! Used by the agent, the controller and the command line.

pub mod allowed;
mod diff;
mod edit;
mod endpoint;
pub mod fuzz;
mod host_key;
pub mod inventory;
mod invitation;
mod labels;
mod report;
mod resolve;
pub mod roster;
pub mod rules;
mod settings;
mod syntax;

pub use self::{
    diff::{Change, Diff, Parts, diff},
    edit::{Edit, EditError, edit},
    host_key::ssh_host_key,
    inventory::Inventory,
    invitation::{Invitation, InvitingController, ParseInvitationError, is_proof},
    report::{Finding, Problem, Report, Severity},
    resolve::{Resolution, resolve},
    roster::{
        Hash, Head, HeadFields, MachineClass, Member, NetworkPart, Role, Roster, RosterError,
        RosterRefused, Signer, Unsigned, admit,
    },
};
