//! Waits for changes of the files in a folder (inotify(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for some events; a name has 255 bytes at most.
const EVENTS: usize = 4096;

/// Watched folders.
#[derive(Debug)]
pub struct FolderWatch(AsyncFd<OwnedFd>);

impl FolderWatch {
    /// Watches what can be watched of them. Needs tokio.
    pub fn new<'a>(folders: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let news = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        for folder in folders {
            // One that is not there yet, or that we may not read, is like an empty one.
            let _ = inotify::add_watch(&fd, folder, news);
        }
        // SAFETY: an `OwnedFd` has one descriptor, the same for as long as it lives, and nobody
        // else can close it.
        let ready = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        ready.map(Self).map_err(io::Error::from)
    }

    /// Waits until a file came, went, or was written to its end. What happened meanwhile is told
    /// once.
    pub async fn change(&self) {
        let Ok(mut guard) = self.0.ready(Interest::READABLE).await else {
            return std::future::pending().await;
        };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(self.0.get_ref(), &mut room);
        while events.next().is_ok() {}
        guard.clear_ready();
    }
}
