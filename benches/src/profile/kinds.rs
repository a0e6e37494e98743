//! What is done, by the innermost function that says so.

/// A kind of work, and parts of the names of functions that do it.
type Kind = (&'static str, &'static [&'static str]);

/// From the special to the general: the first whose functions are in a stack, innermost first, is what it does.
const KINDS: [Kind; 9] = [
    (
        "the cipher",
        &[
            "aes_gcm", "aes_hw", "aesni", "ghash", "gcm_", "GCM", "chacha20", "poly1305", "_gmult",
            "_ghash", "aead_",
        ],
    ),
    ("checksums", &["csum", "InternetSum", "checksum"]),
    (
        "copies",
        &[
            "copy_user",
            "copy_to_iter",
            "copy_from_iter",
            "memcpy",
            "memmove",
            "copyin",
            "copyout",
            "rep_movs",
            "copy_mc",
            "memset",
            "clear_page",
        ],
    ),
    (
        "memory of packets",
        &[
            "alloc_skb",
            "kmem_cache",
            "page_frag",
            "skb_release",
            "kfree_skb",
            "alloc_pages",
            "free_unref",
            "kmalloc",
            "kfree",
            "skb_free",
            "get_page_from",
            "page_pool",
        ],
    ),
    (
        "threads that wake up and sleep",
        &[
            "schedule",
            "finish_task_switch",
            "try_to_wake_up",
            "ep_poll",
            "epoll",
            "futex",
            "do_poll",
            "poll_",
            "pick_next",
            "dequeue_",
            "enqueue_task",
            "switch_to",
        ],
    ),
    (
        "the kernel's network",
        &[
            "udp", "ip6", "ip_", "dev_", "netif", "tun_", "nf_", "tcp_", "veth", "skb", "sock",
            "napi", "gro_", "gso", "softirq", "neigh", "fib", "ipv6", "inet", "qdisc", "eth_",
            "net_rx", "consume_",
        ],
    ),
    (
        "system calls",
        &[
            "entry_SYSCALL",
            "do_syscall",
            "syscall_",
            "_sys_",
            "fdget",
            "import_iovec",
            "vfs_",
            "ksys_",
            "security_",
            "rw_verify",
            "exit_to_user",
        ],
    ),
    (
        "the agent's own work",
        &[
            "mesh_",
            "core::",
            "alloc::",
            "std::",
            "malloc",
            "free",
            "quinn_udp",
            "arc_swap",
            "hashbrown",
            "tokio",
        ],
    ),
    ("else", &[]),
];

/// The names of all kinds.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// Which of them a stack is, from the outermost function to the innermost.
pub(super) fn of(stack: &[String]) -> usize {
    let last = KINDS.len() - 1;
    let is_of =
        |function: &String, parts: &[&str]| parts.iter().any(|part| function.contains(part));
    // The thread's name is no function.
    let functions = stack.get(1..).unwrap_or_default().iter();
    let kind = |function| {
        KINDS[..last]
            .iter()
            .position(|(_, parts)| is_of(function, parts))
    };
    functions.rev().find_map(kind).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_what_its_innermost_function_does() {
        let kind = |stack: &str| {
            let stack: Vec<String> = stack.split(';').map(str::to_owned).collect();
            names().nth(of(&stack)).unwrap_or_default()
        };
        assert_eq!(
            kind("tun;mesh_agent::open;aes_gcm_dec_kernel"),
            "the cipher"
        );
        assert_eq!(
            kind("tun;mesh_agent::f;entry;tun_get_user;_copy_from_iter"),
            "copies"
        );
        assert_eq!(
            kind("tun;mesh_agent::f;entry;tun_get_user"),
            "the kernel's network"
        );
        assert_eq!(kind("tun;mesh_agent::f;entry_SYSCALL_64"), "system calls");
        assert_eq!(kind("tun;mesh_agent::f"), "the agent's own work");
        assert_eq!(kind("tun"), "else");
    }
}
