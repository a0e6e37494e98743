//! Measurements of what users feel and of the loops that explain it.
