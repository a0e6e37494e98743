//! Pages that are written by what measures, with pictures in a folder of the same name.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Context as _;

/// A page, and the folder of its pictures.
pub(crate) struct Page<'a> {
    path: &'a Path,
    dir: PathBuf,
}

impl<'a> Page<'a> {
    pub(crate) fn new(path: &'a Path) -> anyhow::Result<Self> {
        let dir = path.with_extension("");
        fs::create_dir_all(&dir)?;
        Ok(Self { path, dir })
    }

    /// Writes an SVG, and returns the line that shows it on the page.
    pub(crate) fn picture(&self, name: &str, title: &str, svg: &str) -> anyhow::Result<String> {
        let folder = self.dir.file_name().context("a page without a name")?;
        let folder = folder.display();
        fs::write(self.dir.join(name).with_extension("svg"), svg)?;
        Ok(format!("![{title}]({folder}/{name}.svg)\n\n"))
    }

    /// Writes the page itself.
    pub(crate) fn write(&self, text: &str) -> anyhow::Result<()> {
        fs::write(self.path, text.trim_end().to_owned() + "\n")
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

/// Words that are no markup.
pub(crate) fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

/// What all this ran on.
pub(crate) fn machine() -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(": "))
        .map_or("a processor without a name", |(_, model)| model);
    let has = |flag: &&str| cpus.split_whitespace().any(|word| word == *flag);
    let instructions = ["avx2", "avx512f", "vaes"]
        .into_iter()
        .filter(|flag| has(flag));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "On {} cores of {model} ({}), Linux {}.\n",
        thread::available_parallelism()?,
        instructions.collect::<Vec<_>>().join(", "),
        kernel.trim(),
    ))
}
