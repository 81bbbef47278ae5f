//! Files in a conversation that are read before the model is asked: text, web pages, PDF, office
//! documents, mails.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Detail;
use super::media::file_bytes;

/// A file as the client sent it. No model reads it as it is: it becomes text and pictures first.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// As the client calls it; empty if it says nothing.
    pub name: String,
    pub source: Source,
    /// How closely pages that are shown are looked at.
    pub detail: Detail,
}

/// Where its bytes are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Here.
    File(#[serde(with = "file_bytes")] Arc<[u8]>),
    /// Among the files that were sent before, under this id.
    Kept(String),
}

/// What a file says is nobody's business but the model's.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(file) => write!(f, "Document({} bytes)", file.len()),
            Source::Kept(id) => write!(f, "Document({id})"),
        }
    }
}
