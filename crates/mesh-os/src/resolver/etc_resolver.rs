//! macOS' `/etc/resolver`: a file a domain, which names the server for it (resolver(5)).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mesh_types::NetworkId;

use super::{Split, facts};
use crate::file;

/// How our files begin; the network's id follows.
const MARK: &str = "# mesh ";

/// Writes a file for the domain and each reverse zone, and removes ours for others.
///
/// # Errors
///
/// Says which file cannot be written, or belongs to somebody else.
pub(super) fn set(root: &Path, split: &Split) -> Result<(), String> {
    let dir = dir(root);
    file::create_dirs(&dir).map_err(|error| format!("cannot make `{}`: {error}", dir.display()))?;
    let zones: Vec<_> = std::iter::once(&split.domain)
        .chain(&split.reverse)
        .collect();
    for zone in &zones {
        let path = dir.join(zone);
        if path.exists() && !is_ours(&path, Some(&split.network)) {
            return Err(format!(
                "`{}` is not mesh's; remove it, or give the mesh another domain",
                path.display()
            ));
        }
    }
    for zone in &zones {
        let path = dir.join(zone);
        let text = text(split);
        if facts::read(&path) != text {
            file::write_atomic(&path, text.as_bytes(), 0o644)
                .map_err(|error| mesh_types::chain(&error))?;
        }
    }
    for path in ours(root, Some(&split.network)) {
        let is_wanted = zones.iter().any(|zone| path == dir.join(zone));
        if !is_wanted {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes the files of `network`, or of all networks, and the directory if nothing else is in it.
///
/// # Errors
///
/// Says which file is still there.
pub(super) fn remove(root: &Path, network: Option<&NetworkId>) -> Result<(), String> {
    let found = ours(root, network);
    if found.is_empty() {
        return Ok(());
    }
    for path in found {
        remove_file(&path)?;
    }
    // It stays if there is anything else in it.
    let _ = fs::remove_dir(dir(root));
    Ok(())
}

/// Whether there are files of `network`, or of any network.
pub(super) fn is_marked(root: &Path, network: Option<&NetworkId>) -> bool {
    !ours(root, network).is_empty()
}

/// A file's text: the same for each zone.
fn text(split: &Split) -> String {
    format!("{MARK}{}\nnameserver {}\n", split.network, split.server)
}

fn ours(root: &Path, network: Option<&NetworkId>) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir(root)) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| is_ours(path, network)).collect()
}

fn is_ours(path: &Path, network: Option<&NetworkId>) -> bool {
    let text = facts::read(path);
    let id = text.lines().next().and_then(|line| line.strip_prefix(MARK));
    let id: Option<NetworkId> = id.and_then(|id| id.trim_end().parse().ok());
    id.is_some_and(|id| network.is_none_or(|network| id == *network))
}

fn remove_file(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove `{}`: {error}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn dir(root: &Path) -> PathBuf {
    root.join("etc/resolver")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::split;

    #[test]
    fn there_is_a_file_for_the_domain_and_each_reverse_zone() {
        let root = tempfile::tempdir().unwrap();
        let split = split();
        set(root.path(), &split).unwrap();
        let expected = "# mesh 000102030405060708090a0b0c0d0e0f\nnameserver fdc3:582e:db61:0:f785:d658:d2e9:df7d\n";
        for zone in ["mesh", "1.6.b.d.e.2.8.5.3.c.d.f.ip6.arpa"] {
            let path = root.path().join("etc/resolver").join(zone);
            assert_eq!(fs::read_to_string(path).unwrap(), expected);
        }
        set(root.path(), &split).unwrap();
        assert!(is_marked(root.path(), Some(&split.network)));
        remove(root.path(), Some(&split.network)).unwrap();
        assert!(!root.path().join("etc/resolver").exists());
    }

    #[test]
    fn a_changed_domain_leaves_no_file_of_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let mut split = split();
        set(root.path(), &split).unwrap();
        split.domain = "zt".to_owned();
        set(root.path(), &split).unwrap();
        assert!(!root.path().join("etc/resolver/mesh").exists());
        assert!(root.path().join("etc/resolver/zt").exists());
    }

    #[test]
    fn files_of_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/resolver");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("corp"), "nameserver 10.0.0.1\n").unwrap();
        fs::write(dir.join("mesh"), "nameserver 10.0.0.1\n").unwrap();
        let split = split();
        let reason = set(root.path(), &split).unwrap_err();
        assert!(reason.contains("not mesh's"), "{reason}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_file(dir.join("mesh")).unwrap();
        set(root.path(), &split).unwrap();
        remove(root.path(), None).unwrap();
        assert_eq!(
            fs::read_to_string(dir.join("corp")).unwrap(),
            "nameserver 10.0.0.1\n"
        );
    }
}
