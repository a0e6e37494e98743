//! How the C library keeps memory for the program.

/// What is larger than this is memory of its own, which goes back to the system with it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 128 * 1024;

/// Makes large buffers go back to the system when they are freed. The GNU library begins so, and then learns from each
/// that is freed to keep others of its size: a QUIC endpoint's 3 MB would stay with the program, and be touched as a
/// whole when they are used again.
///
/// To be called while there is one thread.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a number of the allocator, which no other thread uses yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
