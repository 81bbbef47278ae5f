//! Opens a file and has its header read.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::gguf::{self, Header, Patience};
use super::trust::Strictness;
use super::{BadFile, Installers, split};

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

/// Opens a file, or all parts of one in their order, and reads the headers as one: that of the first with the tensors of all,
/// their places counted on from file to file.
///
/// # Errors
/// One cannot be read, or they do not belong together: [`BadFile::Part`] if one part came alone.
pub(super) fn open_all(
    paths: &[PathBuf],
    patience: Patience<'_>,
) -> Result<(Header, Vec<(File, Metadata)>), BadFile> {
    let Some((first, others)) = paths.split_first() else {
        return Err(BadFile::Incomplete {
            kind: "no file at all".into(),
        });
    };
    let read = |path: &Path| {
        let (file, metadata) = open_regular(path)?;
        let header = gguf::parse(&file, metadata.len(), patience)?;
        let part = split::part(&header)?;
        Ok::<_, BadFile>((header, part, (file, metadata)))
    };
    let (mut header, part, opened) = read(first)?;
    if let Some(part) = part.filter(|_| others.is_empty()) {
        return Err(BadFile::Part(part));
    }
    split::check_number(part, 1, paths.len())?;
    let mut end = opened.1.len();
    let mut files = vec![opened];
    for (path, number) in others.iter().zip(2..) {
        let mut add = || {
            let (next, found, opened) = read(path)?;
            split::check_number(found, number, paths.len())?;
            let behind = end.checked_add(opened.1.len());
            let behind = behind.ok_or_else(|| BadFile::Incomplete {
                kind: "parts of more bytes than can be counted".into(),
            })?;
            header.append(next, end)?;
            end = behind;
            Ok::<_, BadFile>(opened)
        };
        files.push(add().map_err(|cause| cause.in_file(path))?);
    }
    if let Some(part) = part {
        header.check_distinct()?;
        split::check_tensors(part, header.tensors().len())?;
    }
    Ok((header, files))
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
