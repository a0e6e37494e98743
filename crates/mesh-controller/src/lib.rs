//! The controller: admits machines, distributes rosters, introduces peers.

/// Where the controller's local socket is unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/mesh/controller.sock";
