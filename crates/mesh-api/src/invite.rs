//! What is said of invitations.

use mesh_types::{MachineName, PublicIdentity};
use serde::{Deserialize, Serialize};

/// What the controller's socket answers to `POST /v1/invite?name=NAME&key=KEY&expires=SECONDS`: the invitation with that public
/// half counts until then, and this is what its token is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The machine that is invited.
    pub name: MachineName,
    /// The network's id.
    pub network: String,
    /// Who may sign rosters.
    pub signers: Vec<String>,
    /// This controller.
    pub controller: PublicIdentity,
    /// Where its machine's agent can be reached, `host:port`, by the roster.
    pub endpoints: Vec<String>,
}

/// What it answers to `POST /v1/uninvite?name=NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uninvited {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The machine.
    pub name: MachineName,
    /// How many invitations were taken back, those that were used among them.
    pub invitations: u64,
}
