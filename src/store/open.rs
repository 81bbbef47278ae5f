//! Opens a file and has its header read.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::gguf::{self, Header, Patience};
use super::trust::Strictness;
use super::{BadFile, Installers};

/// Whether nobody but these, root and the daemon's own user can change what an absolute path stands
/// for. Blocks on the disk.
pub fn check_trust(path: &Path, installers: &Installers) -> Result<(), BadFile> {
    Ok(Strictness::new(installers).check(path)?)
}

/// Opens a GGUF file and hands its header to `describe`.
pub(super) fn open<T>(
    path: &Path,
    patience: Patience<'_>,
    describe: impl FnOnce(&Header) -> Result<T, BadFile>,
) -> Result<(T, File, Metadata), BadFile> {
    let (file, metadata) = open_regular(path)?;
    let header = gguf::parse(&file, metadata.len(), patience)?;
    let described = describe(&header)?;
    Ok((described, file, metadata))
}

/// Opens a regular file for reading, and nothing else: opening a pipe can wait for ever, and opening
/// some devices does something. So the name is resolved first, and what it stands for is opened once
/// it is known to be a file.
fn open_regular(path: &Path) -> Result<(File, Metadata), BadFile> {
    let named = with_flags(path, OFlags::PATH)?;
    let metadata = named.metadata()?;
    if !metadata.is_file() {
        return Err(BadFile::NotAFile);
    }
    let itself = format!("/proc/self/fd/{}", named.as_raw_fd());
    let file = with_flags(itself.as_ref(), OFlags::NONBLOCK)?;
    Ok((file, metadata))
}

/// The descriptor closes on exec, as all of std's do.
fn with_flags(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
}
