//! Model files: which there are, what they are, and whether they can be trusted so far.
//!
//! [`Scan`] looks through a model directory; [`read()`] opens one model's files and checks their headers,
//! [`inspect()`] with all that loading needs to know;
//! [`read_projector()`] does so for what lets a model see and [`read_drafter()`] for what guesses
//! its next tokens. [`PackedCache`] keeps what the worker makes of weights, and a
//! [`SealedFile`] what nobody else may read, a [`RetainedFile`] what of that outlives the process. All touch the disk and
//! so may block. None keeps a header: what is known of a model afterwards is a [`Model`].

mod architecture;
mod bad_file;
mod bounds;
mod cache;
pub mod catalog;
mod companion;
mod drafter;
pub mod family;
mod figures;
mod fingerprint;
pub mod gguf;
mod inspect;
pub mod install;
pub mod metadata;
mod open;
pub mod partial;
mod pieces;
mod projector;
mod quantization;
pub mod record;
pub mod replace;
mod retained;
mod scan;
mod sealed;
mod split;
mod trust;
mod vocabulary;
mod way;

pub use architecture::is_known as is_known_architecture;
pub use bad_file::BadFile;
pub use cache::{CacheSpace, PackedCache, PackedFile, PackedName, free_bytes};
pub use drafter::{CacheRows, Clustered, Drafter, read_drafter};
pub use gguf::Patience;
pub use inspect::{OpenModel, id as model_id, inspect, read, read_part};
pub use open::check_trust;
pub use projector::{Projector, read_projector};
pub use retained::{RetainedFile, RetainedWriter, Secret};
pub use scan::{Scan, Scanned, Surroundings, surroundings};
pub use sealed::{SealedFile, SealedStore, SealedWriter};
pub use trust::Installers;
pub use vocabulary::read_vocabulary;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::gemma::model_shape::ModelShape;
use crate::gemma::variant::Variant;

/// Tells one state of a file from another: its device and inode, and when it last changed
/// (nanoseconds; ctime, which nobody can set).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    pub device: u64,
    pub inode: u64,
    pub changed: i128,
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        let seconds = i128::from(metadata.ctime());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: seconds * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        }
    }
}

/// An installed model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What clients call it: the file's name without `.gguf` and without the number of a part, in lower case, other characters
    /// than `a-z 0-9 . _ -` as `-`.
    pub id: String,
    /// The file that it lies in, or its parts in their order; at least one.
    pub files: Vec<StoredFile>,
    /// Unix seconds of the files' last change.
    pub created: u64,
    /// From the header.
    pub variant: Variant,
    /// What the header calls it; empty if it does not say.
    pub name: String,
    /// Width of the hidden state.
    pub width: u32,
    /// Tokens the model was made for.
    pub context_limit: u32,
    /// Weights' type as the header names it: `Q4_0`, `Q8_0`, …
    pub quantization: String,
    /// What it takes in memory.
    pub figures: ModelShape,
    /// What a drafter reads of its cache.
    pub cache_rows: CacheRows,
    /// What lets it see, and perhaps hear, if that lies beside it.
    pub projector: Option<Projector>,
    /// What guesses its next tokens, if that lies beside it.
    pub drafter: Option<Drafter>,
}

/// One of the files that a model lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    pub path: PathBuf,
    pub bytes: u64,
    pub identity: FileIdentity,
}

impl Model {
    /// The first of its files: it stands for all of them.
    pub fn path(&self) -> &Path {
        self.files
            .first()
            .map_or(Path::new(""), |file| file.path.as_path())
    }

    /// Where its files are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    /// Bytes of each of its files.
    pub fn sizes(&self) -> Vec<u64> {
        self.files.iter().map(|file| file.bytes).collect()
    }

    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Tells whether a byte of any of its files may have changed.
    pub fn identity(&self) -> Vec<FileIdentity> {
        self.files.iter().map(|file| file.identity).collect()
    }

    /// Whether pictures can be shown to it.
    pub fn accepts_image(&self) -> bool {
        self.projector.is_some()
    }

    /// Whether sounds can be played to it.
    pub fn accepts_audio(&self) -> bool {
        self.projector
            .as_ref()
            .is_some_and(|projector| projector.hearing.is_some())
    }
}

#[cfg(test)]
impl Model {
    /// Some model, in a file that is not there.
    pub(crate) fn example(path: &str) -> Self {
        Self {
            id: inspect::id(path.as_ref()),
            files: vec![StoredFile {
                path: path.into(),
                bytes: 1,
                identity: FileIdentity::default(),
            }],
            created: 0,
            variant: Variant::E2b,
            name: String::new(),
            width: 128,
            context_limit: 4096,
            quantization: "Q8_0".into(),
            figures: ModelShape::default(),
            cache_rows: CacheRows::default(),
            projector: None,
            drafter: None,
        }
    }
}

/// What the header says of a file that is one of several parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1 to `of`.
    pub number: u32,
    pub of: u32,
    /// Tensors of all parts together.
    tensors: u32,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Sorted by id; no id twice.
    pub models: Vec<Model>,
    /// What looked like a model and is none, in the order in which it was found.
    pub rejected: Vec<Rejected>,
}

/// A file that cannot be used, or a directory that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub path: PathBuf,
    /// Ready to be shown behind the path.
    pub reason: String,
    /// A directory in which there may be models that were not looked at.
    pub hides: bool,
}

impl Rejected {
    fn file(path: &Path, reason: String) -> Self {
        Self {
            path: path.to_owned(),
            reason,
            hides: false,
        }
    }
}
