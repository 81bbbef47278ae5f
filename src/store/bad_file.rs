//! Why a file cannot be used, ready to be shown.

use std::fmt;
use std::io;
use std::path::Path;

use super::Part;
use super::architecture;
use super::gguf::GgufError;
use super::trust::{Distrust, Refusal};
use crate::sys::accounts;

/// Why a file is not a model.
#[derive(Debug)]
pub enum BadFile {
    /// It cannot be opened or mapped.
    Unreadable(io::Error),
    /// A directory, a pipe, a device.
    NotAFile,
    /// Somebody who may not install models may change it.
    Distrust(Distrust),
    /// Not a GGUF file, or a damaged one.
    Header(GgufError),
    /// A GGUF file of another family.
    OtherArchitecture { found: String },
    /// Fine where it is, but no model by itself.
    Projector,
    /// Likewise.
    Drafter,
    /// A projector or a drafter that was cut into so many parts.
    CutCompanion { role: &'static str, of: usize },
    /// A projector of another family, or one that is not for pictures; says what it has instead.
    OtherProjector { found: String },
    /// A drafter that lacks something, or of another form; says what it has instead.
    OtherDrafter { found: String },
    /// One file of several that a model was cut into, without the others.
    Part(Part),
    /// Such a file by another name than that of a part.
    Misnamed(Part),
    /// What is wrong with one of the parts that belong together.
    InPart { name: String, cause: Box<BadFile> },
    /// An adapter, a tokenizer alone, or the like.
    Incomplete { kind: String },
    /// It splits text into tokens in another way than the family.
    OtherTokenizer { found: String },
    /// Its vocabulary cannot be used.
    Vocabulary { reason: String },
}

impl std::error::Error for BadFile {}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let own = rustix::process::geteuid().as_raw();
                let user = accounts::user_name(own);
                write!(f, "cannot be read by the daemon's user {user}: {error}")
            }
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::Distrust(distrust) => distrust.fmt(f),
            Self::Header(error) => error.fmt(f),
            Self::OtherArchitecture { found } => write!(
                f,
                "a model of architecture `{found}`; only `{}` is served",
                architecture::MODEL
            ),
            Self::Projector => f.write_str("a projector, which belongs to a model and is none"),
            Self::Drafter => f.write_str("a drafter, which belongs to a model and is none"),
            Self::CutCompanion { role, of } => write!(
                f,
                "a {role} in {of} parts, and a {role} is read from one file only: `llama-gguf-split --merge FIRST-PART NAME.gguf` joins them"
            ),
            Self::OtherProjector { found } => {
                write!(
                    f,
                    "not a projector for Gemma 4's pictures, which are of kind `gemma4v` or `gemma4uv`: it has {found}"
                )
            }
            Self::OtherDrafter { found } => write!(
                f,
                "not a drafter of the form that llama.cpp reads (architecture `{}`): it has {found}; download or convert it again",
                architecture::DRAFTER
            ),
            Self::Part(Part { number, of, .. }) => {
                write!(f, "part {number} of {of} of a model, without the others")
            }
            Self::Misnamed(Part { number, of, .. }) => write!(
                f,
                "part {number} of {of} of a model, and not called so; call it `NAME-{number:05}-of-{of:05}.gguf`, and the other parts alike"
            ),
            Self::InPart { name, cause } => write!(f, "{name}: {cause}"),
            Self::Incomplete { kind } => write!(f, "not a whole model but {kind}"),
            Self::OtherTokenizer { found } => write!(
                f,
                "a tokenizer `{found}`; the family's is `gemma4`: convert the model anew"
            ),
            Self::Vocabulary { reason } => write!(f, "a vocabulary that cannot be used: {reason}"),
        }
    }
}

impl BadFile {
    /// Says in which of several files it is.
    pub(super) fn in_file(self, path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self::InPart {
            name: name.to_string_lossy().into_owned(),
            cause: Box::new(self),
        }
    }

    /// Whether a directory of which this is said is there, and what it holds is not seen.
    pub(super) fn hides_what_is_there(&self) -> bool {
        match self {
            Self::Distrust(_) => true,
            Self::Unreadable(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

impl From<GgufError> for BadFile {
    fn from(error: GgufError) -> Self {
        Self::Header(error)
    }
}

impl From<io::Error> for BadFile {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Refusal> for BadFile {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Distrust(distrust) => Self::Distrust(distrust),
            Refusal::Unreadable(error) => Self::Unreadable(error),
        }
    }
}
