//! Whole-system tests: real processes, namespaces and peers.
