//! The inventory, its resolution, the signed roster, and the difference of two of them.

pub mod roster;
