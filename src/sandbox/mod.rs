//! What a worker may still do once it has its files: compute, and talk over the channel that it
//! has.
//!
//! The worker confines itself, before it looks into a file and before it starts a thread, so that
//! everything inherits it. What a kernel does not have is left out and said; nothing here can be
//! taken back.
//!
//! | layer | what it takes away |
//! |---|---|
//! | seccomp ([`syscalls`]) | every system call that is not in the table of the worker's kind: sockets, programs, processes, new files |
//! | Landlock ([`files`]) | every file but those that came, and what the kernel says of the process itself |
//! | limits | core files, descriptors beyond a few, files larger than packed weights can be |
//! | [`crate::sys::process::harden_child`] | privileges by `exec`, being traced, outliving the supervisor |

mod files;
pub mod syscalls;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::process::{Resource, Rlimit};

/// Descriptors that may be open together: a worker needs about twenty, and one that serves one more
/// for each request with pictures or sounds that it has.
const DESCRIPTORS: u64 = 512;

/// What of this a kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The version of Landlock's interface.
    pub landlock_abi: Option<u32>,
    pub seccomp: bool,
}

impl Support {
    /// The running kernel's. A worker that cannot be confined as far as that does not start.
    pub fn of_kernel() -> Self {
        // Filters are a part of it wherever the kernel lists what they may do
        // (`Documentation/userspace-api/seccomp_filter.rst`).
        let seccomp = Path::new("/proc/sys/kernel/seccomp/actions_avail").exists();
        Self {
            landlock_abi: crate::sys::landlock::abi(),
            seccomp,
        }
    }
}

/// What a worker does, and so which system calls it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Serves a model.
    Serve,
    /// Reads one file whose descriptor it has.
    Extract,
    /// Decodes the pictures and sounds of one request, from one file into another, whose descriptors
    /// it has.
    Decode,
    /// Fetches one file over the connection that it has.
    Fetch,
    /// Fetches a part of a model's file over the connection that it has, into a pipe.
    Pull,
    /// Sends a request over the connection that it has, and passes on the answer.
    Relay,
    /// Says what devices there are, which it has found out.
    Devices,
}

/// What a worker needs beyond its memory and its channel.
#[derive(Debug)]
pub struct Needs<'a> {
    pub profile: Profile,
    /// Files that may be opened once more through `/proc/self/fd`, for reading.
    pub files: &'a [BorrowedFd<'a>],
    /// Bytes that a file may grow to.
    pub largest_file: u64,
    /// Bytes of memory that may be written to: whoever sent the input decides how much is wanted.
    pub memory: Option<u64>,
    /// Seconds of a CPU, likewise.
    pub cpu_seconds: Option<u64>,
}

/// Confines the calling thread and all that it starts. Says what this kernel does not have.
pub fn confine(needs: &Needs<'_>) -> io::Result<Vec<&'static str>> {
    if cfg!(asan) {
        return Ok(vec![
            "AddressSanitizer cannot be confined; this worker is for tests",
        ]);
    }
    limit(Resource::Nofile, DESCRIPTORS)?;
    limit(Resource::Fsize, needs.largest_file)?;
    if let Some(memory) = needs.memory {
        limit(Resource::Data, memory)?;
    }
    if let Some(seconds) = needs.cpu_seconds {
        // At the first limit it ends by SIGXCPU. The second, which would end it by SIGKILL as an
        // administrator does, is never reached.
        limits(Resource::Cpu, seconds, seconds + 1)?;
    }
    let mut missing = vec![];
    if !files::restrict(needs.files)? {
        missing.push("this kernel has no Landlock, so the worker may read what its user may read");
    }
    // rustix asks the kernel for it once, in a way that is not in the table.
    rustix::param::page_size();
    // Last: what is above needs system calls that the table does not have.
    if !syscalls::restrict(needs.profile)? {
        missing.push("this kernel has no seccomp, so the worker may make every system call");
    }
    Ok(missing)
}

/// Both limits, as far as the present ones allow.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    limits(resource, most, most)
}

/// The limit that counts and the one that it cannot be raised beyond, as far as the present ones allow.
fn limits(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let present = rustix::process::getrlimit(resource).maximum;
    let allowed = |most: u64| Some(present.map_or(most, |present| present.min(most)));
    Ok(rustix::process::setrlimit(
        resource,
        Rlimit {
            current: allowed(soft),
            maximum: allowed(hard),
        },
    )?)
}
