//! Services as people install them, in a booted system that is thrown away afterwards.

#![cfg(target_os = "linux")]
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests and their helpers, which say why one is skipped"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use mesh_lab::program_under_test;
use mesh_tests::page::{blocks, shows};
use tempfile::TempDir;

fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().to_owned()
}

/// The program without what only a debugger reads, as packages have it.
fn stripped(dir: &TempDir) -> PathBuf {
    let program = dir.path().join("mesh");
    let status = Command::new("strip")
        .arg(program_under_test().unwrap())
        .arg("-o")
        .arg(&program)
        .status()
        .unwrap();
    assert!(status.success());
    program
}

/// Boots, puts `files` into `/opt/release`, runs `tests/service/SCRIPT` there, and returns what it prints. `None`:
/// this machine cannot boot a system, which is said.
fn boot(script: &str, files: &[(&Path, &str)]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        println!("skipped: booting a system needs root and /dev/net/tun");
        return None;
    }
    let scripts = workspace().join("tests/service");
    let mut command = Command::new("bash");
    command.arg(workspace().join("tests/setup/boot-units.sh"));
    let common = scripts.join("common.sh");
    for (file, name) in files
        .iter()
        .copied()
        .chain([(common.as_path(), "common.sh")])
    {
        command.arg("-b");
        command.arg(format!("{}=/opt/release/{name}", file.display()));
    }
    let output = command
        .arg("--")
        .arg(scripts.join(script))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_newcomer_installs_both_daemons_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    boot("install.sh", &[(&stripped(&dir), "mesh")]);
}

#[test]
fn the_debian_package_installs_upgrades_and_purges() {
    let dir = tempfile::tempdir().unwrap();
    let first = stripped(&dir);
    // Other bytes, the same behaviour: what a new release is to its predecessor. A section, as the package's
    // program loses what stands behind them.
    let (second, note) = (dir.path().join("next"), dir.path().join("note"));
    fs::write(&note, "another release").unwrap();
    let status = Command::new("objcopy")
        .arg("--add-section")
        .arg(format!(".mesh.note={}", note.display()))
        .args([&first, &second])
        .status()
        .unwrap();
    assert!(status.success());
    let first = package(&first, "1.0.0", dir.path());
    let second = package(&second, "1.0.1", dir.path());
    boot(
        "debian.sh",
        &[(&first, "first.deb"), (&second, "second.deb")],
    );
}

#[test]
fn the_commands_of_the_page_do_what_it_shows() {
    let dir = tempfile::tempdir().unwrap();
    let program = stripped(&dir);
    let release = env!("CARGO_PKG_VERSION");
    let packages = ["deb", "tarball"].map(|kind| package_as(kind, &program, release, dir.path()));
    let page = fs::read_to_string(workspace().join("docs/install.md")).unwrap();
    let machine = std::env::consts::ARCH;
    let page = page.replace("x86_64", machine);
    let page = match machine {
        "aarch64" => page.replace("amd64", "arm64"),
        _ => page,
    };
    let blocks = blocks(&page);
    let mut files: Vec<(PathBuf, String)> = vec![(program, "mesh".to_owned())];
    for package in packages {
        let name = package.file_name().unwrap().to_str().unwrap().to_owned();
        files.push((package, name));
    }
    for (number, block) in blocks.iter().enumerate() {
        if let Some(section) = block.label.strip_prefix("sh ") {
            let name = format!("block-{number:02}-{section}");
            fs::write(dir.path().join(&name), &block.text).unwrap();
            files.push((dir.path().join(&name), name));
        }
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, name)| (path.as_path(), name.as_str()))
        .collect();
    let Some(printed) = boot("page.sh", &files) else {
        return;
    };
    let printed: BTreeMap<&str, &str> = printed
        .split("@@ ")
        .filter_map(|part| part.split_once('\n'))
        .collect();
    let mut output = None;
    for (number, block) in blocks.iter().enumerate() {
        if block.label.starts_with("sh ") {
            output = Some(printed[format!("{number:02}").as_str()]);
        } else if block.label == "text" {
            let output = output.expect("a command above what it prints");
            assert!(
                shows(&block.text, output),
                "docs/install.md shows:\n{}\nprinted:\n{output}",
                block.text
            );
        }
    }
}

fn package(program: &Path, version: &str, out: &Path) -> PathBuf {
    package_as("deb", program, version, out)
}

fn package_as(kind: &str, program: &Path, version: &str, out: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--",
            "package",
            kind,
        ])
        // Compressing well is what takes the time.
        .args(["--version", version, "--level", "0", "--program"])
        .arg(program)
        .arg("--out")
        .arg(out)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}\n{words}");
    let said = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(said.lines().last().unwrap())
}
