//! What glibc's allocator keeps of the memory that a program has freed.

/// Bytes from which on a block has a map of its own, which goes back to the system when it is freed.
const MAP_THRESHOLD: libc::c_int = 128 << 10;

/// Keeps large blocks in maps of their own. By itself glibc raises the size from which on they are,
/// up to 32 MiB, each time that one is freed, and keeps those that are smaller.
pub fn keep_large_blocks_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, under the allocator's own lock, and touches no
    // block.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_THRESHOLD);
    }
}

/// Gives memory that was freed back to the system: by itself glibc keeps it for later. Takes time in
/// proportion to what is there.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: safe to call at any time from any thread; it touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
