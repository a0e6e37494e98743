//! System calls: what a running daemon asks the kernel for, and nothing else (seccomp(2)).
//!
//! Three filters, of which the strictest wins for each call:
//!
//! - [`OUTRAGEOUS`] calls end the process: no line of ours and no library leads there, so somebody else is at
//!   work, and the service manager starts a clean process.
//! - Arguments in [`refused`] give EPERM: a library may try such a call and go on without.
//! - What is not [`ALLOWED`] gives ENOSYS, as on an older kernel: a later libc that tries a newer call first
//!   then takes the older one, so the list need not follow it. `clone3` is one of these, as its flags
//!   are out of a filter's sight.

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::Confinement;

/// What is in force with it.
const WHAT: &str = "system calls";

/// What a running daemon asks for, whatever the arguments unless [`refused`] names them.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Files, within what Landlock leaves.
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_close, libc::SYS_close_range, libc::SYS_statx,
    libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_lseek,
    libc::SYS_read, libc::SYS_readv, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_write,
    libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_fsync,
    libc::SYS_fdatasync, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fadvise64, libc::SYS_flock,
    libc::SYS_fchmod, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_linkat,
    libc::SYS_memfd_create, libc::SYS_umask,
    // Descriptors.
    libc::SYS_fcntl, libc::SYS_ioctl, libc::SYS_dup, libc::SYS_dup3, libc::SYS_pipe2, libc::SYS_eventfd2,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2,
    libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_timerfd_create, libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Sockets.
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_connect, libc::SYS_listen,
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt,
    libc::SYS_setsockopt, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg,
    libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect,
    libc::SYS_madvise, libc::SYS_mlock, libc::SYS_munlock, libc::SYS_membarrier, libc::SYS_mincore,
    // Threads, and what the process asks of itself.
    libc::SYS_clone, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_set_tid_address, libc::SYS_futex,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_getcpu, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_getppid,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_getrusage, libc::SYS_prlimit64, libc::SYS_prctl,
    libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom, libc::SYS_exit, libc::SYS_exit_group,
    libc::SYS_restart_syscall, libc::SYS_capget,
    // Signals.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack, libc::SYS_tgkill,
    // Time.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
];

/// What only x86-64 has: the older forms of the above, which glibc uses there.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_mkdir, libc::SYS_unlink,
    libc::SYS_rename, libc::SYS_link, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select,
    libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_time, libc::SYS_arch_prctl,
];

#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

/// What nobody who belongs here asks for.
#[rustfmt::skip]
const OUTRAGEOUS: &[i64] = &[
    // Other programs, and other processes' memory.
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd, libc::SYS_kcmp,
    // Another view of the file system or of the machine.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_fsopen,
    libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr, libc::SYS_pivot_root,
    libc::SYS_chroot, libc::SYS_unshare, libc::SYS_setns, libc::SYS_open_by_handle_at,
    // The kernel.
    libc::SYS_bpf, libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_kexec_load, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_perf_event_open,
    libc::SYS_userfaultfd, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
];

/// What is done to descriptors in general, and asked of a terminal. Nothing of TUN devices.
#[expect(
    clippy::unnecessary_cast,
    reason = "the type differs between C libraries"
)]
const IOCTLS: [u64; 5] = [
    libc::FIONBIO as u64,
    libc::FIOCLEX as u64,
    libc::FIONREAD as u64,
    libc::TCGETS as u64,
    libc::TIOCGWINSZ as u64,
];

/// Names for threads and memory; and what is in force already.
const PRCTLS: [i32; 4] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_SET_NO_NEW_PRIVS,
];

/// What is done to a descriptor, and locks. Nothing by which the kernel would signal another process when
/// something happens to it (`F_SETOWN`, `F_SETSIG`).
const FCNTLS: [i32; 14] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// Kinds of sockets other than streams and datagrams: raw ones, and those that make the kernel load a protocol
/// that no one here speaks (SCTP, DCCP), also where the number of the protocol is left open.
const KINDS_REFUSED: [i32; 5] = [
    libc::SOCK_RAW,
    libc::SOCK_RDM,
    libc::SOCK_SEQPACKET,
    libc::SOCK_DCCP,
    10, // SOCK_PACKET, which libc no longer has.
];

/// The levels at which options of a socket are set.
const LEVELS: [i32; 6] = [
    libc::SOL_SOCKET,
    libc::SOL_IP,
    libc::SOL_IPV6,
    libc::SOL_TCP,
    libc::SOL_UDP,
    libc::SOL_NETLINK,
];

/// Options that reach far beyond their socket: the kernel's packet filter, which CAP_NET_ADMIN may rewrite
/// through any socket (`linux/netfilter_ipv{4,6}/ip{,6}_tables.h`), programs in the kernel, other protocols
/// on top of TCP, and connections made up from nothing.
const OPTIONS_REFUSED: [(i32, i32); 9] = [
    (libc::SOL_IPV6, 64), // IP6T_SO_SET_REPLACE
    (libc::SOL_IPV6, 65), // IP6T_SO_SET_ADD_COUNTERS
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
    (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
    (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF),
    (libc::SOL_TCP, libc::TCP_ULP),
    (libc::SOL_TCP, libc::TCP_CONGESTION),
    (libc::SOL_TCP, libc::TCP_REPAIR),
];

/// From here on an option of IPv4 is the packet filter's, ARP's, the bridges' or the load balancer's.
const FIRST_OF_FILTERS: u64 = 64;

/// Rules a call: each is a list of conditions that hold together.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(super) fn restrict(confinement: &mut Confinement) {
    let outcome = match filters() {
        Ok(filters) => filters
            .iter()
            .try_for_each(|filter| apply_filter(filter))
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => confinement.in_force.push(WHAT.to_owned()),
        Err(reason) => confinement.missing.push(format!("{WHAT}: {reason}")),
    }
}

