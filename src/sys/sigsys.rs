//! What happens when a process makes a system call that its seccomp filter forbids.

use std::ffi::{c_int, c_void};
use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use syscalls::Sysno;

/// Where the number lies in `siginfo_t` (`_sigsys._syscall` in `asm-generic/siginfo.h`, on 64-bit
/// systems).
const NUMBER: usize = 24;

/// Whether the kernel has seccomp.
pub fn has_seccomp() -> bool {
    // SAFETY: it only asks.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) >= 0 }
}

/// From now on a forbidden call is named on standard error before it ends the process with SIGSYS.
pub fn name_forbidden_calls() -> io::Result<()> {
    // The second time it comes nobody is asked.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::SigAction(on_violation), flags, SigSet::empty());
    // SAFETY: the handler calls nothing that a handler must not call.
    unsafe { sigaction(Signal::SIGSYS, &action)? };
    Ok(())
}

extern "C" fn on_violation(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a whole `siginfo_t`, and for this signal the number lies there.
    let number = unsafe {
        info.cast::<u8>()
            .add(NUMBER)
            .cast::<c_int>()
            .read_unaligned()
    };
    let name = usize::try_from(number)
        .ok()
        .and_then(Sysno::new)
        .map_or("an unknown system call", |call| call.name());
    for part in [
        "gemmad-worker made a system call that it must not make: ",
        name,
        "\n",
    ] {
        // SAFETY: write(2) may be called in a handler, and the bytes are there.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: raise(3) may be called in a handler. Its own handler is gone, so it ends the process.
    unsafe { libc::raise(libc::SIGSYS) };
}
