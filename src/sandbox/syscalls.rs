//! seccomp: the system calls of each kind of worker, and who needs them.
//!
//! A call that is not in its table ends the worker with SIGSYS, and its last line names the call
//! ([`crate::sys::sigsys`]). Rights are compared by what must be absent, so a flag that a later
//! kernel knows is refused. The numbers are those of the architecture that is compiled for, x86-64
//! or aarch64; the names are the same.

use std::collections::BTreeMap;
use std::io;

use libc::{
    CLONE_THREAD, CLONE_VM, O_CLOEXEC, O_LARGEFILE, O_NONBLOCK, PR_SET_NAME, PROT_EXEC, SIGSYS,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use syscalls::Sysno;

use super::Profile;
use crate::sys::sigsys;

/// What is done about a call.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Allow,
    /// Allowed if the argument of this number (from 0) is so.
    If(u8, Argument),
    /// Answered as by a kernel that does not have it: the caller has another way, or does without.
    Refuse,
}

/// 32 bits of an argument.
#[derive(Clone, Copy, Debug)]
enum Argument {
    Is(u32),
    IsNot(u32),
    OneOf(&'static [u32]),
    /// It has all bits of the first, and none beyond those of the second.
    Bits {
        all: u32,
        most: u32,
    },
    /// It has none of these bits.
    Without(u32),
    /// The worker's own process id.
    OwnProcess,
}

use Argument::{Bits, Is, IsNot, OneOf, OwnProcess, Without};
use Rule::{Allow, If, Refuse};

/// Flags of clone(2) that a thread of this process has; all others make processes or name spaces.
const THREAD: u32 = (CLONE_VM | CLONE_THREAD) as u32;
const THREAD_MOST: u32 = THREAD
    | (libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID
        | libc::CLONE_DETACHED) as u32;

/// Commands of fcntl(2) that copy a descriptor or tell about it.
const DESCRIPTOR_COMMANDS: &[u32] = &[
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_GETFL as u32,
];

/// A call, what must hold for it, and who makes it.
type Row = (Sysno, Rule, &'static str);

/// What workers of every kind may call.
const COMMON: &[Row] = &[
    // The channel.
    (Sysno::sendmsg, Allow, "the writers: events"),
    (Sysno::write, Allow, "lines on standard error"),
    (Sysno::close, Allow, "everyone"),
    // Memory.
    (Sysno::brk, Allow, "malloc"),
    (
        Sysno::mmap,
        If(2, Without(PROT_EXEC as u32)),
        "malloc, stacks, model files; nothing that could be run",
    ),
    (
        Sysno::mprotect,
        If(2, Without(PROT_EXEC as u32)),
        "malloc, stacks; nothing that could be run",
    ),
    (Sysno::munmap, Allow, "malloc, stacks"),
    (Sysno::mremap, Allow, "malloc"),
    (
        Sysno::madvise,
        Allow,
        "malloc; residency: what is read and given back",
    ),
    // Locks, and the end.
    (Sysno::futex, Allow, "locks, channels, OpenMP's barriers"),
    (Sysno::gettid, Allow, "abort, ggml"),
    (Sysno::getpid, Allow, "abort"),
    (Sysno::exit, Allow, "a thread's end"),
    (Sysno::exit_group, Allow, "the worker's end"),
    // Signals.
    (Sysno::rt_sigprocmask, Allow, "new threads, abort"),
    (
        Sysno::rt_sigaction,
        If(0, IsNot(SIGSYS as u32)),
        "abort; what names a forbidden call stays in its place",
    ),
    (Sysno::rt_sigreturn, Allow, "the end of a handler"),
    (
        Sysno::sigaltstack,
        Allow,
        "std: the stack on which overflows are told",
    ),
    (Sysno::tgkill, If(0, OwnProcess), "abort; no other process"),
    (Sysno::restart_syscall, Allow, "the kernel, after a stop"),
    // Time and chance.
    (
        Sysno::clock_gettime,
        Allow,
        "where the kernel has no vDSO for it",
    ),
    (Sysno::getrandom, Allow, "hash maps, seeds"),
];

/// What a worker that reads a file may call besides: nothing but the file, through its descriptor.
const EXTRACT: &[Row] = &[
    (Sysno::pread64, Allow, "the file that came"),
    (Sysno::statx, Allow, "std: its size"),
];

/// What a worker that decodes media may call besides: nothing but the two files, through their
/// descriptors.
const DECODE: &[Row] = &[
    (Sysno::pread64, Allow, "the media that came"),
    (Sysno::pwrite64, Allow, "what they become"),
];

/// What a worker that fetches a file may call besides: nothing but its connection.
const FETCH: &[Row] = &[(Sysno::read, Allow, "the connection")];

/// What a worker that pulls a model's file may call besides: nothing but its connection; into its
/// pipe it writes with what all may call.
const PULL: &[Row] = FETCH;

/// What a worker that passes a request on may call besides: nothing but its connection, for which it
/// waits no longer than the supervisor does.
const RELAY: &[Row] = &[
    (Sysno::read, Allow, "the connection"),
    #[cfg(target_arch = "x86_64")]
    (Sysno::poll, Allow, "the connection, and the channel's end"),
    (Sysno::ppoll, Allow, "the same"),
];

/// What a worker that serves a model may call besides.
const SERVE: &[Row] = &[
    // The channel.
    (
        Sysno::recvmsg,
        Allow,
        "the reader: messages of the supervisor",
    ),
    (
        Sysno::writev,
        Allow,
        "llama.cpp's and libstdc++'s lines on standard error",
    ),
    (
        Sysno::shutdown,
        Allow,
        "nobody can reach another socket than the channel",
    ),
    // Files that came with the plan.
    (
        Sysno::read,
        Allow,
        "llama.cpp: the model's header; residency: /proc/self/maps",
    ),
    (Sysno::readv, Allow, "libstdc++: the projector"),
    (
        Sysno::pread64,
        Allow,
        "residency: the end of packed weights, /proc/self/pagemap",
    ),
    (
        Sysno::pwrite64,
        Allow,
        "residency: packed weights, into the file that came",
    ),
    (Sysno::lseek, Allow, "llama.cpp: tensors of the projector"),
    (Sysno::fstat, Allow, "stdio: the size of its buffer"),
    #[cfg(target_arch = "x86_64")]
    (
        Sysno::newfstatat,
        Allow,
        "glibc's fstat; of files elsewhere it tells sizes and dates only",
    ),
    #[cfg(target_arch = "aarch64")]
    (
        Sysno::fstatat,
        Allow,
        "glibc's fstat; of files elsewhere it tells sizes and dates only",
    ),
    (Sysno::statx, Allow, "std: sizes of files"),
    (Sysno::fadvise64, Allow, "residency: reads ahead"),
    (
        Sysno::fsync,
        Allow,
        "the saver: packed weights reach the disk",
    ),
    (
        Sysno::openat,
        If(2, Without(!(O_CLOEXEC | O_LARGEFILE | O_NONBLOCK) as u32)),
        "llama.cpp and libmtmd: the model and the projector through /proc/self/fd; for reading, never making a file",
    ),
    (
        Sysno::fcntl,
        If(1, OneOf(DESCRIPTOR_COMMANDS)),
        "std: copies of descriptors; stdio: how one was opened; no signals (F_SETOWN, F_SETSIG, O_ASYNC)",
    ),
    (Sysno::dup, Allow, "stdio: copies of descriptors"),
    // Memory.
    (
        Sysno::mincore,
        Allow,
        "residency: which experts are in memory already",
    ),
    (Sysno::mlock, Allow, "residency: `lock-weights`"),
    // Threads.
    (
        Sysno::clone,
        If(
            0,
            Bits {
                all: THREAD,
                most: THREAD_MOST,
            },
        ),
        "threads, and no processes",
    ),
    (
        Sysno::clone3,
        Refuse,
        "its flags cannot be looked at; glibc takes clone instead",
    ),
    (Sysno::set_robust_list, Allow, "a new thread"),
    (Sysno::rseq, Allow, "a new thread"),
    (Sysno::set_tid_address, Allow, "a new thread"),
    (Sysno::sched_yield, Allow, "OpenMP's barriers"),
    (
        Sysno::sched_getaffinity,
        Allow,
        "OpenMP: how many CPUs there are",
    ),
    (
        Sysno::prctl,
        If(0, Is(PR_SET_NAME as u32)),
        "std: a thread's name",
    ),
    (Sysno::clock_nanosleep, Allow, "std: sleep"),
    (Sysno::nanosleep, Allow, "libstdc++: sleep"),
    // What is asked, and done without.
    (
        Sysno::prlimit64,
        If(0, Is(0)),
        "glibc: the size of a stack; limits can only go down",
    ),
    (Sysno::sysinfo, Allow, "glibc: how much memory there is"),
    (Sysno::uname, Allow, "glibc, ggml: the kernel's version"),
    (Sysno::getcpu, Allow, "glibc: which arena of memory to take"),
    (
        Sysno::ioctl,
        Refuse,
        "stdio: whether it writes to a terminal; it takes the answer for no",
    ),
    (
        Sysno::readlinkat,
        Refuse,
        "libstdc++: paths of files, for messages",
    ),
    #[cfg(target_arch = "x86_64")]
    (Sysno::readlink, Refuse, "as readlinkat"),
    (
        Sysno::sched_setaffinity,
        Refuse,
        "ggml: the supervisor has chosen the CPUs",
    ),
    (Sysno::sched_setscheduler, Refuse, "ggml: priorities"),
];

impl Profile {
    /// Every call that a worker of this kind may make.
    fn table(self) -> impl Iterator<Item = &'static Row> {
        let own = match self {
            Self::Serve => SERVE,
            Self::Extract => EXTRACT,
            Self::Decode => DECODE,
            Self::Fetch => FETCH,
            Self::Pull => PULL,
            Self::Relay => RELAY,
            Self::Devices => &[],
        };
        COMMON.iter().chain(own)
    }
}

/// Puts a table into force for this thread and all that it starts. `false` where the kernel has
/// no seccomp.
pub fn restrict(profile: Profile) -> io::Result<bool> {
    // qemu's user mode answers like a kernel without.
    if !sigsys::has_seccomp() {
        return Ok(false);
    }
    sigsys::name_forbidden_calls()?;
    for program in programs(profile).map_err(io::Error::other)? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(true)
}

/// The refusals and the table. A filter has one answer beside "allowed", and of several the kernel
/// takes the strictest.
fn programs(profile: Profile) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    let (mut known, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for (call, rule, _) in profile.table() {
        let number = i64::from(call.id());
        let conditions = match *rule {
            If(place, argument) => argument.rules(place)?,
            Allow | Refuse => vec![],
        };
        known.insert(number, conditions);
        if matches!(rule, Refuse) {
            refused.insert(number, vec![]);
        }
    }
    let refusal = SeccompAction::Errno(libc::ENOSYS as u32);
    Ok([
        SeccompFilter::new(refused, SeccompAction::Allow, refusal, target)?.try_into()?,
        SeccompFilter::new(known, SeccompAction::Trap, SeccompAction::Allow, target)?.try_into()?,
    ])
}

impl Argument {
    /// One of these rules must hold.
    fn rules(self, place: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let rule = |operator, value: u32| {
            SeccompRule::new(vec![SeccompCondition::new(
                place,
                Dword,
                operator,
                value.into(),
            )?])
        };
        let masked = |mask: u32, value| rule(SeccompCmpOp::MaskedEq(mask.into()), value);
        match self {
            Is(value) => Ok(vec![rule(SeccompCmpOp::Eq, value)?]),
            IsNot(value) => Ok(vec![rule(SeccompCmpOp::Ne, value)?]),
            OneOf(values) => values
                .iter()
                .map(|value| rule(SeccompCmpOp::Eq, *value))
                .collect(),
            Bits { all, most } => Ok(vec![masked(all | !most, all)?]),
            Without(bits) => Ok(vec![masked(bits, 0)?]),
            OwnProcess => Ok(vec![rule(SeccompCmpOp::Eq, std::process::id())?]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_makes_programs_and_has_no_call_twice() {
        for profile in [
            Profile::Serve,
            Profile::Extract,
            Profile::Decode,
            Profile::Fetch,
            Profile::Pull,
            Profile::Relay,
            Profile::Devices,
        ] {
            let programs = programs(profile).unwrap();
            assert!(programs.iter().all(|program| !program.is_empty()));
            let mut names: Vec<&str> = profile.table().map(|(call, ..)| call.name()).collect();
            let calls = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), calls);
            for never in [
                Sysno::execve,
                Sysno::socket,
                Sysno::connect,
                Sysno::ptrace,
                Sysno::kill,
                Sysno::unlinkat,
                Sysno::renameat2,
            ] {
                assert!(!names.contains(&never.name()), "{profile:?}: {never}");
            }
        }
    }

    #[test]
    fn who_reads_decodes_or_fetches_a_file_opens_none_and_starts_no_thread() {
        for profile in [
            Profile::Extract,
            Profile::Decode,
            Profile::Fetch,
            Profile::Pull,
            Profile::Relay,
            Profile::Devices,
        ] {
            for never in [
                Sysno::openat,
                Sysno::clone,
                Sysno::mlock,
                Sysno::fadvise64,
                Sysno::ftruncate,
                Sysno::recvmsg,
            ] {
                let mut table = profile.table();
                assert!(
                    table.all(|(call, ..)| *call != never),
                    "{profile:?}: {never}"
                );
            }
            let mut table = profile.table();
            let writes = table.any(|(call, ..)| *call == Sysno::pwrite64);
            assert_eq!(writes, profile == Profile::Decode, "{profile:?}");
        }
    }
}
