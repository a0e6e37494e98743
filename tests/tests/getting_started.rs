//! Every command in `docs/getting-started.md`, and then in `docs/guides`, as a newcomer would type it: machines, each a
//! terminal of its own in a namespace.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a step that fails is the test failing")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use mesh_lab::{Lab, sandbox};
use mesh_tests::page::blocks;

/// How long one block of commands may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a terminal prints after each block, with the block's exit code.
const END: &str = "__end_of_block__";

/// The pages, in an order in which one goes on where the other ends.
const PAGES: [&str; 4] = [
    "getting-started.md",
    "guides/rules.md",
    "guides/new-laptop.md",
    "guides/lost-laptop.md",
];

const MACHINES: [&str; 3] = ["cinnabar", "electrum", "stibnite"];

#[test]
fn the_pages_work_as_they_are_written() {
    if !sandbox::enter_test() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::new().unwrap();
    let mut terminals = BTreeMap::new();
    for name in MACHINES {
        lab.add(name).unwrap();
        terminals.insert(name, Terminal::open(&lab, name, dir.path(), &root));
    }
    let mut words = vec![(
        "SERVER".to_owned(),
        lab.address("cinnabar").unwrap().to_string(),
    )];

    let pages = PAGES.map(|page| fs::read_to_string(root.join("docs").join(page)).unwrap());
    for block in pages.iter().flat_map(|page| blocks(page)) {
        let text = replaced(&block.text, &words);
        match block.label.as_str() {
            // What every test of this package is run with; the program is copied from there.
            "sh build" => {
                assert!(text.starts_with("cargo build --release\n"));
                for terminal in terminals.values_mut() {
                    let install = text.replace("cargo build --release\n", "");
                    let bin = mesh_program(&root);
                    terminal
                        .run(&install.replace("target/release/mesh", &bin.display().to_string()));
                    terminal.run("test -x /usr/local/bin/mesh");
                }
                let electrum = terminals.get_mut("electrum").unwrap();
                electrum
                    .run("mkdir -p ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519");
            }
            "json" => {
                for name in ["cinnabar", "electrum"] {
                    let key = terminals
                        .get_mut(name)
                        .unwrap()
                        .run("mesh keygen --public /etc/mesh/identity");
                    words.push((
                        format!("{}_KEY", name.to_uppercase()),
                        key.trim().to_owned(),
                    ));
                }
                let electrum = terminals.get_mut("electrum").unwrap();
                let described = describe(
                    &electrum.run("cat inventory.json"),
                    &replaced(&block.text, &words),
                );
                electrum.run(&format!("cat > inventory.json <<'END'\n{described}\nEND"));
                let inventory: serde_json::Value = serde_json::from_str(&described).unwrap();
                let network = inventory["network"]["id"].as_str().unwrap();
                words.push(("NETWORK_ID".to_owned(), network.to_owned()));
                let signer = electrum.run("cat ~/.ssh/id_ed25519.pub");
                words.push(("SIGNER".to_owned(), signer.trim().to_owned()));
            }
            "json rules" => {
                let electrum = terminals.get_mut("electrum").unwrap();
                let described = describe(&electrum.run("cat inventory.json"), &text);
                electrum.run(&format!("cat > inventory.json <<'END'\n{described}\nEND"));
            }
            label => {
                let mut parts = label.split(' ').skip(1);
                let terminal = terminals.get_mut(parts.next().unwrap()).expect(label);
                match parts.next() {
                    Some("daemon") => terminal.start(&text),
                    None => {
                        let output = terminal.run(&text);
                        check(&text, &output);
                        if text.contains("keygen --machine stibnite") {
                            let key = output.lines().rfind(|line| line.starts_with("mesh1"));
                            words.push(("STIBNITE_KEY".to_owned(), key.unwrap().to_owned()));
                        }
                    }
                    Some(word) => panic!("`{word}` after a block's machine"),
                }
            }
        }
    }
}

/// What a reader looks for in the output of some commands.
fn check(commands: &str, output: &str) {
    if commands.contains("mesh status") {
        assert!(output.contains("cinnabar"), "{output}");
        assert!(output.to_lowercase().contains("direct"), "{output}");
    }
    if commands.contains("--out roster-2.json") {
        assert!(
            output.contains('2'),
            "the second roster has serial 2: {output}"
        );
    }
    if commands.contains("mesh rule test") {
        assert!(output.contains("by rule `administer`"), "{output}");
    }
    if commands.contains("mesh rule list") {
        assert!(output.contains("everything else is denied"), "{output}");
    }
    if commands.contains("mesh machine retire stibnite") {
        assert!(output.contains("- stibnite"), "{output}");
    }
}

