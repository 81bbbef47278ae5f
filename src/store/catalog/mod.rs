//! What could be had: the published files of the family, and how what somebody types becomes a list of files to fetch.
//!
//! [`Offers`] holds what `models/family.toml` and the catalogs of this machine say. [`resolve()`] finds in them what a name
//! means; of a repository that no catalog names it asks for the list of its files, in which [`choose()`] finds the model and
//! what belongs to it. [`read_all()`] alone touches the disk.

mod address;
mod allow;
mod check;
mod choose;
mod name;
mod offers;
mod parse;
mod read;
mod resolve;
mod source;

pub use allow::Allow;
pub use check::{digest as digest_of, hexadecimal, is_file_name};
pub use choose::{Listed, choose};
pub use name::{all_parts, is_first, part_name, part_of, quantization_of, role_of};
pub use offers::{Entry, Offers};
pub use parse::{CatalogText, Problem, parse};
pub use read::{Broken, Catalogs, Place, read_all};
pub use resolve::{Ask, Machine, Pull, Question, Resolved, Unresolved, With, resolve};
pub use source::Part;

use std::fmt;

use crate::gemma::variant::Variant;

/// A SHA-256.
pub type Digest = [u8; 32];

/// What a file is to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Model,
    /// Lets a model see, and perhaps hear.
    Projector,
    /// Guesses a model's next tokens.
    Drafter,
}

impl Role {
    /// As catalogs and clients write it.
    pub fn id(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Projector => "projector",
            Self::Drafter => "drafter",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// A file in a repository that a catalog names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    pub repository: String,
    pub name: String,
    /// Where the catalog says so, counted from 1.
    line: usize,
}

/// A file that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFile {
    /// Its path in the repository.
    pub name: String,
    pub role: Role,
    /// Its weights' type, as its name has it.
    pub quantization: String,
    /// `None`: the hub knows.
    pub bytes: Option<u64>,
    /// What it hashes to at the repository's revision; `None`: the hub knows.
    pub sha256: Option<Digest>,
    /// What files of this name hashed to at other revisions.
    pub seen: Vec<Digest>,
    /// What belongs to a model.
    pub projector: Option<FileRef>,
    pub drafter: Option<FileRef>,
}

/// A repository that a catalog names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `OWNER/REPO`.
    pub name: String,
    /// A commit, in 40 hexadecimal digits; `None`: the newest, as the hub says.
    pub revision: Option<String>,
    /// Where its files are if not on the hub; ends in `/`.
    pub url: Option<String>,
    pub variant: Variant,
    /// Whether its files come before those of other catalogs for their variant.
    pub preferred: bool,
    pub files: Vec<PublishedFile>,
    line: usize,
}

/// A member of the family that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub name: String,
    pub aliases: Vec<String>,
    /// Follows the name and a colon.
    pub reason: String,
}

/// Where a file is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Hub {
        /// `OWNER/REPO`.
        repository: String,
        /// A commit, or a branch or tag that somebody typed; `None`: the repository's main branch.
        revision: Option<String>,
        /// The file's path in it.
        path: String,
    },
    /// An `https` address, without user or password.
    Url(String),
}

/// A file that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToFetch {
    pub role: Role,
    pub source: Source,
    /// A plain file name to keep it by: no folders, not hidden, ending in `.gguf`.
    pub name: String,
    /// `None`: not known before the server says it.
    pub bytes: Option<u64>,
    /// What it must hash to. `None`: what the hub declares for the revision counts.
    pub sha256: Option<Digest>,
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
