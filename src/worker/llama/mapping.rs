//! How llama.cpp maps model files: without reading them.
//!
//! llama.cpp (`llama-mmap.cpp`) asks the kernel to read the whole file at once, with `MAP_POPULATE`
//! and `POSIX_MADV_WILLNEED`, and offers no switch for it: from a disk that is gigabytes before the
//! first token, of which most are never needed (weights that lie packed elsewhere, experts that
//! no token uses). The functions below replace libc's in this program and leave those requests out
//! while a model is being loaded. What is read then, and when,
//! `worker/residency` decides.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Linux has the same number for it on every architecture that is served
/// (`asm-generic/mman-common.h`).
const MAP_ANONYMOUS: c_int = 0x20;

thread_local! {
    /// Whether this thread is loading a model.
    static LOADING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `load`; files that it maps are not read ahead.
pub fn without_reading<T>(load: impl FnOnce() -> T) -> T {
    let _loading = Loading::begin();
    load()
}

/// While it lives this thread is loading a model, also when the loading panics.
struct Loading;

impl Loading {
    fn begin() -> Self {
        LOADING.set(true);
        Self
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        LOADING.set(false);
    }
}

/// mmap(2), on 64-bit systems also under its other name.
///
/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    place: *mut c_void,
    bytes: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    let anonymous = flags & MAP_ANONYMOUS != 0;
    let access = ProtFlags::from_bits_retain(access as u32);
    let mut flags = MapFlags::from_bits_retain(flags as u32);
    let mapped = if anonymous {
        // SAFETY: by this function's contract.
        unsafe { rustix::mm::mmap_anonymous(place, bytes, access, flags) }
    } else if file < 0 {
        Err(rustix::io::Errno::BADF)
    } else {
        if LOADING.get() {
            flags.remove(MapFlags::POPULATE);
        }
        // SAFETY: the caller's descriptor is used for this call only; the rest by this function's
        // contract.
        unsafe {
            rustix::mm::mmap(
                place,
                bytes,
                access,
                flags,
                BorrowedFd::borrow_raw(file),
                offset as u64,
            )
        }
    };
    mapped.unwrap_or_else(|error| {
        Errno::from_raw(error.raw_os_error()).set();
        // MAP_FAILED
        std::ptr::without_provenance_mut(usize::MAX)
    })
}

/// See [`mmap64`].
///
/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    place: *mut c_void,
    bytes: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: by this function's contract.
    unsafe { mmap64(place, bytes, access, flags, file, offset) }
}

/// posix_madvise(3).
///
/// # Safety
/// As posix_madvise(3), which never changes what memory holds.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_madvise(place: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    let advice = match advice {
        0 => Advice::Normal,
        1 => Advice::Random,
        2 => Advice::Sequential,
        3 if LOADING.get() => return 0,
        3 => Advice::WillNeed,
        // POSIX_MADV_DONTNEED may not drop anything, and so does nothing in glibc.
        4 => return 0,
        _ => return Errno::EINVAL as c_int,
    };
    // SAFETY: by this function's contract; none of these changes what is held there.
    match unsafe { rustix::mm::madvise(place, bytes, advice) } {
        Ok(()) => 0,
        Err(error) => error.raw_os_error(),
    }
}

#[cfg(all(test, feature = "cpu-variants"))]
mod tests {
    use super::*;

    #[test]
    fn libraries_call_these_functions() {
        for (name, ours) in [
            (c"mmap", mmap as *const c_void),
            (c"posix_madvise", posix_madvise as *const c_void),
        ] {
            // SAFETY: a name that ends in NUL; what is found is only compared.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            assert_eq!(found.cast_const(), ours, "{name:?}");
        }
    }
}
