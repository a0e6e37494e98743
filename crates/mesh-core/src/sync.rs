//! What threads share. In `tests/orders.rs` this module is another one, of which a model checker tries all orders.

pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
