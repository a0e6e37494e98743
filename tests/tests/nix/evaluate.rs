//! Evaluates and builds expressions with Nix.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// The inventory of the documentation's examples, beside which their files are put.
const INVENTORY: &str = "docs/inventory.md";

/// The roster of one machine.
const ROSTER: &str = "docs/formats.md";

/// The public identity of `cinnabar` in those examples.
const IDENTITY: &str =
    "mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA";

/// Nix, with the modules and the program under test in scope.
///
/// In an expression, `nixos` and `darwin` evaluate lists of modules, `machine` and `mac` are modules of a
/// member of a small fleet, `failed` and `warned` are a configuration's messages, `mesh` are the flake's
/// outputs, and `stub` and `lib` the stand-in for nixpkgs.
pub(crate) struct Nix {
    /// A user's flake: inventory, clan's public vars.
    flake: TempDir,
    prelude: String,
    package: String,
}

impl Nix {
    /// `None`: there is no Nix here, and the test is skipped.
    pub(crate) fn new() -> Option<Self> {
        if Command::new("nix-instantiate")
            .arg("--version")
            .output()
            .is_err()
        {
            println!("skipped: there is no nix-instantiate");
            return None;
        }
        let flake = tempfile::tempdir().unwrap();
        let manual = fs::read_to_string(workspace().join(INVENTORY)).unwrap();
        fs::write(flake.path().join("inventory.json"), block(&manual, "json")).unwrap();
        let manual = fs::read_to_string(workspace().join(ROSTER)).unwrap();
        fs::write(flake.path().join("roster.json"), block(&manual, "json")).unwrap();
        let public = flake
            .path()
            .join("vars/per-machine/cinnabar/mesh-identity/identity.pub");
        fs::create_dir_all(&public).unwrap();
        fs::write(public.join("value"), format!("{IDENTITY}\n")).unwrap();

        let prelude = format!(
            r#"let
                 stub = import {root}/tests/nix-stub {{ }};
                 inherit (stub) lib;
                 mesh = (import {root}/flake.nix).outputs {{
                   self = mesh;
                   nixpkgs = {{ inherit lib; legacyPackages = lib.genAttrs lib.platforms.all stub.pkgsFor; }};
                 }};
                 # A copy: a unit's sandbox may hide where the program was built.
                 built = builtins.path {{ name = "mesh-program"; path = {program}; }};
                 program = derivation {{
                   name = "mesh";
                   system = builtins.currentSystem;
                   builder = "/bin/sh";
                   PATH = "/usr/bin:/bin";
                   args = [ "-c" "mkdir -p $out/bin && ln -s ${{built}} $out/bin/mesh" ];
                 }};
                 nixos = modules: stub.nixos {{ modules = [ {root}/nix-modules/nixos.nix ] ++ modules; }};
                 darwin = modules: stub.darwin {{ modules = [ {root}/nix-modules/darwin.nix ] ++ modules; }};
                 member = name: {{
                   networking.hostName = name;
                   services.mesh = {{ enable = true; package = program; inherit inventory; }};
                 }};
                 inventory = {flake}/inventory.json;
                 roster = {flake}/roster.json;
                 machine = member "cinnabar";
                 mac = member "stibnite";
                 identity = "{IDENTITY}";
                 failed = c: map (a: a.message) (lib.filter (a: !a.assertion) c.assertions);
                 warned = c: c.warnings;
               in "#,
            root = workspace().display(),
            program = program().display(),
            flake = flake.path().display(),
        );
        let mut nix = Self {
            flake,
            prelude,
            package: String::new(),
        };
        nix.package = nix.json("program.outPath").as_str().unwrap().to_owned();
        Some(nix)
    }

    /// Whether the sources of a project were fetched; see `tests/nix-stub/README.md`.
    pub(crate) fn has(&self, project: &str) -> bool {
        let has = self.json(&format!("stub.sources ? {project}")) == true;
        if !has {
            println!("skipped: MESH_NIX_SOURCES names no folder with {project}");
        }
        has
    }

    /// The store path of the program under test.
    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// The folder of the user's flake.
    pub(crate) fn flake(&self) -> &Path {
        self.flake.path()
    }

    /// Writes a file of the user's flake.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.flake.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// What an expression evaluates to.
    pub(crate) fn json(&self, expression: &str) -> Value {
        let output = self.run(
            "nix-instantiate",
            &["--eval", "--strict", "--json", "--read-write-mode"],
            expression,
        );
        assert!(output.status.success(), "{expression}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What is said when an expression does not evaluate.
    pub(crate) fn fails(&self, expression: &str) -> String {
        let output = self.run("nix-instantiate", &["--eval", "--strict"], expression);
        assert!(!output.status.success(), "{expression}: it evaluates");
        stderr(&output)
    }

    /// The store path that an expression's derivation builds.
    pub(crate) fn build(&self, expression: &str) -> PathBuf {
        let output = self.run("nix-build", &["--no-out-link"], expression);
        assert!(output.status.success(), "{expression}: {}", stderr(&output));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }

    /// What is said when an expression's derivation does not build.
    pub(crate) fn fails_to_build(&self, expression: &str) -> String {
        let output = self.run("nix-build", &["--no-out-link"], expression);
        assert!(!output.status.success(), "{expression}: it builds");
        stderr(&output)
    }

    fn run(&self, program: &str, args: &[&str], expression: &str) -> Output {
        Command::new(program)
            .args(args)
            .arg("--expr")
            .arg(format!("{}{expression}", self.prelude))
            .output()
            .unwrap()
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    mesh_lab::program_under_test().unwrap()
}

/// The first code block of a page whose fence says `kind`.
pub(crate) fn block<'a>(page: &'a str, kind: &str) -> &'a str {
    let (_, after) = page
        .split_once(&format!("\n```{kind}\n"))
        .unwrap_or_else(|| panic!("no block `{kind}`"));
    after.split_once("\n```").unwrap().0
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
