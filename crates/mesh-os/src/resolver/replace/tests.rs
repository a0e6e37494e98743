use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn append(text: &[u8]) -> Vec<u8> {
    [text, b"more\n"].concat()
}

#[test]
fn content_changes_and_mode_owner_and_link_stay() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    let link = dir.path().join("hosts");
    fs::write(&real, "a\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real", &link).unwrap();
    edit(&link, 100, append).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), b"a\nmore\n");
    let metadata = real.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2);
}

#[test]
fn extended_attributes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    fs::write(&path, "a\n").unwrap();
    let name = c"user.mesh-test";
    let file = File::open(&path).unwrap();
    use std::os::fd::AsRawFd as _;
    // SAFETY: the strings end with zero bytes and live through the call.
    let set =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), c"x".as_ptr().cast(), 1, 0) };
    if set != 0 {
        println!("skipped: this file system has no extended attributes");
        return;
    }
    edit(&path, 100, append).unwrap();
    let file = File::open(&path).unwrap();
    let mut value = [0u8; 8];
    // SAFETY: `value` is writable for the length that is passed.
    let got = unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    assert_eq!((got, value[0]), (1, b'x'));
}

#[test]
fn what_is_right_already_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    fs::write(&path, "a\n").unwrap();
    let inode = path.metadata().unwrap().ino();
    edit(&path, 100, <[u8]>::to_vec).unwrap();
    assert_eq!(path.metadata().unwrap().ino(), inode);
}

#[test]
fn a_link_that_others_can_turn_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::write(open.join("real"), "a\n").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let link = dir.path().join("hosts");
    symlink(open.join("real"), &link).unwrap();
    let error = edit(&link, 100, append).unwrap_err();
    assert!(matches!(error, ReplaceError::Link { .. }), "{error}");
    assert_eq!(fs::read(open.join("real")).unwrap(), b"a\n");
}

#[test]
fn a_link_in_the_middle_that_others_can_turn_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let real = dir.path().join("real");
    fs::write(&real, "a\n").unwrap();
    symlink(&real, open.join("turned")).unwrap();
    let link = dir.path().join("hosts");
    symlink("open/../open/turned", &link).unwrap();
    let error = edit(&link, 100, append).unwrap_err();
    assert!(
        matches!(&error, ReplaceError::Link { loose, .. } if loose.ends_with("open")),
        "{error}"
    );
    assert_eq!(fs::read(&real).unwrap(), b"a\n");
    symlink("loop", dir.path().join("loop")).unwrap();
    let error = edit(&dir.path().join("loop"), 100, append).unwrap_err();
    assert!(matches!(error, ReplaceError::Io { .. }), "{error}");
}

#[test]
fn a_file_that_changes_all_the_time_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    fs::write(&path, "a\n").unwrap();
    let error = edit(&path, 1000, |text| {
        // Somebody else, each time just before us.
        fs::write(&path, append(text)).unwrap();
        Vec::new()
    })
    .unwrap_err();
    assert!(matches!(error, ReplaceError::Busy(_)), "{error}");
    assert!(fs::read(&path).unwrap().starts_with(b"a\nmore\n"));
}

#[test]
fn what_a_crash_left_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    fs::write(&path, "a\n").unwrap();
    fs::write(dir.path().join(".hosts.mesh-new"), "half").unwrap();
    edit(&path, 100, append).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn overwriting_leaves_the_same_bytes_as_replacing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    for (old, new) in [
        ("a\n", "a\nb\n"),
        ("a\nb\n", "a\n"),
        ("abc", "xyz12"),
        ("abc", ""),
    ] {
        fs::write(&path, old).unwrap();
        overwrite(&path, old.as_bytes(), new.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), new);
    }
}

#[test]
fn what_is_absent_or_too_long_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    assert!(matches!(
        edit(&path, 9, append),
        Err(ReplaceError::Io { .. })
    ));
    fs::write(&path, "0123456789").unwrap();
    assert!(matches!(edit(&path, 9, append), Err(ReplaceError::Read(_))));
}
