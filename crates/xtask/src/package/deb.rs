//! A package for Debian and its kin, put together with `dpkg-deb`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{Source, output, put, put_program, settle, text_of};
use crate::process::root;

/// What dpkg runs around the installation.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Where the package's documentation is.
const DOC: &str = "usr/share/doc/mesh";

/// Makes `mesh_VERSION_ARCHITECTURE.deb`.
pub(super) fn make(source: &Source) -> anyhow::Result<PathBuf> {
    ensure!(
        source.target.is_elf(),
        "a Debian package needs a program for Linux"
    );
    let work = tempfile::tempdir()?;
    let dir = work.path().join("package");
    put_program(source, &dir.join("usr/bin/mesh"))?;
    put_units(&dir)?;
    // Empty: identity and configuration are the user's.
    fs::create_dir_all(dir.join("etc/mesh"))?;
    put_docs(source, &dir)?;
    put_completions(&dir)?;
    put_man_pages(source, &dir)?;
    for script in SCRIPTS {
        let text = text_of(&format!("packaging/debian/{script}"))?;
        put(&dir.join("DEBIAN").join(script), text.as_bytes(), 0o755)?;
    }
    // Of everything but the control files, relative to the root.
    let sums = output(
        Command::new("sh")
            .args([
                "-c",
                "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum",
            ])
            .current_dir(&dir),
    )?;
    put(&dir.join("DEBIAN/md5sums"), sums.as_bytes(), 0o644)?;
    let control = text_of("packaging/debian/control")?
        .replace("@VERSION@", &source.version)
        .replace("@ARCHITECTURE@", source.target.debian())
        .replace("@SIZE@", &(bytes_below(&dir)? / 1024).to_string())
        .replace("@DEPENDS@", &libraries(&dir, work.path())?);
    put(&dir.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    settle(&dir, source.epoch)?;

    let name = format!("mesh_{}_{}.deb", source.version, source.target.debian());
    let made = source.out_dir.join(name);
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--threads-max=1"])
            .arg(format!("-z{}", source.level))
            .arg("--build")
            .arg(&dir)
            .arg(&made)
            .env("SOURCE_DATE_EPOCH", source.epoch.to_string()),
    )?;
    Ok(made)
}

/// Every file of `systemd/`, where packages have its kind.
fn put_units(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(root().join("systemd"))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().context("a unit's name that is no text")?;
        let place = if let Some(own) = name.strip_suffix(".sysusers.conf") {
            format!("usr/lib/sysusers.d/{own}.conf")
        } else if let Some(own) = name.strip_suffix(".tmpfiles.conf") {
            format!("usr/lib/tmpfiles.d/{own}.conf")
        } else {
            format!("usr/lib/systemd/system/{name}")
        };
        put(&dir.join(place), &fs::read(entry.path())?, 0o644)?;
    }
    Ok(())
}

fn put_docs(source: &Source, dir: &Path) -> anyhow::Result<()> {
    let doc = dir.join(DOC);
    let copyright = text_of("packaging/debian/copyright")?.replace("@MIT@", &indented_license()?);
    put(&doc.join("copyright"), copyright.as_bytes(), 0o644)?;
    let date = output(Command::new("date").args([
        "--utc",
        "--rfc-email",
        &format!("--date=@{}", source.epoch),
    ]))?;
    let changelog = format!(
        "mesh ({}) unstable; urgency=medium\n\n  * The changes of this release are in its CHANGELOG.md.\n\n -- The mesh authors <maintainers@mesh.invalid>  {date}",
        source.version
    );
    let path = doc.join("changelog");
    put(&path, changelog.as_bytes(), 0o644)?;
    output(
        Command::new("gzip")
            .args(["--best", "--no-name"])
            .arg(&path),
    )?;
    Ok(())
}

/// What makes each shell ask the program itself.
fn put_completions(dir: &Path) -> anyhow::Result<()> {
    for (place, text) in [
        (
            "bash-completion/completions/mesh",
            "source <(mesh completions bash)\n",
        ),
        (
            "zsh/vendor-completions/_mesh",
            "#compdef mesh\nsource <(mesh completions zsh)\n",
        ),
        (
            "fish/vendor_completions.d/mesh.fish",
            "mesh completions fish | source\n",
        ),
    ] {
        put(&dir.join("usr/share").join(place), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The program writes them, where it runs on this machine.
fn put_man_pages(source: &Source, dir: &Path) -> anyhow::Result<()> {
    let pages = dir.join("usr/share/man/man1");
    fs::create_dir_all(&pages)?;
    let written = Command::new(&source.program)
        .arg("man")
        .arg("--out")
        .arg(&pages)
        .output();
    if let Err(error) = written {
        println!(
            "no manual pages: `{}` does not run here: {error}",
            source.program.display()
        );
    }
    for page in fs::read_dir(&pages)? {
        let path = page?.path();
        put(&path, &fs::read(&path)?, 0o644)?;
        output(
            Command::new("gzip")
                .args(["--best", "--no-name"])
                .arg(&path),
        )?;
    }
    Ok(())
}

/// The MIT licence as a paragraph of a copyright file: indented by one, empty lines as dots.
fn indented_license() -> anyhow::Result<String> {
    let text = text_of("LICENSE-MIT")?;
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("Permission"))
        .map(|line| match line {
            "" => " .".to_owned(),
            line => format!(" {line}"),
        });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The libraries that the program needs, as `Depends` has them.
fn libraries(dir: &Path, work: &Path) -> anyhow::Result<String> {
    // dpkg-shlibdeps wants to be in a source package.
    put(
        &work.join("debian/control"),
        b"Source: mesh\n\nPackage: mesh\nArchitecture: any\n",
        0o644,
    )?;
    let text = output(
        Command::new("dpkg-shlibdeps")
            .args(["-O", "--ignore-missing-info"])
            .arg(dir.join("usr/bin/mesh"))
            .current_dir(work),
    )?;
    let depends = text.trim().strip_prefix("shlibs:Depends=");
    Ok(depends
        .context("`dpkg-shlibdeps` named no library")?
        .to_owned())
}

fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}
