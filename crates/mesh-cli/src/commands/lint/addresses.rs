//! `mesh lint addresses`.

mod advice;
mod literals;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, Metadata},
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use ignore::WalkBuilder;
use ipnet::IpNet;
use mesh_os::file;
use mesh_types::MachineName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::{
    advice::Advice,
    literals::{Literal, literals},
};
use super::super::inventory::load;
use crate::{
    failure::{Exit, Failure},
    output,
};

/// The largest file that is looked at, in bytes: what is larger was not written by a hand.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What generates a clan's variables is not written by a hand either.
const GENERATED: &str = "zerotier/zerotier-ip/value";

/// Find addresses of the mesh that were typed into a repository
///
/// Addresses follow from the network's id and the machine's name, so a typed one is a copy that can go
/// stale. Each is shown with its machine and what to write instead; `--fix` writes that where a name does
/// the same without doubt, such as in a URL. Files that git ignores are passed over.
///
/// Ends with 1 if addresses remain.
///
/// Example: `mesh lint addresses . --inventory inventory.json --map zerotier.json --fix`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Files or folders
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// The inventory, or a roster
    #[arg(long, value_name = "FILE", default_value = "inventory.json")]
    inventory: PathBuf,
    /// Old addresses and their machines, as `mesh import zerotier --map FILE` wrote them
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Another prefix whose addresses are to be found, such as that of the old network
    #[arg(long = "prefix", value_name = "CIDR")]
    prefixes: Vec<IpNet>,
    /// Write the plain replacements into the files
    #[arg(long)]
    fix: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// What is looked for.
struct Wanted {
    domain: String,
    machines: BTreeMap<IpAddr, MachineName>,
    prefixes: Vec<IpNet>,
}

/// The form of `--map`.
#[derive(Deserialize)]
struct Map {
    addresses: BTreeMap<IpAddr, MachineName>,
}

/// An address in a file.
#[derive(Debug, Serialize)]
struct Finding {
    file: PathBuf,
    line: usize,
    column: usize,
    address: String,
    machine: Option<MachineName>,
    replacement: Option<String>,
    /// Whether `--fix` writes the replacement.
    plain: bool,
    fixed: bool,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let wanted = wanted(&args)?;
    let own = [Some(&args.inventory), args.map.as_ref()];
    let own: Vec<_> = own
        .into_iter()
        .flatten()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let mut findings = Vec::new();
    let mut files = 0_usize;
    for path in &args.paths {
        // Hidden files hold settings too; git's own folder does not.
        let walk = WalkBuilder::new(path)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        for entry in walk {
            let entry = entry.map_err(|error| Failure::new(Exit::Usage, error))?;
            let is_own = entry
                .path()
                .canonicalize()
                .is_ok_and(|path| own.contains(&path));
            let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
            if is_file && !is_own && !entry.path().ends_with(GENERATED) {
                let passed_over = lint_file(entry.path(), &wanted, args.fix, &mut findings)?;
                files += usize::from(passed_over.is_none());
                if let Some(why) = passed_over {
                    output::error(&format!("note: not looked at: {why}\n"));
                }
            }
        }
    }
    let remain = findings.iter().filter(|finding| !finding.fixed).count();
    let text = match args.json {
        true => format!(
            "{}\n",
            json!({ "version": 1, "files": files, "findings": findings })
        ),
        false => render(&findings, files, args.fix),
    };
    output::answer(&text)?;
    Ok(if remain == 0 {
        Exit::Done
    } else {
        Exit::Refused
    })
}

fn wanted(args: &Args) -> Result<Wanted, Failure> {
    let described =
        load::either(&args.inventory, None).map_err(|failure| match args.inventory.exists() {
            true => failure,
            false => failure.hint(
                "`--inventory FILE` names the inventory, or a roster: `inventory.json` by default",
            ),
        })?;
    let parts = described.parts();
    let mut machines: BTreeMap<IpAddr, MachineName> = BTreeMap::new();
    for member in parts.members.values() {
        let own = [
            Some(IpAddr::from(member.address)),
            member.ipv4.map(IpAddr::from),
        ];
        let hosts = member
            .routes
            .iter()
            .filter(|route| route.prefix_len() == route.max_prefix_len());
        for address in own.into_iter().flatten().chain(hosts.map(IpNet::addr)) {
            machines.insert(address, member.name.clone());
        }
    }
    let mut prefixes = args.prefixes.clone();
    prefixes.push(parts.network.prefix.into());
    prefixes.extend(parts.network.ipv4.map(IpNet::from));
    if let Some(path) = &args.map {
        let map: Map = serde_json::from_slice(&load::bytes(path)?)
            .with_context(|| format!("`{}` is no map of addresses", path.display()))
            .map_err(|error| {
                Failure::new(Exit::Usage, error)
                    .hint("`mesh import zerotier --map FILE` writes one")
            })?;
        machines.extend(map.addresses);
    }
    Ok(Wanted {
        domain: parts.network.domain.clone(),
        machines,
        prefixes,
    })
}

