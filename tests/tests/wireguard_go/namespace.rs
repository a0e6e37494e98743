use std::{
    fs::File,
    net::UdpSocket,
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// A network namespace with only loopback in it, gone when dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(label: &str) -> Self {
        let name = format!("mesh-wg-{}-{label}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// A command that will run in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "`{program} {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A UDP socket that lives in the namespace, on a free port of loopback.
    pub(crate) fn socket(&self) -> UdpSocket {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        // Only the thread changes over, and it ends; the socket stays where it was made.
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap()
        })
        .join()
        .unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the next run makes another namespace.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    assert!(
        succeeds(program, arguments),
        "`{program} {}` failed",
        arguments.join(" ")
    );
}

pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
