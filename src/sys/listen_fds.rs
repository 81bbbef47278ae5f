//! Sockets that systemd passed.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// The passed listening sockets (`LISTEN_FDS`), in order. Takes them: a second call finds none.
pub fn listeners() -> io::Result<Vec<UnixListener>> {
    let passed = sd_notify::listen_fds()?.collect::<Vec<_>>();
    // SAFETY: `listen_fds` has checked that these descriptors were passed to this very process, it
    // forgets them, and nothing else in the program knows of them.
    let listeners = passed
        .into_iter()
        .map(|fd| UnixListener::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok(listeners.collect())
}
