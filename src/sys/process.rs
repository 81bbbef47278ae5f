//! What a process gives up before it touches anything from outside.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mm::Advice;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

use super::proc_maps;

/// Leaves everything that a prompt could be in out of core files, of this process and of those that
/// it starts: what is left is the registers (core(5)).
pub fn keep_memory_out_of_cores() -> io::Result<()> {
    std::fs::write("/proc/self/coredump_filter", "0")
}

/// Keeps every descriptor but the three standard ones from the programs that this process starts:
/// what its parent, or a library, did not mark as its own. Nothing is closed here. Kernels before 5.11
/// cannot.
pub fn keep_descriptors() {
    // SAFETY: it touches no memory and closes nothing; whoever owns a descriptor keeps it. Where the
    // kernel cannot do it everything stays as it was.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Takes the program's code out of this process: what runs again is mapped again, from the page
/// cache if it is still there. Starting takes far more code than waiting.
pub fn give_back_code() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    for line in proc_maps::lines(&proc_maps::read()?) {
        if line.permissions != "r-xp" || line.path != Some(&program) {
            continue;
        }
        let Range { start, end } = line.addresses;
        // SAFETY: code is never written, so the kernel reads from the file what it has given back.
        let _ = unsafe {
            rustix::mm::madvise(start as *mut c_void, end - start, Advice::LinuxDontNeed)
        };
    }
    Ok(())
}

/// What starts a worker of `kind` that reaches the network, and this side of its socket. It has no
/// other descriptor, and of the environment no more than whom the system trusts.
///
/// # Errors
/// There is no room for a socket.
pub fn networked_worker(program: &Path, kind: &str) -> io::Result<(Command, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    keep_descriptors();
    let mut command = Command::new(program);
    command.arg(kind).env_clear();
    // As every program's user may say.
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null());
    Ok((command, ours))
}

/// How much sooner than others the kernel takes a worker when memory runs out, in thousandths of it
/// (proc(5)): the daemon starts it again, smaller.
const OOM_SCORE: &str = "800";

/// Has the kernel take this process before any other when memory runs out. To be called while it is
/// dumpable: afterwards the file is root's.
pub fn be_killed_first() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE)
}

/// Makes the calling process a safe child: it dies with the thread that started it, gains no
/// privilege by `exec`, writes no core file and cannot be traced or read by others of its user. A
/// core file would hold prompts.
pub fn harden_child() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
