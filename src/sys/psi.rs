//! Being woken by the kernel when programs have to wait for a resource (PSI,
//! `Documentation/accounting/psi.rst`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that the kernel makes ready.
#[derive(Debug)]
pub struct PsiTrigger(AsyncFd<File>);

impl PsiTrigger {
    /// Writes what to be woken for into a file like `/proc/pressure/memory`: `some` or `full`, so
    /// many microseconds of waiting, out of so many. Needs tokio.
    pub fn arm(path: &Path, threshold: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(path)?;
        // The kernel takes away the last byte, whatever it is.
        file.write_all(format!("{threshold}\0").as_bytes())?;
        // SAFETY: a `File` has one descriptor, the same for as long as it lives, and nobody else
        // can close it.
        let ready = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
        ready.map(Self).map_err(io::Error::from)
    }

    /// Waits until the kernel says so; for ever, if it will not.
    pub async fn wait(&self) {
        match self.0.ready(Interest::PRIORITY).await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}
