//! What a compromised thread of a daemon can still do.
//!
//! The part of each test that misbehaves runs in a process of its own, which confines itself by the same
//! call as the daemons and then starts a thread; what that thread tries is what an intruder would.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test, and its helpers")]

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::{
        fd::{AsRawFd, RawFd},
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc,
    thread,
};

use mesh_os::{
    confine::{Needs, confine},
    file::write_atomic,
    link::Links,
    notify::Notifier,
};
use nix::{errno::Errno, unistd::geteuid};

/// Says to a test that it is the process that is to confine itself, and where it may write.
const ROOM: &str = "MESH_TEST_CONFINED_IN";

/// Says which of the calls that end a process it is to try.
const CALL: &str = "MESH_TEST_OUTRAGEOUS_CALL";

/// What a thread of the confined process has.
struct Inside {
    /// A directory with `etc`, `state` and `run`, which are the daemon's, and `elsewhere`, which is not.
    room: PathBuf,
    /// The kernel's version of Landlock; 0: it has none.
    landlock: i64,
    /// Opened before.
    notifier: Notifier,
    /// Runs something as another process would, which is not confined.
    outside: mpsc::Sender<fn(&Path)>,
    /// Hears when that is done.
    done: mpsc::Receiver<()>,
}

/// Runs `misbehave` in a thread of a confined process, and returns what became of the process.
fn confined(test: &str, environment: &[(&str, &str)], misbehave: fn(Inside)) -> Option<Output> {
    if let Some(room) = std::env::var_os(ROOM) {
        let room = PathBuf::from(room);
        let (outside, work) = mpsc::channel::<fn(&Path)>();
        let (tell, done) = mpsc::channel();
        let elsewhere = room.clone();
        thread::spawn(move || {
            for work in work {
                work(&elsewhere);
                let _ = tell.send(());
            }
        });
        let needs = needs(&room);
        let inside = Inside {
            landlock: landlock_version(),
            notifier: Notifier::from_environment().unwrap(),
            room,
            outside,
            done,
        };
        let confinement = confine(&needs);
        // The tests' own, and the one that is to stay outside.
        let early = |missing: &String| missing.ends_with("threads that were started before");
        assert!(confinement.missing.iter().any(early), "{confinement}");
        thread::spawn(move || misbehave(inside)).join().unwrap();
        return None;
    }
    let room = tempfile::tempdir().unwrap();
    for dir in ["etc", "state", "run", "elsewhere"] {
        fs::create_dir(room.path().join(dir)).unwrap();
    }
    fs::write(room.path().join("etc/agent.toml"), "old").unwrap();
    fs::write(room.path().join("elsewhere/secret"), "secret").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .env(ROOM, room.path());
    Some(command.output().unwrap())
}

/// As the agent's, with its directories in `room`.
fn needs(room: &Path) -> Needs {
    Needs {
        tcp_connect: vec![53],
        ..Needs::new(
            [&*room.join("etc/agent.toml")],
            [&*room.join("state"), &*room.join("run")],
        )
    }
}

