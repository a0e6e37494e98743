//! Embeds the files of `systemd/`, so that `mesh service` installs whatever units there are.

use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../systemd");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files = fs::read_dir(&dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    let entries: String = files
        .iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?, path)))
        .map(|(name, path)| format!("    ({name:?}, include_str!({path:?})),\n"))
        .collect();
    let out = Path::new(&env::var("OUT_DIR")?).join("systemd.rs");
    fs::write(out, format!("&[\n{entries}]\n"))?;
    Ok(())
}
