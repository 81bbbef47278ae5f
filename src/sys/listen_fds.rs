//! Sockets that systemd passed.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// The passed listening sockets (`LISTEN_FDS`), in order, with what systemd calls each. Takes them: a second call finds none.
pub fn listeners() -> io::Result<Vec<(String, UnixListener)>> {
    let passed = passed()?.into_iter();
    Ok(passed
        .map(|(name, fd)| (name, UnixListener::from(fd)))
        .collect())
}

/// The same of sockets for TCP.
///
/// # Errors
///
/// One is a socket for something else.
pub fn tcp_listeners() -> io::Result<Vec<TcpListener>> {
    let listeners = passed()?.into_iter().map(|(_, fd)| TcpListener::from(fd));
    // A socket of another family has no such address.
    listeners
        .map(|listener| listener.local_addr().map(|_| listener))
        .collect()
}

fn passed() -> io::Result<Vec<(String, OwnedFd)>> {
    let passed = sd_notify::listen_fds_with_names()?.collect::<Vec<_>>();
    // SAFETY: `listen_fds_with_names` has checked that these descriptors were passed to this very process, it
    // forgets them, and nothing else in the program knows of them.
    let passed = passed
        .into_iter()
        .map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok(passed.collect())
}
