//! What the operating system does for a node: TUN, sockets, addresses, routes, privileges, clocks, files.
//!
//! The one home of `cfg(target_os)` and, with mesh-aead, of `unsafe`. It moves data and decides nothing.
