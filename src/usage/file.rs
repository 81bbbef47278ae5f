//! The file of sums. Only the daemon's user can read it.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::days::Days;
use crate::store::replace::{own_folder, replace};

/// Bytes of the file that are read.
const MOST_BYTES: u64 = 4 << 20;

/// What it has; nothing if there is none, or none that can be used, which is logged.
pub fn read(path: &Path) -> Days {
    let read = || {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = vec![];
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Days::read(&bytes).ok_or_else(|| io::Error::other("it is damaged"))
    };
    match read() {
        Ok(days) => days,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %path.display(), %error, "what was used until now cannot be read; it is counted anew");
            }
            Days::default()
        }
    }
}

/// Writes all of it, in the place of what was there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    own_folder(path)?;
    replace(path, 0o600, bytes)
}
