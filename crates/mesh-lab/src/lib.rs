//! Namespaces and fleets of real processes on one machine: the demo, the system tests, the benches.
