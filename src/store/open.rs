//! Opens a file and has its header read.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::BadFile;
use super::gguf::{self, Header, Patience};

/// Opens a GGUF file and hands its header to `describe`.
pub(super) fn open<T>(
    path: &Path,
    describe: impl FnOnce(&Header) -> Result<T, BadFile>,
) -> Result<(T, File, Metadata), BadFile> {
    // Looked at before it is opened as well as after: opening some devices does something.
    // O_NONBLOCK, which means nothing for regular files, is for a pipe that took the file's place
    // in between.
    if !path.metadata()?.is_file() {
        return Err(BadFile::NotAFile);
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(BadFile::NotAFile);
    }
    let header = gguf::parse(&file, metadata.len(), Patience::default())?;
    let described = describe(&header)?;
    Ok((described, file, metadata))
}
