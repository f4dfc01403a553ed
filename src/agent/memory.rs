//! Memory that a cycle needed, given back while the daemon rests.

/// Gives the system what is free inside the heap. glibc does so by itself only at the end of the heap, where one small piece
/// that lives on keeps all that lies before it: a daemon would stay as large as its largest cycle was.
pub fn give_back() {
    // SAFETY: malloc_trim takes a number of bytes to keep and has no conditions (malloc_trim(3)); what is in use stays as it is.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
