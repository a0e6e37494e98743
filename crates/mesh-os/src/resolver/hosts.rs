//! The hosts file: one marked block of lines, and everything else byte for byte as it was.

mod block;

use std::path::{Path, PathBuf};

use mesh_types::NetworkId;

use super::{
    Split,
    replace::{self, ReplaceError},
};

/// The most that is read of a hosts file. Lists of hosts to block have a few mebibytes.
const BYTES_MAX: usize = 64 << 20;

/// Whether the hosts file below `root` can be replaced.
///
/// # Errors
///
/// [`ReplaceError`] is why not.
pub(super) fn check(root: &Path) -> Result<(), ReplaceError> {
    replace::check(&path(root))
}

/// Writes the block of `split`, in place of one that is there.
///
/// # Errors
///
/// [`ReplaceError`]; the file is then as it was.
pub(super) fn set(root: &Path, split: &Split) -> Result<(), ReplaceError> {
    let lines = block::lines(split);
    replace::edit(&path(root), BYTES_MAX, |text| {
        block::with(text, &split.network, &lines)
    })
}

/// Takes out the blocks of `network`, or of all networks.
///
/// # Errors
///
/// [`ReplaceError`]; the file is then as it was.
pub(super) fn remove(root: &Path, network: Option<&NetworkId>) -> Result<(), ReplaceError> {
    if !is_marked(root, network) {
        return Ok(());
    }
    replace::edit(&path(root), BYTES_MAX, |text| block::without(text, network))
}

/// Whether there is a block of `network`, or of any network, or a part of one.
pub(super) fn is_marked(root: &Path, network: Option<&NetworkId>) -> bool {
    crate::file::read_bounded(&path(root), BYTES_MAX)
        .is_ok_and(|text| block::without(&text, network) != text)
}

fn path(root: &Path) -> PathBuf {
    root.join("etc/hosts")
}