impl Wanted {
    /// What to say of a literal; `None`: it is none of ours.
    fn judge(
        &self,
        text: &str,
        literal: &Literal,
        is_nix: bool,
    ) -> Option<(Option<MachineName>, Option<Advice>)> {
        if let Some(machine) = self.machines.get(&literal.address) {
            let host = format!("{machine}.{}", self.domain);
            let advice = advice::for_machine(text, literal, machine.as_str(), &host, is_nix);
            return Some((Some(machine.clone()), Some(advice)));
        }
        let ours = self
            .prefixes
            .iter()
            .find(|prefix| prefix.contains(&literal.address))?;
        let whole = literal.address == ours.network();
        Some((
            None,
            whole.then(|| advice::for_prefix(literal, is_nix)).flatten(),
        ))
    }
}

/// Looks through one file; `Some`: why it was not looked at.
fn lint_file(
    path: &Path,
    wanted: &Wanted,
    fix: bool,
    findings: &mut Vec<Finding>,
) -> Result<Option<String>, Failure> {
    let unreadable = |error| {
        let error = anyhow::Error::new(error).context(format!("cannot read `{}`", path.display()));
        Failure::new(Exit::Usage, error)
    };
    let before = fs::metadata(path).map_err(unreadable)?;
    if before.len() > FILE_BYTES_MAX {
        let limit = FILE_BYTES_MAX >> 20;
        return Ok(Some(format!(
            "`{}` is larger than {limit} MiB",
            path.display()
        )));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    // What is not text holds no address that a hand typed.
    if bytes.contains(&0) {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    // Text in another encoding is read as far as it goes, and never written.
    let is_writable = matches!(text, Cow::Borrowed(_));
    let is_nix = path.extension().is_some_and(|extension| extension == "nix");
    let mut place = Place::default();
    let mut fixed = String::new();
    let mut done = 0;
    for literal in literals(&text) {
        let Some((machine, advice)) = wanted.judge(&text, &literal, is_nix) else {
            continue;
        };
        place.go_to(&text, literal.span.start);
        let plain = advice
            .as_ref()
            .filter(|advice| advice.is_plain && is_writable && advice.span.start >= done);
        if let Some(advice) = plain.filter(|_| fix) {
            fixed.push_str(&text[done..advice.span.start]);
            fixed.push_str(&advice.replacement);
            done = advice.span.end;
        }
        findings.push(Finding {
            file: path.to_owned(),
            line: place.line,
            column: place.column,
            address: match literal.prefix_len {
                Some(length) => format!("{}/{length}", literal.address),
                None => literal.address.to_string(),
            },
            machine,
            plain: plain.is_some(),
            fixed: plain.is_some() && fix,
            replacement: advice.map(|advice| advice.replacement),
        });
    }
    if done > 0 {
        fixed.push_str(&text[done..]);
        write_back(path, &fixed, &before)?;
    }
    Ok(None)
}

/// A place in a text, counted from 1.
struct Place {
    at: usize,
    line: usize,
    column: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            at: 0,
            line: 1,
            column: 1,
        }
    }
}

impl Place {
    /// Goes on to the byte `at` of the text, which is not before this.
    fn go_to(&mut self, text: &str, at: usize) {
        for c in text[self.at..at].chars() {
            match c {
                '\n' => (self.line, self.column) = (self.line + 1, 1),
                _ => self.column += 1,
            }
        }
        self.at = at;
    }
}

/// Replaces the file with its mode and owner kept; through a link, what it points at.
fn write_back(path: &Path, text: &str, before: &Metadata) -> Result<(), Failure> {
    let target = path
        .canonicalize()
        .map_err(|error| anyhow!(error).context(format!("cannot write `{}`", path.display())))?;
    let replaced = file::replace(&target, text.as_bytes(), before)
        .map_err(|error| Failure::new(Exit::Refused, error))?;
    if !replaced {
        let error = anyhow!("`{}` was changed meanwhile", path.display());
        return Err(Failure::new(Exit::Refused, error)
            .hint("what was replaced until here stays; run this again"));
    }
    Ok(())
}

fn render(findings: &[Finding], files: usize, fix: bool) -> String {
    let mut text = String::new();
    for Finding {
        file,
        line,
        column,
        address,
        machine,
        replacement,
        plain,
        fixed,
    } in findings
    {
        let machine = machine.as_ref().map_or("nobody's", MachineName::as_str);
        text.push_str(&format!(
            "{}:{line}:{column}: {address} ({machine})",
            file.display()
        ));
        match replacement {
            Some(replacement) if *fixed => text.push_str(&format!(" is now `{replacement}`")),
            Some(replacement) if *plain => {
                text.push_str(&format!("; `--fix` writes `{replacement}`"))
            }
            Some(replacement) => text.push_str(&format!("; write `{replacement}`")),
            None if machine == "nobody's" => text.push_str("; no machine has it (any more)"),
            None => {}
        }
        text.push('\n');
    }
    let fixed = findings.iter().filter(|finding| finding.fixed).count();
    let remain = findings.len() - fixed;
    text.push_str(&match (remain, fixed) {
        (0, 0) => format!("no typed address in {files} files\n"),
        (0, fixed) => format!("{fixed} replaced, none remains in {files} files\n"),
        (remain, _) if fix => {
            format!("{fixed} replaced, {remain} remain for you in {files} files\n")
        }
        (remain, _) => format!("{remain} typed addresses in {files} files\n"),
    });
    text
}

#[cfg(test)]
mod tests;
