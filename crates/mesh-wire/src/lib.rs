//! Every byte format of the mesh: WireGuard, in-tunnel packets, control messages.
