//! The protocol of a worker that reads one file: it gets the file's descriptor with the request,
//! sends the pages and ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Protocol, WorkerKind};
use crate::chat::BUDGETS;

/// See the module's text. The request is how to read the file.
#[derive(Clone, Copy, Debug)]
pub enum Extract {}

impl Protocol for Extract {
    const KIND: WorkerKind = WorkerKind::Extract;
    type Request = ExtractRequest;
    type Event = ExtractEvent;
    const LARGEST_EVENT: usize = EXTRACT_TEXT + EXTRACT_PICTURES + (64 << 10);
}

/// Bytes of memory that such a worker may use.
pub const EXTRACT_MEMORY: u64 = 384 << 20;

/// Pages of a file, bytes of text, and bytes of pictures of pages that are taken from it. The worker
/// keeps to them; the supervisor takes no more from a worker that does not.
pub const EXTRACT_PAGES: usize = 1000;
pub const EXTRACT_TEXT: usize = 1 << 20;
pub const EXTRACT_PICTURES: usize = 16 << 20;

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtractEvent {
    Page(Page),
    /// There are no more pages. The worker exits after this.
    Read(Extent),
    /// Continues "the file …". The worker exits after this.
    Rejected {
        reason: String,
    },
}

/// How to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractRequest {
    pub kind: DocumentKind,
    pub look: Look,
}

/// How its pages are shown as pictures, those that say less than they show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// How many at most; 0 if the model takes no pictures.
    pub pages: u32,
    /// Tokens of each at most.
    pub tokens: u32,
    /// Tokens that text and pictures may take together: fewer for each page, and then fewer pages,
    /// where they would take more. `None`: all pages, each with `tokens`.
    pub room: Option<u32>,
}

impl Look {
    /// Tokens that a page gets: the largest of these that fits.
    pub const BUDGETS: [u32; 3] = [BUDGETS[2], BUDGETS[3], BUDGETS[4]];

    /// Tokens of a text, as far as its bytes tell: rather too many.
    pub fn tokens_of_text(bytes: usize) -> u32 {
        u32::try_from(bytes / TOKEN_BYTES).unwrap_or(u32::MAX)
    }
}

/// Bytes of text in a token, at least in most texts.
const TOKEN_BYTES: usize = 3;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DocumentKind {
    Html,
    Pdf,
    /// A document in a ZIP archive: docx, xlsx, pptx, OpenDocument, epub.
    Office,
    /// RTF.
    Rich,
    Mail,
    /// Of Jupyter, or text.
    Notebook,
    /// Values between commas or the like, or text.
    Table,
    /// In an encoding that has to be found out, if it is text.
    Text,
}

/// A page of it; a file without pages is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub text: String,
    pub sight: Sight,
}

/// What is to be seen of a page.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sight {
    /// Nothing that its text does not say.
    Told,
    /// Here it is.
    Shown {
        why: Shows,
        /// A PNG or a JPEG.
        #[serde(with = "serde_bytes")]
        picture: Vec<u8>,
    },
    /// Something that its text names, and it is not here.
    Named,
    /// Something, and it is not here.
    Unseen { why: Shows, because: Unseen },
}

impl Sight {
    /// Of a page that names what is not here, if there is anything.
    pub fn of_text(names_unseen: bool) -> Self {
        match names_unseen {
            true => Self::Named,
            false => Self::Told,
        }
    }

    /// The page as a picture.
    pub fn picture(&self) -> Option<&[u8]> {
        match self {
            Self::Shown { picture, .. } => Some(picture),
            Self::Told | Self::Named | Self::Unseen { .. } => None,
        }
    }
}

/// Why a page is to be seen. Shares are in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shows {
    /// It has hardly any text, and something else.
    LittleText,
    /// Pictures and drawings cover this share of it.
    Pictures(u8),
    /// This share of its characters cannot be read.
    Unreadable(u8),
}

/// Why a page is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unseen {
    /// As many others are shown as may be.
    TooMany,
    /// The pictures of the others have as many bytes as they may.
    Bytes,
    /// The model's context has no room for it.
    Context,
    /// The model takes no pictures.
    Blind,
    /// What is to be seen covers a small part of the page.
    Small,
    /// It could not be drawn.
    Undrawn,
}

/// A page may say as much as a prompt.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({} bytes, {:?})", self.text.len(), self.sight)
    }
}

/// … and show as much.
impl fmt::Debug for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told => f.write_str("Told"),
            Self::Named => f.write_str("Named"),
            Self::Shown { why, picture } => write!(f, "Shown({why:?}, {} bytes)", picture.len()),
            Self::Unseen { why, because } => write!(f, "Unseen({why:?}, {because:?})"),
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Pages that the file has.
    pub pages: u32,
    /// Pages that came, from the first on.
    pub read: u32,
    /// Tokens of the picture of a page at most: one of [`BUDGETS`].
    pub budget: u32,
    /// The last of them is not whole.
    pub cut: bool,
    /// The encoding of its text, as the WHATWG's standard names it, where a worker found it out.
    pub encoding: Option<String>,
}
