//! A file system with one file, which can stop to answer (`/dev/fuse`, the protocol of
//! `linux/fuse.h`).
//!
//! While it hangs, requests are not even taken from the kernel, so that a program that waits for
//! one can still be killed, as with NFS. What waits for an answer to a request that was taken
//! cannot be, and no daemon can do anything about that.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::harness::skip::skip;

const ROOT: u64 = 1;
const FILE: u64 = 2;
const IN_HEADER: usize = 40;
const PAUSE: Duration = Duration::from_millis(1);

/// Operations of the protocol.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// A mounted file system; gone when dropped.
pub struct Mount {
    dir: tempfile::TempDir,
    hangs: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Mount {
    /// A directory with one file. `None` where nothing can be mounted here, which is said.
    pub fn new(name: &str, bytes: Vec<u8>) -> Option<Self> {
        let nothing = |reason: String| {
            skip("what a disk that does not answer holds up", reason);
            None
        };
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open("/dev/fuse");
        let device = match device {
            Ok(device) => device,
            Err(error) => return nothing(format!("/dev/fuse cannot be opened: {error}")),
        };
        let dir = tempfile::tempdir().unwrap();
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o"])
            .arg(format!(
                "fd=0,rootmode=40000,user_id={},group_id={}",
                user.as_raw(),
                group.as_raw()
            ))
            .arg("gemmad-test")
            .arg(dir.path())
            .stdin(device.try_clone().unwrap())
            .output();
        match mounted {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return nothing(String::from_utf8_lossy(&output.stderr).trim().to_owned());
            }
            Err(error) => return nothing(format!("mount: {error}")),
        }
        let (hangs, ends) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let server = Server {
            device,
            name: name.to_owned(),
            bytes,
            hangs: hangs.clone(),
            ends: ends.clone(),
        };
        let server = std::thread::spawn(move || server.run());
        Some(Self {
            dir,
            hangs,
            ends,
            server: Some(server),
        })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Answers nothing from now on.
    pub fn hang(&self) {
        self.hangs.store(true, Ordering::Relaxed);
        // What was taken already is answered by then.
        std::thread::sleep(20 * PAUSE);
    }

    /// Answers again, and first what was asked meanwhile.
    pub fn answer(&self) {
        self.hangs.store(false, Ordering::Relaxed);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Without a server what waits is answered with an error.
        self.ends.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        let _ = fs::remove_dir(self.path());
    }
}

struct Server {
    device: File,
    name: String,
    bytes: Vec<u8>,
    hangs: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
}

impl Server {
    fn run(mut self) {
        let mut request = vec![0; 1 << 17];
        while !self.ends.load(Ordering::Relaxed) {
            if self.hangs.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                continue;
            }
            match self.device.read(&mut request) {
                Ok(bytes) => self.serve(&request[..bytes]),
                // ENOENT: a request that was withdrawn while it was read.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound) =>
                {
                    std::thread::sleep(PAUSE);
                }
                // Unmounted.
                Err(_) => return,
            }
        }
    }

    fn serve(&mut self, request: &[u8]) {
        let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
        let (operation, unique, node) = (number(4), long(8), long(16));
        let body = IN_HEADER;
        let answer = match operation {
            FORGET | BATCH_FORGET | INTERRUPT => return,
            INIT => Ok(init()),
            LOOKUP => {
                let name = request[body..].split(|byte| *byte == 0).next().unwrap();
                if node == ROOT && name == self.name.as_bytes() {
                    Ok([&words(&[FILE, 0, 0, 0, 0])[..], &self.attributes(FILE)].concat())
                } else {
                    Err(rustix::io::Errno::NOENT)
                }
            }
            GETATTR => Ok([&words(&[0, 0])[..], &self.attributes(node)].concat()),
            OPEN | OPENDIR => Ok(words(&[0, 0])),
            READ => Ok(part(&self.bytes, long(body + 8), number(body + 16))),
            READDIR => Ok(part(&self.entries(), long(body + 8), number(body + 16))),
            RELEASE | RELEASEDIR | FLUSH => Ok(vec![]),
            _ => Err(rustix::io::Errno::NOSYS),
        };
        let (error, data) = match answer {
            Ok(data) => (0, data),
            Err(error) => (-error.raw_os_error(), vec![]),
        };
        let mut frame = Vec::with_capacity(16 + data.len());
        frame.extend_from_slice(&(16 + data.len() as u32).to_le_bytes());
        frame.extend_from_slice(&error.to_le_bytes());
        frame.extend_from_slice(&unique.to_le_bytes());
        frame.extend_from_slice(&data);
        // It fails where nobody waits for the answer any more.
        let _ = self.device.write(&frame);
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (size, mode) = if node == ROOT {
            (0, 0o40755u32)
        } else {
            (self.bytes.len() as u64, 0o100644)
        };
        let mut attributes = words(&[node, size, size.div_ceil(512), 0, 0, 0]);
        for field in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            attributes.extend_from_slice(&field.to_le_bytes());
        }
        attributes
    }

    /// One `struct fuse_dirent`.
    fn entries(&self) -> Vec<u8> {
        let (name, regular) = (self.name.as_bytes(), 8u32);
        let length = 24 + name.len();
        let mut entry = words(&[FILE, length.next_multiple_of(8) as u64]);
        entry.extend_from_slice(&(name.len() as u32).to_le_bytes());
        entry.extend_from_slice(&regular.to_le_bytes());
        entry.extend_from_slice(name);
        entry.resize(length.next_multiple_of(8), 0);
        entry
    }
}

/// `struct fuse_init_out` of version 7.31, without any option.
fn init() -> Vec<u8> {
    let mut answer = vec![];
    for field in [7u32, 31, 1 << 17, 0, 0, 1 << 16] {
        answer.extend_from_slice(&field.to_le_bytes());
    }
    answer.resize(64, 0);
    answer
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn part(bytes: &[u8], offset: u64, size: u32) -> Vec<u8> {
    let start = (offset as usize).min(bytes.len());
    let end = (start + size as usize).min(bytes.len());
    bytes[start..end].to_vec()
}
