//! A log in a file that keeps itself small, for service managers that only redirect.
//!
//! launchd neither rotates what it redirects nor tells a daemon to reopen it, and a daemon that gave up its
//! privileges can rename nothing in `/var/log`. So both files, the log and the one before it (`FILE.1`), are
//! opened while privileges are there, and full means: copy over, then cut to nothing. What appends to the
//! file meanwhile, standard error of this process and its children among it, goes on at the new end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::dup2_stderr;

use crate::file::create_dirs;

/// How long the file may get, in bytes: weeks of an agent's log at its usual level.
pub const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A log file and the one before it, together at most twice the limit and one line.
///
/// Several processes may have the same file open: a lock on it is held while a line is written.
#[derive(Debug)]
pub struct LogFile {
    current: File,
    previous: File,
    bytes_max: u64,
}

/// Why a log file was not opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log `{}`", .path.display())]
pub struct OpenLogError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl LogFile {
    /// Opens `path` to append to it, and `path` with `.1` behind it. The directory is made if there is none;
    /// the files can be read by their owner and group alone. `bytes_max` is the length at which it is full.
    ///
    /// # Errors
    ///
    /// [`OpenLogError`].
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, OpenLogError> {
        let failed = |source| OpenLogError {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent() {
            create_dirs(dir).map_err(failed)?;
        }
        let mut previous = path.as_os_str().to_owned();
        previous.push(".1");
        Ok(Self {
            current: open(path).map_err(failed)?,
            previous: open(Path::new(&previous)).map_err(failed)?,
            bytes_max,
        })
    }

    /// Makes the file this process's standard error, so that what does not go through the log, such as a
    /// panic's words, is in it too.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn take_over_stderr(&self) -> io::Result<()> {
        dup2_stderr(&self.current)?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let held = self.current.metadata()?.len();
        if held > 0 && held.saturating_add(length) > self.bytes_max {
            self.rotate()?;
        }
        (&self.current).write_all(bytes)
    }

    /// Moves what is there over. What cannot be moved, as the disk is full, is lost: a log that stays full would
    /// lose all that comes, and try to move with every line.
    fn rotate(&mut self) -> io::Result<()> {
        let moved = self.move_over();
        self.current.set_len(0)?;
        if let Err(error) = moved {
            (&self.current).write_all(format!("lost the log before: {error}\n").as_bytes())?;
        }
        Ok(())
    }

    fn move_over(&mut self) -> io::Result<()> {
        self.previous.set_len(0)?;
        self.current.seek(SeekFrom::Start(0))?;
        // Not `io::copy`, whose system calls a confined process may not have.
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = self.current.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            self.previous.write_all(&buffer[..length])?;
        }
    }
}

impl Write for LogFile {
    /// Takes all of `bytes`, which are one line of the log.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.current.lock()?;
        let written = self.append(bytes);
        self.current.unlock()?;
        written.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A link would have root append to, or cut, whatever it points at.
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_full_log_moves_over_and_both_stay_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/agent.log");
        let mut log = LogFile::open(&path, 100).unwrap();
        for line in 0..100 {
            log.write_all(format!("line {line:04}\n").as_bytes())
                .unwrap();
            assert!(path.metadata().unwrap().len() <= 100);
            assert!(path.with_extension("log.1").metadata().unwrap().len() <= 100);
        }
        let older = fs::read_to_string(path.with_extension("log.1")).unwrap();
        let newer = fs::read_to_string(&path).unwrap();
        // Ten bytes a line: the last twenty are there, in their order, and no line is torn.
        let expected: String = (80..100).map(|line| format!("line {line:04}\n")).collect();
        assert_eq!(older + &newer, expected);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn two_that_write_the_same_log_lose_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let mut log = LogFile::open(&path, 64 * 1024).unwrap();
                std::thread::spawn(move || {
                    for line in 0..1000 {
                        let line = format!("{thread} {line:05} of a thousand\n");
                        log.write_all(line.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut text = fs::read_to_string(dir.path().join("log.1")).unwrap();
        text.push_str(&fs::read_to_string(&path).unwrap());
        assert_eq!(text.lines().count(), 4000);
        assert!(
            text.lines()
                .all(|line| line.len() == "0 00000 of a thousand".len())
        );
    }

    #[test]
    fn a_line_longer_than_the_limit_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path, 10).unwrap();
        log.write_all(&[b'x'; 50]).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 50);
        log.write_all(b"next\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"next\n");
    }

    #[test]
    fn a_log_that_cannot_be_moved_goes_on_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path, 100).unwrap();
        // As a full disk: nothing can be written there.
        log.previous = File::open("/dev/null").unwrap();
        for line in 0..30 {
            log.write_all(format!("line {line:04}\n").as_bytes())
                .unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 200, "{text}");
        assert!(text.contains("lost the log before"), "{text}");
        assert!(text.ends_with("line 0029\n"), "{text}");
    }

    #[test]
    fn a_link_in_the_place_of_the_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let error = LogFile::open(&path, 10).unwrap_err();
        assert!(error.to_string().contains("cannot open the log"));
    }
}
