//! Where things are on this system, unless configured otherwise.

/// Whether this is macOS: for the few places that decide by it, so that no other crate asks the compiler.
pub const IS_MACOS: bool = cfg!(target_os = "macos");

/// The agent's configuration.
pub const AGENT_CONFIG: &str = "/etc/mesh/agent.toml";

/// The controller's configuration.
pub const CONTROLLER_CONFIG: &str = "/etc/mesh/controller.toml";

/// The roster in force, and the other state of the agent.
pub const AGENT_STATE: &str = system::AGENT_STATE;

/// The controller's store.
pub const CONTROLLER_STATE: &str = system::CONTROLLER_STATE;

/// The agent's local socket.
pub const AGENT_SOCKET: &str = system::AGENT_SOCKET;

/// The controller's local socket.
pub const CONTROLLER_SOCKET: &str = system::CONTROLLER_SOCKET;

/// Where the supervisor and upgrades keep a program to go back to: root's alone, beside the state.
pub const SUPERVISE: &str = system::SUPERVISE;

/// The folder of all state on Linux, whatever system this is.
pub const LINUX_STATE: &str = "/var/lib/mesh";

/// The folder of the local sockets on Linux, whatever system this is.
pub const LINUX_RUN: &str = "/run/mesh";

/// The folder of all state on macOS, whatever system this is.
pub const MACOS_STATE: &str = "/var/db/mesh";

/// The folder of the local sockets on macOS, whatever system this is.
pub const MACOS_RUN: &str = "/var/run/mesh";

/// The mesh's interface: `mesh0`, or on macOS the first free `utun`.
pub const INTERFACE: &str = system::INTERFACE;

#[cfg(target_os = "linux")]
mod system {
    pub(super) const AGENT_STATE: &str = "/var/lib/mesh/agent";
    pub(super) const CONTROLLER_STATE: &str = "/var/lib/mesh/controller";
    pub(super) const AGENT_SOCKET: &str = "/run/mesh/agent.sock";
    pub(super) const CONTROLLER_SOCKET: &str = "/run/mesh/controller.sock";
    pub(super) const SUPERVISE: &str = "/var/lib/mesh/supervise";
    pub(super) const INTERFACE: &str = "mesh0";
}

#[cfg(target_os = "macos")]
mod system {
    pub(super) const AGENT_STATE: &str = "/var/db/mesh/agent";
    pub(super) const CONTROLLER_STATE: &str = "/var/db/mesh/controller";
    pub(super) const AGENT_SOCKET: &str = "/var/run/mesh/agent.sock";
    pub(super) const CONTROLLER_SOCKET: &str = "/var/run/mesh/controller.sock";
    pub(super) const SUPERVISE: &str = "/var/db/mesh/supervise";
    pub(super) const INTERFACE: &str = "utun";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_the_folders_of_this_system() {
        let (state, run) = match IS_MACOS {
            true => (MACOS_STATE, MACOS_RUN),
            false => (LINUX_STATE, LINUX_RUN),
        };
        for path in [AGENT_STATE, CONTROLLER_STATE, SUPERVISE] {
            assert!(path.starts_with(state), "{path}");
        }
        for path in [AGENT_SOCKET, CONTROLLER_SOCKET] {
            assert!(path.starts_with(run), "{path}");
        }
    }
}
