//! What was known of a file when it came: beside it, in a hidden file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::catalog::{Digest, digest_of, hexadecimal};
use super::replace::replace;

/// The largest record, in bytes.
const LARGEST: u64 = 16 << 10;
/// Everyone may read it, as the file itself.
const MODE: u32 = 0o644;

/// What a file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub sha256: Digest,
    pub bytes: u64,
    /// Where it was fetched from; `None`: it was brought.
    pub source: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    sha256: String,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

/// `.NAME.json` beside NAME.
fn path_of(file: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name()?);
    name.push(".json");
    Some(file.with_file_name(name))
}

/// What is recorded of a file, if that can be read and understood. What others say of it than root,
/// the daemon's user and the file's owner is no record.
pub fn read(file: &Path) -> Option<Record> {
    let mut text = String::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let record = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path_of(file)?)
        .ok()?;
    let metadata = record.metadata().ok()?;
    let believed = [
        0,
        rustix::process::geteuid().as_raw(),
        file.metadata().ok()?.uid(),
    ];
    if !metadata.is_file() || !believed.contains(&metadata.uid()) {
        return None;
    }
    record.take(LARGEST).read_to_string(&mut text).ok()?;
    let written: Written = serde_json::from_str(&text).ok()?;
    Some(Record {
        sha256: digest_of(&written.sha256)?,
        bytes: written.bytes,
        source: written.source,
    })
}

/// Records what a file is, whole or not at all.
///
/// # Errors
/// The folder cannot be written.
pub fn write(file: &Path, record: &Record) -> io::Result<()> {
    let path = path_of(file).ok_or_else(|| io::Error::other("it has no name"))?;
    let written = Written {
        sha256: hexadecimal(&record.sha256),
        bytes: record.bytes,
        source: record.source.clone(),
    };
    replace(&path, MODE, serde_json::to_string(&written)?.as_bytes())
}

/// Forgets a file that is gone.
pub fn remove(file: &Path) {
    if let Some(path) = path_of(file) {
        let _ = fs::remove_file(path);
    }
}
