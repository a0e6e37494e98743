use std::{os::unix::fs::symlink, thread};

use super::*;

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn a_file_is_replaced_as_a_whole_with_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.json");
    write_atomic(&path, b"old", 0o600).unwrap();
    write_atomic(&path, b"new", 0o644).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(mode_of(&path), 0o644);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_written_once_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity");
    write_once(&path, b"first", 0o600).unwrap();
    let error = write_once(&path, b"second", 0o600).unwrap_err();
    assert!(matches!(error, WriteFileError::Exists(_)), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(mode_of(&path), 0o600);

    let dangling = dir.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    let error = write_once(&dangling, b"third", 0o600).unwrap_err();
    assert!(matches!(error, WriteFileError::Exists(_)), "{error}");
}

#[test]
fn of_many_writers_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity");
    let wins = thread::scope(|scope| {
        let writers: Vec<_> = (0..8u8)
            .map(|i| {
                let path = &path;
                scope.spawn(move || write_once(path, &[i; 100], 0o600).is_ok())
            })
            .collect();
        writers
            .into_iter()
            .filter_map(|w| w.join().unwrap().then_some(()))
            .count()
    });
    assert_eq!(wins, 1);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() == 100 && bytes.iter().all(|b| *b == bytes[0]));
}

#[test]
fn a_directory_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for error in [
        write_once(dir.path(), b"x", 0o600).unwrap_err(),
        write_atomic(dir.path(), b"x", 0o600).unwrap_err(),
    ] {
        assert!(matches!(error, WriteFileError::Directory(_)), "{error}");
    }
    assert!(matches!(
        read_secret(dir.path(), 10),
        Err(ReadFileError::NotAFile(_))
    ));
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity");
    for mode in [0o600, 0o400] {
        write_atomic(&path, b"secret", mode).unwrap();
        assert_eq!(read_secret(&path, 6).unwrap().as_slice(), b"secret");
    }
    for mode in [0o640, 0o604, 0o620, 0o602, 0o660, 0o666, 0o777] {
        write_atomic(&path, b"secret", mode).unwrap();
        let error = read_secret(&path, 6).unwrap_err();
        assert!(
            matches!(error, ReadFileError::LoosePermissions { .. }),
            "{mode:o}: {error}"
        );
    }
}

#[test]
fn a_secret_behind_a_link_is_judged_by_its_own_mode() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("identity"), dir.path().join("link"));
    symlink(&path, &link).unwrap();
    write_once(&path, b"secret", 0o600).unwrap();
    assert!(read_secret(&link, 6).is_ok());
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(read_secret(&link, 6).is_err());
}

#[test]
fn a_file_longer_than_the_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inventory.json");
    write_once(&path, &[b'x'; 11], 0o600).unwrap();
    assert_eq!(read_bounded(&path, 11).unwrap().len(), 11);
    assert!(matches!(
        read_bounded(&path, 10),
        Err(ReadFileError::TooLong { max: 10, .. })
    ));
    assert!(matches!(
        read_secret(&path, 10),
        Err(ReadFileError::TooLong { max: 10, .. })
    ));
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        read_bounded(&path, 10),
        Err(ReadFileError::NotAFile(_))
    ));
}

#[test]
fn a_private_directory_is_closed_and_the_way_to_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("var/lib/mesh/agent");
    make_private_dir(&private).unwrap();
    make_private_dir(&private).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(&private), 0o700);
    let parent = private.parent().unwrap();
    assert_eq!(mode(parent) & 0o100, 0o100);
    // Unless this process's umask says otherwise.
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(umask);
    assert_eq!(mode(parent), 0o777 & !umask.bits());
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(make_private_dir(&dir.path().join("file")).is_err());
}

#[test]
fn a_secret_belongs_to_its_reader_or_root_and_a_credential_to_its_service() {
    for is_credential in [false, true] {
        assert!(may_own(995, 995, is_credential));
        assert!(may_own(0, 995, is_credential));
        assert!(!may_own(1000, 995, is_credential));
    }
    assert!(may_own(995, 0, true));
    assert!(!may_own(995, 0, false));
}

#[test]
fn a_replaced_file_keeps_owner_and_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "old").unwrap();
    let (user, group) = match is_root() {
        true => (12345, 12346),
        false => (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        ),
    };
    std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o751)).unwrap();
    let before = fs::metadata(&path).unwrap();
    assert!(replace(&path, b"new", &before).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    let now = fs::metadata(&path).unwrap();
    assert_eq!((now.uid(), now.gid()), (user, group));
    assert_eq!(now.mode() & 0o7777, 0o751);
}

#[test]
fn what_was_changed_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "old").unwrap();
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    assert!(!replace(&path, b"new", &before).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