/// Puts the page's machines and instances into the inventory that `init` made.
fn describe(inventory: &str, machines: &str) -> String {
    let mut inventory: serde_json::Map<_, _> = serde_json::from_str(inventory).unwrap();
    let machines: serde_json::Map<_, _> = serde_json::from_str(&format!("{{{machines}}}")).unwrap();
    inventory.extend(machines);
    serde_json::to_string_pretty(&inventory).unwrap()
}

fn replaced(text: &str, words: &[(String, String)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| {
        text.replace(word, value)
    })
}

fn mesh_program(root: &Path) -> PathBuf {
    std::env::var_os("MESH_BIN").map_or_else(|| root.join("target/release/mesh"), PathBuf::from)
}

/// A shell on one machine. It and all that it started end with this value.
struct Terminal {
    shell: Child,
    input: ChildStdin,
    output: Receiver<String>,
    name: String,
}

impl Terminal {
    /// Opens a root shell in the machine's namespace, with folders of its own where daemons write.
    fn open(lab: &Lab, name: &str, dir: &Path, root: &Path) -> Self {
        let home = dir.join(name);
        let etc = (home.join(".etc"), home.join(".etc-work"));
        for path in [&home, &etc.0, &etc.1] {
            fs::create_dir_all(path).unwrap();
        }
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "bash",
            ])
            .env("HOME", &home)
            .env_remove("SSH_AUTH_SOCK")
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = lab
            .namespace(name)
            .unwrap()
            .run(|| Ok(command.spawn()?))
            .unwrap();
        let input = shell.stdin.take().unwrap();
        let stdout = BufReader::new(shell.stdout.take().unwrap());
        let (sender, output) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Self {
            shell,
            input,
            output,
            name: name.to_owned(),
        };
        terminal.run(&format!(
            "exec 2>&1; set -u
             sudo() {{ \"$@\"; }}
             mount --make-rprivate /
             mount -t overlay overlay -o lowerdir=/etc,upperdir={},workdir={} /etc
             for d in /run /var/lib /usr/local/bin; do mount -t tmpfs tmpfs $d; done
             cd {}; test -d {}",
            etc.0.display(),
            etc.1.display(),
            home.display(),
            root.display(),
        ));
        terminal
    }

    /// Runs commands one after the other, and returns what they print.
    fn run(&mut self, commands: &str) -> String {
        let (output, code) = self.attempt(commands);
        assert_eq!(
            code, "0",
            "on {}:\n{commands}\nprinted:\n{output}",
            self.name
        );
        output
    }

    /// Starts a daemon, as in a terminal that is left open, and waits until it is up: the controller's
    /// socket is there, the agent knows its address.
    fn start(&mut self, command: &str) {
        let command = command.trim_end();
        let (daemon, is_up) = if command.contains(" controller ") {
            ("controller", "test -S /run/mesh/controller.sock")
        } else {
            // With `-s`, no input at all is not taken for success.
            ("agent", "mesh status --json | jq -es \".[0].self.address\"")
        };
        self.run(&format!("( {command} ) > {daemon}.log 2>&1 &"));
        let wait = format!("timeout 20 bash -c 'until {is_up}; do sleep 0.05; done'");
        let (output, code) = self.attempt(&wait);
        let log = self.run(&format!("cat {daemon}.log"));
        assert_eq!(
            code, "0",
            "the {daemon} on {} did not start:\n{output}\n{log}",
            self.name
        );
    }

    fn attempt(&mut self, commands: &str) -> (String, String) {
        // In the shell itself, so that functions and the folder stay; `&&` would hide which one failed.
        writeln!(
            self.input,
            "trap 'failed=$?' ERR; failed=0\n{commands}\ntrap - ERR; echo; echo {END} $failed"
        )
        .unwrap();
        let mut output = String::new();
        loop {
            let line = self
                .output
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("on {}: {error}:\n{commands}\n{output}", self.name));
            if let Some(code) = line.strip_prefix(END) {
                return (output, code.trim().to_owned());
            }
            output.push_str(&line);
            output.push('\n');
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
