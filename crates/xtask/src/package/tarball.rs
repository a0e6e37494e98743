//! The program and its licences in an archive, for machines that no package is for.

use std::{path::PathBuf, process::Command};

use super::{Source, output, put, put_program, settle, text_of};

/// Makes `mesh-VERSION-OS-MACHINE.tar.gz`.
pub(super) fn make(source: &Source) -> anyhow::Result<PathBuf> {
    let Source {
        target,
        version,
        epoch,
        ..
    } = source;
    let name = format!("mesh-{version}-{}-{}", target.os(), target.machine());
    let work = tempfile::tempdir()?;
    let dir = work.path().join(&name);
    put_program(source, &dir.join("mesh"))?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        put(&dir.join(license), text_of(license)?.as_bytes(), 0o644)?;
    }
    let readme = text_of("packaging/README.tarball")?
        .replace("@VERSION@", version)
        .replace("@OS@", target.os())
        .replace("@ARCHITECTURE@", target.machine());
    put(&dir.join("README"), readme.as_bytes(), 0o644)?;
    settle(&dir, *epoch)?;

    let archive = work.path().join("archive.tar");
    output(
        Command::new("tar")
            .args(["--create", "--sort=name", "--format=ustar"])
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(work.path())
            .arg(&name),
    )?;
    // Without name and time in its header.
    output(
        Command::new("gzip")
            // gzip has no level without compression.
            .args([format!("-{}", source.level.max(1)), "--no-name".to_owned()])
            .arg(&archive),
    )?;
    let made = source.out_dir.join(format!("{name}.tar.gz"));
    std::fs::copy(archive.with_extension("tar.gz"), &made)?;
    Ok(made)
}
