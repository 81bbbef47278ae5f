//! What is told of files that come into a model directory, leave it, or are hashed again.

use tokio::sync::{mpsc, oneshot};

use super::Failure;

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPart {
    /// `model`, `projector` or `drafter`
    pub role: &'static str,
    /// Its own name.
    pub file: String,
    pub bytes: u64,
}

/// A file that is being taken in.
#[derive(Debug)]
pub struct Import {
    /// Takes its bytes, in order; dropped when all have come.
    pub pieces: mpsc::Sender<Vec<u8>>,
    /// What became of it; comes early if nothing does.
    pub outcome: oneshot::Receiver<Result<Imported, Failure>>,
}

/// A file that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What it is called, if it is a model.
    pub id: String,
    /// Its path.
    pub file: String,
    pub role: &'static str,
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: Option<String>,
}

/// A model that was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub id: String,
    /// The paths of its files.
    pub files: Vec<String>,
    /// Bytes that they had.
    pub bytes: u64,
}

/// A file that was hashed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedFile {
    pub role: &'static str,
    /// Its path.
    pub file: String,
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
    pub verdict: Verdict,
}

/// What a hash says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be; `what` that is.
    Matches { what: String },
    /// It is not.
    Differs { expected: String, what: String },
    /// Nobody knows what it should be.
    Unknown,
}

/// Whose fault it is that a file is not taken in or away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The file's, or its name's.
    BadFile,
    /// There is another one of that name.
    Exists,
    /// The disk has no room.
    Full,
    /// The disk refuses otherwise.
    Disk,
}

/// Something on the disk that serves no installed model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    pub kind: UnusedKind,
    pub name: String,
    pub bytes: u64,
}

/// What it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnusedKind {
    /// A model that is gone, or another file now.
    PackedWeights,
    /// A download that failed and nobody goes on with.
    Download,
}

/// How far the hashing of a model's files is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The model's id; empty before it is known.
    pub model: String,
    /// The file that is read.
    pub file: String,
    /// Bytes of all files that were read, and that there are.
    pub read: u64,
    pub bytes: u64,
}