/// In the order in which they are installed: the last one takes away the call that installs them.
fn filters() -> Result<[BpfProgram; 3], BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let program = |rules, otherwise, action| -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(rules, otherwise, action, arch)?.try_into()
    };
    let errno = |errno: Errno| SeccompAction::Errno((errno as i32).unsigned_abs());
    let whatever_the_arguments = |calls: &[&[i64]]| -> Rules {
        calls
            .concat()
            .into_iter()
            .map(|call| (call, vec![]))
            .collect()
    };
    Ok([
        program(
            whatever_the_arguments(&[OUTRAGEOUS]),
            SeccompAction::Allow,
            SeccompAction::KillProcess,
        )?,
        program(refused()?, SeccompAction::Allow, errno(Errno::EPERM))?,
        program(
            whatever_the_arguments(&[ALLOWED, ALLOWED_HERE]),
            errno(Errno::ENOSYS),
            SeccompAction::Allow,
        )?,
    ])
}

/// Allowed calls with arguments that are not.
fn refused() -> Result<Rules, BackendError> {
    let [inet, inet6, netlink, unix] = [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_UNIX,
    ]
    .map(number);
    let [any, tcp, udp] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(number);
    let no_thread = condition(0, SeccompCmpOp::MaskedEq(number(libc::CLONE_THREAD)), 0)?;
    let rules = [
        // Families that are not needed; of netlink all but NETLINK_ROUTE, which is 0; anything below TCP and UDP.
        (libc::SYS_socket, none_of(0, &[inet, inet6, netlink])?),
        (
            libc::SYS_socket,
            [is(0, netlink)?, none_of(2, &[number(libc::NETLINK_ROUTE)])?].concat(),
        ),
        (
            libc::SYS_socket,
            [none_of(0, &[netlink])?, none_of(2, &[any, tcp, udp])?].concat(),
        ),
        // Half of a pair of datagram sockets could send to any socket that has a name.
        (libc::SYS_socketpair, none_of(0, &[unix])?),
        (libc::SYS_socketpair, of_kind(libc::SOCK_DGRAM)?),
        (libc::SYS_ioctl, none_of(1, &IOCTLS)?),
        (libc::SYS_fcntl, none_of(1, &FCNTLS.map(number))?),
        (libc::SYS_setsockopt, none_of(1, &LEVELS.map(number))?),
        (
            libc::SYS_setsockopt,
            [
                is(1, number(libc::SOL_IP))?,
                vec![condition(2, SeccompCmpOp::Ge, FIRST_OF_FILTERS)?],
            ]
            .concat(),
        ),
        // Code from data: pages that can be written and run, at once or one after the other.
        (
            libc::SYS_mmap,
            [has(2, libc::PROT_WRITE)?, has(2, libc::PROT_EXEC)?].concat(),
        ),
        (libc::SYS_mprotect, has(2, libc::PROT_EXEC)?),
        // Another process's limits.
        (libc::SYS_prlimit64, none_of(0, &[0])?),
        (libc::SYS_prctl, none_of(0, &PRCTLS.map(number))?),
        // Threads, but no processes.
        (libc::SYS_clone, vec![no_thread]),
        // `abort` signals the process itself.
        (
            libc::SYS_tgkill,
            none_of(0, &[u64::from(std::process::id())])?,
        ),
    ];
    let kinds = KINDS_REFUSED.map(|kind| {
        let conditions = [none_of(0, &[netlink])?, of_kind(kind)?].concat();
        Ok::<_, BackendError>((libc::SYS_socket, conditions))
    });
    let options = OPTIONS_REFUSED.map(|(level, option)| {
        let conditions = [is(1, number(level))?, is(2, number(option))?].concat();
        Ok((libc::SYS_setsockopt, conditions))
    });
    let mut refused = Rules::new();
    for rule in rules.map(Ok).into_iter().chain(kinds).chain(options) {
        let (call, conditions) = rule?;
        let rule = SeccompRule::new(conditions)?;
        refused.entry(call).or_default().push(rule);
    }
    Ok(refused)
}

/// A non-negative constant of the C library as the kernel compares it.
fn number(constant: i32) -> u64 {
    u64::from(constant.unsigned_abs())
}

/// The conditions that argument number `argument` is none of `values`.
fn none_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompCondition>, BackendError> {
    let is_not = |value: &u64| condition(argument, SeccompCmpOp::Ne, *value);
    values.iter().map(is_not).collect()
}

fn is(argument: u8, value: u64) -> Result<Vec<SeccompCondition>, BackendError> {
    Ok(vec![condition(argument, SeccompCmpOp::Eq, value)?])
}

/// That all bits of `bits` are set in argument number `argument`.
fn has(argument: u8, bits: i32) -> Result<Vec<SeccompCondition>, BackendError> {
    let bits = number(bits);
    Ok(vec![condition(
        argument,
        SeccompCmpOp::MaskedEq(bits),
        bits,
    )?])
}

/// That the second argument of `socket` is `kind`, whatever its flags.
fn of_kind(kind: i32) -> Result<Vec<SeccompCondition>, BackendError> {
    let without_flags = SeccompCmpOp::MaskedEq(0xf);
    Ok(vec![condition(1, without_flags, number(kind))?])
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    // The kernel takes these arguments as `int`: what is above 32 bits is not looked at, here neither.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
