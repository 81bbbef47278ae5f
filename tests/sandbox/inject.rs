//! Makes a thread of another process enter a system call of our choosing, with ptrace(2).

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use libc::{c_long, c_void, pid_t, user_regs_struct};
use syscalls::Sysno;

/// Bytes of x86-64's `syscall` instruction.
const INSTRUCTION: u64 = 2;
/// Below the stack pointer, out of reach of what the ABI lets a function use there.
const SCRATCH: u64 = 4096;

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Returned(u64),
    Failed(i32),
    /// The process got this signal instead.
    Signal(i32),
}

/// A stopped thread; it goes on where it was when this is dropped.
pub struct Stopped {
    thread: pid_t,
    before: user_regs_struct,
    memory: File,
}

impl Stopped {
    /// Stops a thread that waits inside a system call.
    pub fn attach(thread: u32) -> io::Result<Self> {
        let thread = thread as pid_t;
        request(libc::PTRACE_ATTACH, thread, 0)?;
        assert_eq!(wait(thread), libc::SIGSTOP);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{thread}/mem"))?;
        let stopped = Self {
            thread,
            before: registers(thread)?,
            memory,
        };
        let mut instruction = [0; INSTRUCTION as usize];
        stopped
            .memory
            .read_exact_at(&mut instruction, stopped.before.rip - INSTRUCTION)?;
        assert_eq!(
            instruction,
            [0x0f, 0x05],
            "the thread is not inside a system call"
        );
        Ok(stopped)
    }

    /// Puts bytes where calls can point to.
    pub fn write(&self, bytes: &[u8]) -> u64 {
        let place = self.before.rsp - SCRATCH;
        self.memory.write_all_at(bytes, place).unwrap();
        place
    }

    /// Enters the call and says what became of it; a signal is withheld.
    pub fn call(&self, call: Sysno, arguments: [u64; 6]) -> Outcome {
        self.enter(call, arguments, libc::PTRACE_SINGLESTEP)
            .unwrap();
        match wait(self.thread) {
            libc::SIGTRAP => match registers(self.thread).unwrap().rax as i64 {
                error @ -4095..0 => Outcome::Failed(-error as i32),
                value => Outcome::Returned(value as u64),
            },
            signal => {
                // The step's own signal may still come, and is not the next call's.
                loop {
                    self.enter(Sysno::getpid, [0; 6], libc::PTRACE_SINGLESTEP)
                        .unwrap();
                    wait(self.thread);
                    if registers(self.thread).unwrap().rax != Sysno::getpid.id() as u64 {
                        return Outcome::Signal(signal);
                    }
                }
            }
        }
    }

    /// Enters the call and lets the process live or die by it.
    pub fn call_and_let_go(self, call: Sysno, arguments: [u64; 6]) {
        self.enter(call, arguments, libc::PTRACE_CONT).unwrap();
        let signal = wait(self.thread);
        request(libc::PTRACE_DETACH, self.thread, signal as usize).unwrap();
        std::mem::forget(self);
    }

    fn enter(&self, call: Sysno, [a, b, c, d, e, f]: [u64; 6], go: libc::c_uint) -> io::Result<()> {
        let mut registers = self.before;
        registers.rip -= INSTRUCTION;
        registers.rax = call.id() as u64;
        // Not inside a call any more, so none is begun again.
        registers.orig_rax = u64::MAX;
        (registers.rdi, registers.rsi, registers.rdx) = (a, b, c);
        (registers.r10, registers.r8, registers.r9) = (d, e, f);
        set_registers(self.thread, &registers)?;
        request(go, self.thread, 0)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // As it was, the kernel begins the interrupted call again.
        let _ = set_registers(self.thread, &self.before);
        let _ = request(libc::PTRACE_DETACH, self.thread, 0);
    }
}

fn request(what: libc::c_uint, thread: pid_t, data: usize) -> io::Result<()> {
    // SAFETY: none of the requests that are made here touches this process's memory.
    done(unsafe { libc::ptrace(what, thread, null_mut::<c_void>(), data as *mut c_void) })
}

fn registers(thread: pid_t) -> io::Result<user_regs_struct> {
    // SAFETY: plain data, which the kernel fills.
    let mut registers: user_regs_struct = unsafe { zeroed() };
    // SAFETY: the structure is the one that this request fills.
    done(unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGS,
            thread,
            null_mut::<c_void>(),
            &raw mut registers,
        )
    })?;
    Ok(registers)
}

fn set_registers(thread: pid_t, registers: &user_regs_struct) -> io::Result<()> {
    // SAFETY: the structure is the one that this request reads.
    done(unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGS,
            thread,
            null_mut::<c_void>(),
            std::ptr::from_ref(registers),
        )
    })
}

fn done(result: c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The signal with which the thread stops.
fn wait(thread: pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes the status, and nothing else.
    let found = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    assert!(
        found == thread && libc::WIFSTOPPED(status),
        "{found} {status:x}"
    );
    libc::WSTOPSIG(status)
}
