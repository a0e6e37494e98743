//! Files, TCP ports, signals and sockets by name, as far as the kernel's Landlock goes (landlock(7)).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};
use nix::unistd::geteuid;

use super::{Confinement, Needs};

/// The newest version of Landlock whose rights are asked for.
const ABI_MAX: ABI = ABI::V9;

/// What Landlock holds back, with the version from which on it can.
const CAN: [(u32, &str); 5] = [
    (1, "files"),
    (4, "TCP ports"),
    (5, "devices"),
    (6, "signals and abstract sockets"),
    (9, "sockets by name"),
];

/// Where glibc and its modules for name resolution are.
const LIBRARIES: [&str; 6] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
];

/// Where the programs that write `/etc/resolv.conf` keep what it then links to.
const RESOLVER_DIRS: [&str; 3] = [
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

/// What name resolution reads in `/etc`.
const RESOLVER_FILES: [&str; 6] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
];

pub(super) fn restrict(needs: &Needs, confinement: &mut Confinement) {
    match apply(needs) {
        Ok(LandlockStatus::Available { effective_abi, .. }) => {
            let version = effective_abi as u32;
            for (since, what) in CAN {
                if version >= since {
                    confinement.in_force.push(what.to_owned());
                } else {
                    confinement.missing.push(format!(
                        "{what} (Landlock {since}; this kernel has {version})"
                    ));
                }
            }
        }
        Ok(LandlockStatus::NotEnabled) => none(confinement, "Landlock is not switched on (`lsm=`)"),
        Ok(LandlockStatus::NotImplemented) => none(confinement, "this kernel has no Landlock"),
        Err(error) => none(confinement, &error.to_string()),
    }
}

fn none(confinement: &mut Confinement, reason: &str) {
    let all: Vec<_> = CAN.iter().map(|(_, what)| *what).collect();
    confinement
        .missing
        .push(format!("{}: {reason}", all.join(", ")));
}

fn apply(needs: &Needs) -> Result<LandlockStatus, RulesetError> {
    let read = AccessFs::ReadFile;
    let write = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile
    });
    let ports = |ports: &[u16], access: AccessNet| -> Vec<Result<NetPort, RulesetError>> {
        let rule = |port: &u16| Ok(NetPort::new(*port, access));
        ports.iter().map(rule).collect()
    };
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI_MAX))?
        .handle_access(AccessNet::from_all(ABI_MAX))?
        .scope(Scope::from_all(ABI_MAX))?
        .create()?
        .add_rules(path_beneath_rules(name_resolution(), BitFlags::from(read)))?
        .add_rules(path_beneath_rules(&needs.read, BitFlags::from(read)))?
        .add_rules(path_beneath_rules(&needs.write, write))?
        .add_rules(ports(&needs.tcp_listen, AccessNet::BindTcp))?
        .add_rules(ports(&needs.tcp_connect, AccessNet::ConnectTcp))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => match status.landlock {
            LandlockStatus::NotImplemented => LandlockStatus::NotImplemented,
            LandlockStatus::NotEnabled | LandlockStatus::Available { .. } => {
                LandlockStatus::NotEnabled
            }
        },
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => status.landlock,
    })
}

/// What a look-up of a controller's name opens.
///
/// `/etc/resolv.conf` is replaced by a rename whenever the network changes, and a rule holds for a file, not
/// for its name; so the rule is for `/etc`, where permissions guard the secrets. They guard nothing from
/// root: a process that stayed root gets the files alone, and the nameservers of its start.
fn name_resolution() -> Vec<PathBuf> {
    let owned = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut paths = owned(&LIBRARIES);
    paths.extend(owned(&RESOLVER_DIRS));
    if geteuid().is_root() {
        paths.extend(owned(&RESOLVER_FILES));
    } else {
        paths.push(PathBuf::from("/etc"));
        let target = Path::new("/etc/resolv.conf").canonicalize();
        paths.extend(target.ok().and_then(|it| it.parent().map(Path::to_owned)));
    }
    paths
}
