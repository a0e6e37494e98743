//! Network namespaces, held open by a descriptor.

use std::{
    fs::File,
    io,
    process::{Child, Command},
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use mesh_os::link::Links;
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. It goes when the last clone is dropped and nothing runs in it any more.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Makes an empty network namespace with its loopback up.
    ///
    /// # Errors
    ///
    /// What the kernel says; [`crate::sandbox::enter`] makes sure that it may be made.
    pub fn create() -> anyhow::Result<Self> {
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            let file = File::open("/proc/thread-self/ns/net")?;
            let loopback = Links::index_of("lo").context("a namespace without loopback")?;
            Links::open()?.set_up(loopback, true)?;
            Ok(file)
        });
        made.map(|file| Self {
            file: Arc::new(file),
        })
    }

    /// Runs `action` in the namespace, on a thread of its own. Sockets that it returns stay there.
    ///
    /// # Errors
    ///
    /// Those of `action`, and what entering gives.
    pub fn run<T: Send>(
        &self,
        action: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")?;
            action()
        })
    }

    /// Starts `command` in the namespace, and in the process namespace `pids` where one is given.
    ///
    /// # Errors
    ///
    /// What entering and starting give.
    pub(crate) fn spawn(&self, command: &mut Command, pids: Option<&File>) -> io::Result<Child> {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            if let Some(pids) = pids {
                setns(pids, CloneFlags::CLONE_NEWPID)?;
            }
            command.spawn()
        })
    }

    /// The namespace as a descriptor, for moving links into it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Runs `action` on a fresh thread, whose namespaces end with it.
pub(crate) fn on_thread<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(action).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