fn assert_passed(output: Option<Output>) {
    if let Some(output) = output {
        assert!(
            output.status.success(),
            "{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// What this kernel's Landlock can do, asked of the kernel itself: where it cannot, there is nothing to test.
fn landlock_version() -> i64 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes nothing and gives a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    version.max(0)
}

#[track_caller]
fn assert_errno<T>(result: io::Result<T>, expected: Errno) {
    let error = result.err().expect("it was not held back");
    assert_eq!(error.raw_os_error(), Some(expected as i32), "{error}");
}

#[test]
fn a_compromised_thread_reads_and_writes_nothing_that_is_not_the_daemons() {
    assert_passed(confined(
        "a_compromised_thread_reads_and_writes_nothing_that_is_not_the_daemons",
        &[],
        |Inside { room, landlock, .. }| {
            if landlock < 1 {
                return;
            }
            let root = ["/etc/shadow", "/etc/passwd", "/root/.profile"];
            let anyone = [
                "/proc/self/maps",
                "/usr/share/common-licenses/MIT",
                "/dev/net/tun",
            ];
            let paths = if geteuid().is_root() { &root[..] } else { &[] };
            for path in paths.iter().chain(&anyone) {
                if Path::new(path).exists() {
                    assert_errno(File::open(path), Errno::EACCES);
                }
            }
            assert_errno(File::open(room.join("elsewhere/secret")), Errno::EACCES);
            assert_errno(fs::write(room.join("elsewhere/new"), ""), Errno::EACCES);
            assert_errno(fs::write(room.join("etc/agent.toml"), "new"), Errno::EACCES);
            assert_errno(fs::remove_file(room.join("etc/agent.toml")), Errno::EACCES);
            let moved = fs::rename(room.join("elsewhere/secret"), room.join("state/secret"));
            assert!(moved.is_err());
            let linked = fs::hard_link(room.join("elsewhere/secret"), room.join("state/secret"));
            assert!(linked.is_err());
            assert!(std::os::unix::fs::symlink("/", room.join("state/root")).is_err());
        },
    ));
}

#[test]
fn a_compromised_thread_starts_no_process() {
    assert_passed(confined(
        "a_compromised_thread_starts_no_process",
        &[],
        |_| {
            assert_errno(
                Command::new("/bin/sh").args(["-c", "true"]).status(),
                Errno::EPERM,
            );
            // SAFETY: the child, if there is one, ends at once.
            let forked = unsafe {
                let forked = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
                if forked == 0 {
                    libc::_exit(0);
                }
                forked
            };
            assert_eq!(Errno::result(forked), Err(Errno::EPERM));
        },
    ));
}

#[test]
fn an_outrageous_call_ends_the_process() {
    const NAME: &str = "an_outrageous_call_ends_the_process";
    for call in [
        "execve",
        "execveat",
        "ptrace",
        "mount",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "init_module",
    ] {
        let output = confined(NAME, &[(CALL, call)], |_| {
            let shell = CString::new("/bin/sh").unwrap();
            let arguments = [shell.as_ptr(), std::ptr::null()];
            let none = std::ptr::null::<libc::c_char>();
            // SAFETY: each gets what it takes, or nothing that it could follow.
            unsafe {
                match std::env::var(CALL).unwrap().as_str() {
                    "execve" => libc::syscall(
                        libc::SYS_execve,
                        shell.as_ptr(),
                        arguments.as_ptr(),
                        &raw const none,
                    ),
                    "execveat" => libc::syscall(libc::SYS_execveat, -1, none, none, none, 0),
                    "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0),
                    "mount" => libc::syscall(libc::SYS_mount, none, none, none, 0, none),
                    "unshare" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
                    "setns" => libc::syscall(libc::SYS_setns, -1, 0),
                    "bpf" => libc::syscall(libc::SYS_bpf, 0, none, 0),
                    "keyctl" => libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0),
                    "init_module" => libc::syscall(libc::SYS_init_module, none, 0, none),
                    other => panic!("`{other}` is not in the list"),
                }
            };
        });
        if let Some(output) = output {
            assert_eq!(
                output.status.signal(),
                Some(libc::SIGSYS),
                "{call}: {}",
                output.status
            );
        }
    }
}

#[test]
fn a_compromised_thread_makes_no_other_tun() {
    /// `_IOW('T', 202, int)`.
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const HELD: &str = "MESH_TEST_TUN";
    // One that was open before, as the agent's own is; a file has no TUN behind it, but the filter is asked first.
    let held = File::open("/dev/net/tun")
        .or_else(|_| File::open("/dev/null"))
        .unwrap();
    // SAFETY: `held` is open.
    unsafe { libc::fcntl(held.as_raw_fd(), libc::F_SETFD, 0) };
    let number = held.as_raw_fd().to_string();
    assert_passed(confined(
        "a_compromised_thread_makes_no_other_tun",
        &[(HELD, &number)],
        |Inside { landlock, .. }| {
            let held: RawFd = std::env::var(HELD).unwrap().parse().unwrap();
            let mut request = [0u8; 40];
            // SAFETY: the request is as long as a `struct ifreq`.
            let made = unsafe { libc::ioctl(held, TUNSETIFF as _, request.as_mut_ptr()) };
            assert_eq!(Errno::result(made), Err(Errno::EPERM));
            if landlock >= 1 && Path::new("/dev/net/tun").exists() {
                assert_errno(
                    File::options().read(true).write(true).open("/dev/net/tun"),
                    Errno::EACCES,
                );
            }
        },
    ));
}

#[test]
fn a_compromised_thread_reaches_no_other_process() {
    const ABSTRACT: &str = "MESH_TEST_ABSTRACT_SOCKET";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.sock");
    let _stream = UnixListener::bind(&path).unwrap();
    let name = format!("mesh-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
    let own = std::process::id().to_string();
    assert_passed(confined(
        "a_compromised_thread_reaches_no_other_process",
        &[
            ("MESH_TEST_SOCKET", path.to_str().unwrap()),
            (ABSTRACT, &name),
            ("MESH_TEST_PARENT", &own),
        ],
        |Inside { landlock, .. }| {
            assert_errno(
                UnixStream::connect(std::env::var("MESH_TEST_SOCKET").unwrap()),
                Errno::EPERM,
            );
            let name = SocketAddr::from_abstract_name(std::env::var(ABSTRACT).unwrap()).unwrap();
            assert_errno(UnixStream::connect_addr(&name), Errno::EPERM);
            assert_errno(UnixDatagram::unbound(), Errno::EPERM);
            assert_errno(UnixDatagram::pair(), Errno::EPERM);
            let parent: i32 = std::env::var("MESH_TEST_PARENT").unwrap().parse().unwrap();
            let socket = |family, kind, protocol| {
                // SAFETY: plain numbers.
                Errno::result(unsafe { libc::socket(family, kind, protocol) })
            };
            // SAFETY: signal 0 is none.
            let signalled = unsafe { libc::syscall(libc::SYS_tgkill, parent, parent, 0) };
            assert_eq!(Errno::result(signalled), Err(Errno::EPERM));
            // SAFETY: as above.
            let signalled = unsafe { libc::kill(parent, 0) };
            assert_eq!(Errno::result(signalled), Err(Errno::ENOSYS));
            let mut limits = libc::rlimit64 {
                rlim_cur: 0,
                rlim_max: 0,
            };
            let none = std::ptr::null();
            // SAFETY: limits are only read, into memory that is there.
            let asked =
                unsafe { libc::prlimit64(parent, libc::RLIMIT_NOFILE, none, &raw mut limits) };
            assert_eq!(Errno::result(asked), Err(Errno::EPERM));
            const F_SETSIG: i32 = 10;
            let (reader, _writer) = io::pipe().unwrap();
            for (command, argument) in [(libc::F_SETOWN, parent), (F_SETSIG, libc::SIGKILL)] {
                // SAFETY: plain numbers.
                let set = unsafe { libc::fcntl(reader.as_raw_fd(), command, argument) };
                assert_eq!(Errno::result(set), Err(Errno::EPERM));
            }
            assert_eq!(
                socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
                Err(Errno::EPERM)
            );
            const SOCK_PACKET: i32 = 10;
            for kind in [libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET] {
                assert_eq!(socket(libc::AF_INET, kind, 0), Err(Errno::EPERM), "{kind}");
            }
            assert_eq!(
                socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
                Err(Errno::EPERM)
            );
            assert_eq!(
                socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
                Err(Errno::EPERM)
            );
            let uevents = libc::NETLINK_KOBJECT_UEVENT;
            assert_eq!(
                socket(libc::AF_NETLINK, libc::SOCK_DGRAM, uevents),
                Err(Errno::EPERM)
            );
            if landlock >= 4 {
                assert_errno(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)), Errno::EACCES);
                assert_errno(TcpStream::connect((Ipv6Addr::LOCALHOST, 22)), Errno::EACCES);
            }
        },
    ));
}

