//! What the measurements have in common: the inner loops of the data plane, and machines to run them between.
//!
//! The [`loops`] are measured in two ways. `cargo bench --package mesh-benches` takes their time, and
//! `cargo xtask instructions` counts their instructions with callgrind, by the program `mesh-loops`.
//!
//! Must never: measure anything but what the agent itself calls for every packet.

pub mod loops;
pub mod pair;
