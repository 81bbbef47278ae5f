//! The protocol of a worker that reads one file: it gets the file's descriptor with the request,
//! sends the pages and ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Protocol, WorkerKind};

/// See the module's text. The request is how to read the file.
#[derive(Clone, Copy, Debug)]
pub enum Extract {}

impl Protocol for Extract {
    const KIND: WorkerKind = WorkerKind::Extract;
    type Request = DocumentKind;
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
    /// The page as a PNG, if there is more to be seen than its text says.
    #[serde(with = "serde_bytes")]
    pub picture: Option<Vec<u8>>,
}

/// A page may say as much as a prompt.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Page({} bytes, picture: {})",
            self.text.len(),
            self.picture.is_some()
        )
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Pages that the file has.
    pub pages: u32,
    /// Pages that came, from the first on.
    pub read: u32,
    /// Of them, those that show more than they say, and of which no picture came.
    pub unseen: u32,
    /// The last of them is not whole.
    pub cut: bool,
    /// The encoding of its text, as the WHATWG's standard names it, where a worker found it out.
    pub encoding: Option<String>,
}