#[test]
fn a_compromised_thread_gets_no_further_into_the_kernel() {
    /// `IPT_SO_SET_REPLACE` and `IP6T_SO_SET_REPLACE`: a whole new packet filter.
    const REPLACE: i32 = 64;
    assert_passed(confined(
        "a_compromised_thread_gets_no_further_into_the_kernel",
        &[],
        |_| {
            let none = std::ptr::null::<u8>();
            for call in [libc::SYS_io_uring_setup, libc::SYS_clone3] {
                // SAFETY: with nothing to follow, either call fails.
                let called = unsafe { libc::syscall(call, 0, none) };
                assert_eq!(Errno::result(called), Err(Errno::ENOSYS), "{call}");
            }
            let user = libc::CLONE_NEWUSER | libc::SIGCHLD;
            // SAFETY: the child, if there is one, ends at once.
            let forked = unsafe {
                let forked = libc::syscall(libc::SYS_clone, user, 0, 0, 0, 0);
                if forked == 0 {
                    libc::_exit(0);
                }
                forked
            };
            assert_eq!(Errno::result(forked), Err(Errno::EPERM));
            let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
            for (level, option) in [
                (libc::SOL_IP, REPLACE),
                (libc::SOL_IP, REPLACE + 32),
                (libc::SOL_IPV6, REPLACE),
                (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
                (libc::SOL_TCP, libc::TCP_ULP),
                (283, 1), // SOL_XDP
            ] {
                let value = [0u8; 16];
                // SAFETY: the value is as long as is said.
                let set = unsafe {
                    let value = value.as_ptr().cast();
                    libc::setsockopt(socket.as_raw_fd(), level, option, value, 16)
                };
                assert_eq!(
                    Errno::result(set),
                    Err(Errno::EPERM),
                    "option {option} of level {level}"
                );
            }
        },
    ));
}

#[test]
fn a_compromised_thread_makes_no_code_from_data() {
    assert_passed(confined(
        "a_compromised_thread_makes_no_code_from_data",
        &[],
        |_| {
            const PAGE: usize = 4096;
            let map = |protection| {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: a new mapping touches no memory that is in use.
                unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) }
            };
            let data = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(map(data | libc::PROT_EXEC), libc::MAP_FAILED);
            assert_eq!(Errno::last(), Errno::EPERM);
            let page = map(data);
            assert_ne!(page, libc::MAP_FAILED);
            // SAFETY: the page is ours, and nobody runs it.
            let turned = unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) };
            assert_eq!(Errno::result(turned), Err(Errno::EPERM));
        },
    ));
}

