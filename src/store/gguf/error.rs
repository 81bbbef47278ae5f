//! What can be wrong with a header.

use std::fmt;

/// Characters of a name from the file that an error repeats.
const SHOWN: usize = 80;

/// Starts of files that are taken for models, which an error repeats: web pages, archives. Others it
/// does not, because a link may lead to any file.
const MISTAKEN: [&[u8; 4]; 5] = [b"<htm", b"<HTM", b"<!DO", b"<!do", b"PK\x03\x04"];

/// Why a header was refused: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufError {
    /// The key, the tensor or the part of the header that is wrong, ready to be shown.
    pub place: String,
    pub fault: Fault,
}

/// What was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file starts with something else than `GGUF`.
    NotGguf {
        found: [u8; 4],
    },
    /// Written for big-endian machines.
    BigEndian,
    Version {
        found: u32,
    },
    /// The file ends too early.
    Truncated {
        at: u64,
        wanted: u64,
        length: u64,
    },
    /// The file ends before it should: it was made shorter while it was read.
    Shrunk {
        at: u64,
        length: u64,
    },
    /// The disk has an error.
    Disk {
        reason: String,
    },
    /// It took longer than it may.
    Late,
    /// Nobody wants to know any more.
    Stopped,
    /// The header goes on behind the part of the file that is read.
    HeaderTooLong {
        limit: u64,
    },
    /// A count or a length above its limit.
    TooMany {
        what: &'static str,
        found: u64,
        limit: u64,
    },
    NotUtf8,
    /// An empty key or tensor name.
    NoName,
    /// The second entry of this name.
    Duplicate,
    /// No such type of metadata value.
    UnknownValueType {
        found: u32,
    },
    /// The value has another type than its reader needs.
    WrongType {
        wanted: &'static str,
        found: &'static str,
    },
    /// The number does not fit what its reader needs.
    OutOfRange {
        wanted: &'static str,
        found: i128,
    },
    /// A value that the format allows and a model cannot have.
    NotAllowed {
        found: String,
        wanted: String,
    },
    /// Neither 0 nor 1.
    BadBool {
        found: u8,
    },
    /// A key that must be there is not.
    Missing,
    /// Not a power of two, or absurdly large.
    BadAlignment {
        found: u32,
        limit: u32,
    },
    /// Tensors have one to four dimensions.
    BadRank {
        found: u32,
    },
    /// A dimension of size 0.
    EmptyDimension,
    /// More weights or bytes than can be counted.
    SizeOverflow {
        dims: Vec<u64>,
    },
    /// No such type of tensor, or one that was given up.
    UnknownTensorType {
        found: u32,
    },
    /// Rows must be whole blocks.
    PartialBlock {
        row: u64,
        block: u64,
        of: &'static str,
    },
    Misaligned {
        offset: u64,
        alignment: u64,
    },
    /// The tensor's bytes end behind the file; `end` is `None` when it cannot even be counted.
    OutsideFile {
        end: Option<u64>,
        length: u64,
    },
    /// Two tensors claim the same bytes.
    Overlap {
        with: String,
    },
}

impl std::error::Error for GgufError {}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGguf { found } if MISTAKEN.contains(&found) => write!(
                f,
                "not a GGUF file (it starts with `{}`)",
                found.escape_ascii()
            ),
            Self::NotGguf { .. } => f.write_str("not a GGUF file"),
            Self::BigEndian => {
                f.write_str("a GGUF file for big-endian machines; get the little-endian one")
            }
            Self::Version { found } => {
                write!(f, "GGUF version {found}; versions 2 and 3 can be read")
            }
            Self::Truncated { at, wanted, length } => {
                write!(
                    f,
                    "the file ends too early: {wanted} bytes are needed at {at}, it has {length}; download it again"
                )
            }
            Self::Shrunk { at, length } => write!(
                f,
                "the file was made shorter while it was read: it had {length} bytes and now ends at {at}; \
                 write model files beside and rename them"
            ),
            Self::Disk { reason } => write!(f, "cannot be read: {reason}"),
            Self::Late => {
                f.write_str("takes too long to read; it is tried again with the next scan")
            }
            Self::Stopped => f.write_str("not read to its end"),
            Self::HeaderTooLong { limit } => write!(f, "the header is longer than {limit} bytes"),
            Self::TooMany { what, found, limit } => {
                write!(f, "{found} {what}; at most {limit} are read")
            }
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::NoName => f.write_str("has no name"),
            Self::Duplicate => f.write_str("there twice"),
            Self::UnknownValueType { found } => write!(f, "value type {found} does not exist"),
            Self::WrongType { wanted, found } => write!(f, "a {found} where a {wanted} is needed"),
            Self::OutOfRange { wanted, found } => write!(f, "{found} does not fit into a {wanted}"),
            Self::NotAllowed { found, wanted } => {
                write!(f, "{found}; possible is {wanted}")
            }
            Self::BadBool { found } => write!(f, "{found} is not a truth value"),
            Self::Missing => f.write_str("missing"),
            Self::BadAlignment { found, limit } => {
                write!(f, "{found} is not a power of two up to {limit}")
            }
            of_a_tensor => of_a_tensor.describe_tensor(f),
        }
    }
}

impl Fault {
    /// Of what is wrong with a tensor's shape, type or place.
    fn describe_tensor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRank { found } => write!(f, "{found} dimensions; there can be 1 to 4"),
            Self::EmptyDimension => f.write_str("a dimension is 0"),
            Self::SizeOverflow { dims } => {
                write!(f, "the shape {dims:?} has more weights than can be counted")
            }
            Self::UnknownTensorType { found } => {
                write!(f, "tensor type {found} does not exist, or no longer")
            }
            Self::PartialBlock { row, block, of } => write!(
                f,
                "rows of {row} weights are not whole blocks of {block} ({of})"
            ),
            Self::Misaligned { offset, alignment } => {
                write!(f, "offset {offset} is not a multiple of {alignment}")
            }
            Self::OutsideFile {
                end: Some(end),
                length,
            } => {
                write!(
                    f,
                    "its data ends at {end}, the file has {length} bytes; download it again"
                )
            }
            Self::OutsideFile { end: None, length } => {
                write!(f, "its data lies far outside the file's {length} bytes")
            }
            Self::Overlap { with } => write!(f, "shares bytes with tensor `{with}`"),
            // All others are described by `fmt`.
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// A name from the file as an error may show it: short, and without control characters.
pub(super) fn shown(name: &str) -> String {
    let mut out: String = name
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}
