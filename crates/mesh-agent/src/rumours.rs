//! Acts on what the engine tells: finds endpoints, hears of newer rosters, reserves stamps.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_core::Stamp;
use mesh_os::file::{self, ReadFileError, WriteFileError};
use mesh_types::MachineName;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tracing::warn;

use crate::{agent::Agent, chain, control, gossip::Gossip, overlay::News, remembered::Remembered};

/// The longest stamp file, in bytes: a number of 64 bits and a line feed.
const STAMP_BYTES_MAX: usize = 32;

/// Where peers were reached is stored so long after the first of them: those that come at once are one file.
const STORE_AFTER: Duration = Duration::from_millis(200);

/// Acts on all news, for ever.
pub(crate) async fn act(agent: Arc<Agent>, mut news: mpsc::Receiver<News>) {
    let asked: Arc<Mutex<BTreeSet<MachineName>>> = Arc::default();
    let gossip = Gossip::start(&agent);
    let mut remembered = Remembered::load(&agent.config().state_dir);
    agent.overlay.set_remembered(remembered.endpoints());
    let mut store_at = None;
    loop {
        let news = match store_at {
            Some(at) => time::timeout_at(at, news.recv()).await,
            None => Ok(news.recv().await),
        };
        let Ok(news) = news else {
            store_at = None;
            tokio::task::block_in_place(|| remembered.store());
            continue;
        };
        let Some(news) = news else {
            return;
        };
        match news {
            News::NeedEndpoints(peer) => {
                // First of all: no controller has to be asked for it.
                if let Some(endpoint) = remembered.endpoint(&peer) {
                    agent.overlay.add_candidates(&peer, &[endpoint]);
                }
                // One question a peer at a time; the engine repeats itself.
                if !lock(&asked).insert(peer.clone()) {
                    continue;
                }
                let (agent, asked) = (agent.clone(), asked.clone());
                tokio::spawn(async move {
                    control::find_endpoints(agent, peer.clone()).await;
                    lock(&asked).remove(&peer);
                });
            }
            News::Epoch(peer, serial) => gossip.hear(&agent, peer, serial),
            News::Reached(peer, endpoint) => {
                let roster = agent.roster();
                if remembered.reached(peer, endpoint, roster.as_deref()) {
                    store_at.get_or_insert(Instant::now() + STORE_AFTER);
                }
            }
            News::ReserveStamps(until) => reserve(&agent, until),
        }
    }
}

fn lock(asked: &Mutex<BTreeSet<MachineName>>) -> std::sync::MutexGuard<'_, BTreeSet<MachineName>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk that does not take it stops nothing: peers remember a stamp in memory only, so at worst one
/// of them is deaf to this machine's handshakes until the clock has caught up.
fn reserve(agent: &Agent, until: Stamp) {
    let stored = tokio::task::block_in_place(|| store_stamp(&agent.config().state_dir, until));
    if let Err(error) = stored {
        warn!(error = chain(&error), "could not reserve handshake stamps");
    }
    agent.overlay.stamps_reserved(until);
}

/// Stores that stamps up to `until` may be used.
pub(crate) fn store_stamp(state_dir: &Path, until: Stamp) -> Result<(), WriteFileError> {
    let text = format!("{}\n", until.as_nanos());
    file::write_atomic(&stamp_path(state_dir), text.as_bytes(), 0o600)
}

/// The stamp up to which the last process may have used them. A file that is not there or torn is as good
/// as none: the clock is then all there is to go by.
pub(crate) fn load_stamp(state_dir: &Path) -> Stamp {
    let path = stamp_path(state_dir);
    let bytes = match file::read_bounded(&path, STAMP_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ReadFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Stamp::ZERO;
        }
        Err(error) => {
            warn!(error = chain(&error), "the reserved stamps are passed over");
            return Stamp::ZERO;
        }
    };
    let nanos = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim_end().parse().ok());
    match nanos {
        Some(nanos) => Stamp::from_nanos(nanos),
        None => {
            warn!(path = %path.display(), "the reserved stamps are torn and passed over");
            Stamp::ZERO
        }
    }
}

fn stamp_path(state_dir: &Path) -> PathBuf {
    state_dir.join("stamp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_stamp_comes_back_and_a_torn_one_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_stamp(dir.path()), Stamp::ZERO);
        let until = Stamp::from_nanos(1_795_179_517_000_000_001);
        store_stamp(dir.path(), until).unwrap();
        assert_eq!(load_stamp(dir.path()), until);
        for torn in ["", "17x", "-1", "99999999999999999999999999"] {
            std::fs::write(stamp_path(dir.path()), torn).unwrap();
            assert_eq!(load_stamp(dir.path()), Stamp::ZERO, "{torn}");
        }
    }
}
