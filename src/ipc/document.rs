//! Reading a file and fetching one: the other things that a worker may be started for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::chat::Networks;

/// How to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DocumentKind {
    Html,
    Pdf,
}

/// A page of it; a file without pages is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub text: String,
    /// The page as a PNG, if there is more to be seen than its text says.
    #[serde(with = "serde_bytes")]
    pub picture: Option<Vec<u8>>,
}

/// What it says is nobody's business but the model's.
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

/// What to fetch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// `http` or `https`.
    pub url: String,
    /// From where it may come.
    pub networks: Networks,
    /// Bytes that it may have.
    pub most: u64,
}

/// An address may say as much as a prompt.
impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetch({} bytes at most)", self.most)
    }
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Pages that the file has.
    pub pages: u32,
    /// Pages that came, from the first on.
    pub read: u32,
    /// Of them, those that show more than they say, and of which no picture came.
    pub unseen: u32,
    /// The last of them is not whole.
    pub cut: bool,
}