#[test]
fn a_confined_daemon_has_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let output = confined(
        "a_confined_daemon_has_what_it_needs",
        &[("NOTIFY_SOCKET", path.to_str().unwrap())],
        |inside| {
            let Inside {
                room,
                notifier,
                outside,
                done,
                ..
            } = inside;
            // Files: whole replacement with fsync, and a configuration that another replaces.
            fs::create_dir_all(room.join("state")).unwrap();
            for dir in ["state", "run"] {
                let path = room.join(dir).join("roster.json");
                write_atomic(&path, b"one", 0o600).unwrap();
                write_atomic(&path, b"two", 0o600).unwrap();
                File::options()
                    .append(true)
                    .open(&path)
                    .unwrap()
                    .write_all(b"!")
                    .unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), "two!");
                fs::remove_file(&path).unwrap();
            }
            let config = room.join("etc/agent.toml");
            assert_eq!(fs::read_to_string(&config).unwrap(), "old");
            outside
                .send(|room| write_atomic(&room.join("etc/agent.toml"), b"new", 0o644).unwrap())
                .unwrap();
            done.recv().unwrap();
            assert_eq!(fs::read_to_string(&config).unwrap(), "new");
            // The network: netlink, UDP, names, and a runtime with its signals and threads.
            Links::open().unwrap().underlay_addresses(&[]).unwrap();
            let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            assert!(("localhost", 1).to_socket_addrs().unwrap().next().is_some());
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let kind = tokio::signal::unix::SignalKind::hangup();
                let _hangup = tokio::signal::unix::signal(kind).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                let mut found = tokio::net::lookup_host("localhost:1").await.unwrap();
                assert!(found.next().is_some());
            });
            notifier.say("READY=1").unwrap();
        },
    );
    if output.is_some() {
        let mut word = [0; 16];
        let length = manager.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1");
    }
    assert_passed(output);
}

#[test]
fn an_abort_still_ends_the_process() {
    let output = confined("an_abort_still_ends_the_process", &[], |_| {
        std::process::abort()
    });
    if let Some(output) = output {
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGABRT),
            "{}",
            output.status
        );
    }
}
