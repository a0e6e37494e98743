//! The store on a thread of its own, so that nobody else waits for the disk.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context as _, anyhow};
use mesh_store::{AuditEntry, Snapshot, Store, Write};
use mesh_types::chain;
use tokio::sync::oneshot;
use tracing::error;

/// Orders that wait for the disk; when full, senders wait.
const ORDERS_MAX: usize = 1024;

enum Order {
    Commit(Vec<Write>, oneshot::Sender<Result<(), String>>),
    /// What nobody waits for.
    Note(Vec<Write>),
    Audit(usize, oneshot::Sender<Result<Vec<AuditEntry>, String>>),
}

/// Hands work to the store's thread, which ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Keeper {
    orders: mpsc::SyncSender<Order>,
    failure: Failure,
}

/// Why the last writes are not on the disk; `None`: they are.
type Failure = Arc<Mutex<Option<String>>>;

/// What was found at the start.
pub(crate) struct Opened {
    pub(crate) keeper: Keeper,
    pub(crate) snapshot: Snapshot,
    /// Why the store cannot be used; `None`: it can.
    pub(crate) problem: Option<String>,
    /// What happened to the store that this one replaces; `None`: it replaces none.
    pub(crate) damage: Option<String>,
    pub(crate) thread: thread::JoinHandle<()>,
}

impl Keeper {
    /// Opens the store in `dir`; if that fails, begins without and tries again with each commit.
    pub(crate) fn open(dir: PathBuf) -> anyhow::Result<Opened> {
        let (store, problem) = match Store::open(&dir) {
            Ok(store) => (Some(store), None),
            Err(error) => (None, Some(chain(&error))),
        };
        let damage = store.as_ref().and_then(Store::damage).map(|damage| {
            format!("the store was damaged, and an empty one took its place: {damage}")
        });
        let loaded = store.as_ref().map(Store::load).transpose();
        let (snapshot, problem) = match loaded {
            Ok(snapshot) => (snapshot.unwrap_or_default(), problem),
            Err(error) => (Snapshot::default(), Some(chain(&error))),
        };
        let (orders, inbox) = mpsc::sync_channel(ORDERS_MAX);
        let failure = Failure::default();
        let told = Arc::clone(&failure);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || work(&dir, store, &inbox, &told))
            .context("cannot start the store's thread")?;
        Ok(Opened {
            keeper: Self { orders, failure },
            snapshot,
            problem,
            damage,
            thread,
        })
    }

    /// Writes, and returns when it is on the disk.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> anyhow::Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(Order::Commit(writes, done)).await?;
        wait.await?.map_err(|error| anyhow!(error))
    }

    /// Writes some time soon. While the disk is that far behind, notes are dropped.
    pub(crate) fn note(&self, writes: Vec<Write>) {
        if !writes.is_empty() && self.orders.try_send(Order::Note(writes)).is_err() {
            error!("the store is too slow, an audit entry was dropped");
        }
    }

    /// Why the last writes are not on the disk; `None`: they are.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The last entries of the audit log, latest first.
    pub(crate) async fn audit(&self, limit: usize) -> anyhow::Result<Vec<AuditEntry>> {
        let (done, wait) = oneshot::channel();
        self.send(Order::Audit(limit, done)).await?;
        wait.await?.map_err(|error| anyhow!(error))
    }

    async fn send(&self, order: Order) -> anyhow::Result<()> {
        let orders = self.orders.clone();
        tokio::task::spawn_blocking(move || orders.send(order).is_ok())
            .await?
            .then_some(())
            .context("the store's thread is gone")
    }
}

fn work(
    dir: &std::path::Path,
    mut store: Option<Store>,
    inbox: &mpsc::Receiver<Order>,
    failure: &Failure,
) {
    while let Ok(first) = inbox.recv() {
        // Whatever waits goes to the disk with one flush.
        let mut writes = Vec::new();
        let mut waiting = Vec::new();
        let mut questions = Vec::new();
        for order in std::iter::once(first).chain(inbox.try_iter().take(ORDERS_MAX)) {
            match order {
                Order::Commit(more, done) => {
                    writes.extend(more);
                    waiting.push(done);
                }
                Order::Note(more) => writes.extend(more),
                Order::Audit(limit, done) => questions.push((limit, done)),
            }
        }
        let has_writes = !writes.is_empty();
        let result = commit(dir, &mut store, writes);
        if has_writes {
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *failure, result.clone().err());
            if let Err(error) = &result
                && before.as_ref() != Some(error)
            {
                error!(%error, "nothing was stored");
            }
        }
        // Whoever asked may have given up waiting.
        for done in waiting {
            let _ = done.send(result.clone());
        }
        for (limit, done) in questions {
            let answer = match &store {
                Some(store) => store.audit(limit).map_err(|error| chain(&error)),
                None => Err("the store cannot be used".to_owned()),
            };
            let _ = done.send(answer);
        }
    }
}

fn commit(
    dir: &std::path::Path,
    store: &mut Option<Store>,
    writes: Vec<Write>,
) -> Result<(), String> {
    if writes.is_empty() {
        return Ok(());
    }
    let mut opened = match store.take() {
        Some(store) => store,
        None => Store::open(dir).map_err(|error| chain(&error))?,
    };
    // After a failure the store is closed, and opened again by the next commit.
    opened.commit(writes).map_err(|error| chain(&error))?;
    *store = Some(opened);
    Ok(())
}
