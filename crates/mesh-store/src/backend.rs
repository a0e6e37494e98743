//! The key-value database below: ordered keys, and batches that are on the disk whole or not at all.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase as _, TableDefinition};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("mesh-store-v1");

/// The database's file in the store's directory.
const FILE: &str = "store.redb";

/// Where a damaged database is put aside; an older one there is replaced.
const DAMAGED: &str = "store.redb.damaged";

/// Is there while the database is being opened.
const OPENING: &str = "opening";

/// Locked while a process has the store.
const LOCK: &str = "lock";

/// What the database keeps in memory of its file, in bytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the store `{}`", .path.display())]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: Box<redb::Error>,
}

/// What changes, made together: a value, or `None` to remove the key.
pub(crate) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

pub(crate) struct Backend {
    database: Database,
    path: PathBuf,
    /// Held while the database is open, so that one process at a time judges the mark.
    _lock: File,
}

impl Backend {
    /// Opens the database. One that is damaged is put aside and replaced by an empty one; the second
    /// value then says so.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Option<String>), StoreError> {
        let path = dir.join(FILE);
        let failed = |source| StoreError {
            action: "open",
            path: path.clone(),
            source: Box::new(source),
        };
        let lock = lock(dir).map_err(redb::Error::Io).map_err(failed)?;
        // redb reports nearly all damage and panics at some. The mark outlives a panic: it says at the
        // next start that the file cannot even be opened.
        let mark = dir.join(OPENING);
        let opened = if mark.exists() {
            Err(redb::Error::Corrupted(
                "opening it ended in a crash".to_owned(),
            ))
        } else {
            File::create(&mark)
                .map_err(redb::Error::Io)
                .map_err(failed)?;
            open(&path)
        };
        let (opened, damage) = match opened {
            Err(error) if is_damage(&error) => {
                let aside = dir.join(DAMAGED);
                let moved = fs::rename(&path, &aside).map_err(redb::Error::Io);
                let opened = moved.and_then(|()| open(&path));
                let damage = format!("{error}; it is kept as `{}`", aside.display());
                (opened, Some(damage))
            }
            opened => (opened, None),
        };
        // Left behind, it would only make the next start put a good file aside.
        let unmarked = fs::remove_file(&mark).map_err(redb::Error::Io);
        let database = opened
            .and_then(|database| unmarked.map(|()| database))
            .map_err(failed)?;
        let backend = Self {
            database,
            path,
            _lock: lock,
        };
        Ok((backend, damage))
    }

    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let table = self.database.begin_read()?.open_table(TABLE)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        read().map_err(|source| self.error("read", source))
    }

    /// Keys and values whose keys begin with `prefix`, in the order of the keys.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        let scan = || {
            let table = self.database.begin_read()?.open_table(TABLE)?;
            let mut found = Vec::new();
            for entry in table.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        };
        scan().map_err(|source| self.error("read", source))
    }

    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let commit = || {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(TABLE)?;
                for (key, value) in &batch {
                    match value {
                        Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                        None => table.remove(key.as_slice())?,
                    };
                }
            }
            write.commit()?;
            Ok(())
        };
        commit().map_err(|source| self.error("write to", source))
    }

    fn error(&self, action: &'static str, source: redb::Error) -> StoreError {
        StoreError {
            action,
            path: self.path.clone(),
            source: Box::new(source),
        }
    }
}

/// Opens and verifies the database: every page's checksum, so that damage is found here and not later.
fn open(path: &Path) -> Result<Database, redb::Error> {
    let mut database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)?;
    database.check_integrity()?;
    let write = database.begin_write()?;
    write.open_table(TABLE)?;
    write.commit()?;
    Ok(database)
}

fn lock(dir: &Path) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let lock = File::create(dir.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another process has it",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the file is no database, or one with holes; anything else may be better at the next try.
fn is_damage(error: &redb::Error) -> bool {
    if let redb::Error::Io(error) = error {
        return matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        );
    }
    matches!(error, redb::Error::Corrupted(_))
}
