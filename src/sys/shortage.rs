//! What the system has no more of, and may have again soon.

use std::io;

use rustix::io::Errno;

/// Whether the system had no descriptor, process or memory left: what was to be started or opened is
/// not at fault, and it may be tried again.
pub fn is_shortage(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
    // An error that was put into words has its kind alone.
    Errno::from_io_error(error).is_some_and(|error| short.contains(&error))
        || error.kind() == io::ErrorKind::WouldBlock
}
