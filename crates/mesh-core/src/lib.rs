//! WireGuard sessions, peers and timers as state machines without I/O.
