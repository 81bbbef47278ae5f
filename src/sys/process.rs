//! What a process gives up before it touches anything from outside.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

/// Leaves everything that a prompt could be in out of core files, of this process and of those that it starts: what is
/// left is the registers (core(5)).
pub fn keep_memory_out_of_cores() -> io::Result<()> {
    std::fs::write("/proc/self/coredump_filter", "0")
}

/// Closes every descriptor but the three standard ones: what a parent, or a parent's library, forgot to close. Kernels
/// before 5.9 cannot. For the first line of a program: nobody in this process may own one of them.
pub fn close_inherited() {
    // SAFETY: it touches no memory. Where the kernel cannot do it everything stays as it was.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Makes the calling process a safe child: it dies with the thread that started it, gains no privilege by
/// `exec`, writes no core file and cannot be traced or read by others of its user. A core file would hold prompts.
pub fn harden_child() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
