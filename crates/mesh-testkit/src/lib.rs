//! A simulated network on a virtual clock; only ever a dev-dependency.
