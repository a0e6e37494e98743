use std::sync::Arc;

use crate::sync::{AtomicBool, Ordering};

/// A flag that any thread raises for an owner who looks after many: one flag for each, and one that says that there is
/// any.
pub(crate) struct Attention {
    own: AtomicBool,
    any: AnyAttention,
}

/// Whether there is any.
#[derive(Clone, Default)]
pub(crate) struct AnyAttention(Arc<AtomicBool>);

impl AnyAttention {
    /// Another flag.
    pub(crate) fn one(&self) -> Attention {
        Attention {
            own: AtomicBool::new(false),
            any: self.clone(),
        }
    }

    /// Makes the owner look, at none of its flags in particular.
    pub(crate) fn raise(&self) {
        // Not a plain store: who takes the flag sees all that was done before each of several raised it.
        self.0.swap(true, Ordering::AcqRel);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether a flag was raised since the last call. The owner takes this one first: what is raised from then on is
    /// for another look.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Attention {
    pub(crate) fn raise(&self) {
        self.own.store(true, Ordering::Release);
        self.any.raise();
    }

    /// Whether it was raised since the last call.
    pub(crate) fn take(&self) -> bool {
        self.own.load(Ordering::Acquire) && self.own.swap(false, Ordering::AcqRel)
    }
}
