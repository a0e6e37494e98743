//! Where the clients of this machine are, if it is a moon, kept over a restart: one that only listens is
//! looked for there, and is reached again before it would have asked by itself.
//!
//! A hint and nothing more: whoever answers there must hold the client's key. What decides whom to look for, and when,
//! is `mesh-core`'s `engine/recall.rs`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_types::MachineName;
use tokio::task::block_in_place;

use crate::{agent::Agent, remembered};

/// Between two looks at what has changed, and with each client so much longer: whatever the clients do, less than 20 KB
/// a second are written.
const EVERY: Duration = Duration::from_secs(5);
const EVERY_CLIENT: Duration = Duration::from_millis(6);

/// The clients as they are stored.
struct Stored {
    path: PathBuf,
    clients: BTreeMap<MachineName, SocketAddr>,
}

impl Stored {
    /// Those in `state_dir`; none if what is there is torn or missing.
    fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("clients.json");
        let clients = remembered::load(&path);
        Self { path, clients }
    }

    /// Stores them, if they are others.
    fn store(&mut self, clients: BTreeMap<MachineName, SocketAddr>) {
        if self.clients != clients {
            remembered::store(&self.path, &clients);
            self.clients = clients;
        }
    }

    /// How long to wait before they are looked at again.
    fn pause(&self) -> Duration {
        let clients = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        EVERY.max(EVERY_CLIENT.saturating_mul(clients))
    }
}

/// Looks for the clients of the process before, then keeps those of this one, for ever. Of a machine that is no
/// moon there are none.
pub(crate) async fn remember(agent: Arc<Agent>) {
    let mut stored = block_in_place(|| Stored::load(&agent.config().state_dir));
    let mut roster = agent.roster.subscribe();
    // Without one nobody is a member, and this machine is no moon. The sender is the agent's own.
    let _ = roster.wait_for(Option::is_some).await;
    agent.overlay.recall_clients(&stored.clients);
    loop {
        tokio::time::sleep(stored.pause()).await;
        let clients = agent.overlay.clients();
        block_in_place(|| stored.store(clients));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::name;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn clients_come_back_after_a_restart_and_those_that_left_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut stored = Stored::load(dir.path());
        assert!(stored.clients.is_empty());
        let two = BTreeMap::from([(name("cinnabar"), at(1)), (name("galena"), at(2))]);
        stored.store(two.clone());
        assert_eq!(Stored::load(dir.path()).clients, two);
        let one = BTreeMap::from([(name("cinnabar"), at(3))]);
        stored.store(one.clone());
        assert_eq!(Stored::load(dir.path()).clients, one);
    }

    #[test]
    fn what_is_stored_already_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut stored = Stored::load(dir.path());
        stored.store(BTreeMap::new());
        assert!(
            !stored.path.exists(),
            "no file of a machine that is no moon"
        );
        let clients = BTreeMap::from([(name("cinnabar"), at(1))]);
        stored.store(clients.clone());
        std::fs::remove_file(&stored.path).unwrap();
        stored.store(clients);
        assert!(!stored.path.exists());
    }

    #[test]
    fn a_file_that_is_damaged_or_too_long_counts_as_none_and_is_replaced() {
        let whole = r#"{"cinnabar":"192.0.2.1:1"}"#;
        let huge = format!(r#"{{"cinnabar":"192.0.2.1:1"{}}}"#, " ".repeat(2 << 20));
        for damaged in ["", "[]", &whole[..whole.len() - 2], "{\"\":\"x\"}", &huge] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("clients.json"), damaged).unwrap();
            let mut stored = Stored::load(dir.path());
            assert!(stored.clients.is_empty());
            let clients = BTreeMap::from([(name("galena"), at(1))]);
            stored.store(clients.clone());
            assert_eq!(Stored::load(dir.path()).clients, clients);
        }
    }

    #[test]
    fn ten_thousand_clients_fit_and_are_written_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let mut stored = Stored::load(dir.path());
        let clients: BTreeMap<_, _> = (0..10_000)
            .map(|number| {
                let longest = format!("{number:05}{}", "x".repeat(58));
                let at = "[2001:db8:1111:2222:3333:4444:5555:6666]:54321".parse();
                (name(&longest), at.unwrap())
            })
            .collect();
        stored.store(clients.clone());
        assert_eq!(Stored::load(dir.path()).clients, clients);
        let bytes = std::fs::metadata(&stored.path).unwrap().len();
        assert!(bytes / stored.pause().as_secs() < 20_000, "{bytes}");
    }
}
