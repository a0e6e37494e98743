//! What the operating system does for a node: TUN, sockets, addresses, routes, privileges, clocks.
