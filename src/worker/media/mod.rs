//! Pictures: from a client's file to what the model reads. Everything here is computed off the llama thread.

pub mod decode;
mod view;

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use view::{Job, Lens, Seen, Viewer};

use super::sequence::Digest;
use crate::chat::{ChatError, Detail, Picture};
use crate::gemma::picture::{self, Size};

/// A picture whose header was read: how it will be shown is known.
#[derive(Debug)]
pub struct Sight {
    file: Arc<[u8]>,
    pub size: Size,
    /// Where the conversation has it.
    message: usize,
    part: usize,
}

impl Sight {
    /// Reads the picture's header.
    pub fn of(picture: &Picture, message: usize, part: usize) -> Result<Self, ChatError> {
        let (width, height) = decode::dimensions(&picture.file).map_err(|reason| refusal(message, part, reason))?;
        let size = picture::size(width, height, picture::budget(picture.detail, width, height));
        Ok(Self { file: picture.file.clone(), size, message, part })
    }

    pub fn tokens(&self) -> usize {
        self.size.tokens() as usize
    }

    /// The same for the same file at the same size, and for nothing else.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.size.width.to_le_bytes());
        hash.update(self.size.height.to_le_bytes());
        hash.update(&self.file);
        hash.finalize().into()
    }

    /// An error about this picture.
    pub fn refuse(&self, reason: String) -> ChatError {
        refusal(self.message, self.part, reason)
    }
}

fn refusal(message: usize, part: usize, reason: String) -> ChatError {
    ChatError::Picture { message: message as u32, part: part as u32, reason }
}

/// What a client may do about a picture that takes too many tokens.
pub fn less(detail: Detail) -> &'static str {
    if detail == Detail::High { "ask for less `detail`" } else { "make it smaller" }
}
