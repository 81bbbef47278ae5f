//! Pictures and sounds: from a client's file to what the model reads. Everything here is computed
//! off the llama thread.

mod picture;
mod sound;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use picture::pixels;

use super::sequence::Digest;
use crate::chat::{ChatError, Detail, Picture, Sound};
use crate::gemma::picture::{self as sight, Size};
use crate::gemma::sound::Hearing;

/// A picture or a sound of which it is known how many tokens it becomes.
#[derive(Debug)]
pub struct Medium {
    pub content: Content,
    pub tokens: usize,
    /// The same for the same file in the same form, and for nothing else.
    pub digest: Digest,
    /// Where the conversation has it.
    message: usize,
    part: usize,
}

/// What is to be encoded.
pub enum Content {
    /// A file whose header was read, and the size at which it will be encoded.
    Picture { file: Arc<[u8]>, size: Size },
    /// All samples: how many there are is known only when they are decoded.
    Sound(Vec<f32>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Picture { size, .. } => write!(f, "Picture({} x {})", size.width, size.height),
            Self::Sound(samples) => write!(f, "Sound({} samples)", samples.len()),
        }
    }
}

impl Medium {
    /// Reads the picture's header.
    pub fn picture(picture: &Picture, message: usize, part: usize) -> Result<Self, ChatError> {
        let (width, height) =
            picture::dimensions(&picture.file).map_err(|reason| unshown(message, part, reason))?;
        let size = sight::size(width, height, sight::budget(picture.detail, width, height));
        let digest = digest(&[
            b"picture",
            &size.width.to_le_bytes(),
            &size.height.to_le_bytes(),
            &picture.file,
        ]);
        let content = Content::Picture {
            file: picture.file.clone(),
            size,
        };
        Ok(Self {
            content,
            tokens: size.tokens() as usize,
            digest,
            message,
            part,
        })
    }

    /// Decodes the sound.
    pub fn sound(
        sound: &Sound,
        hearing: Hearing,
        message: usize,
        part: usize,
    ) -> Result<Self, ChatError> {
        let samples =
            sound::samples(&sound.file).map_err(|reason| unheard(message, part, reason))?;
        let (tokens, digest) = (
            hearing.tokens(samples.len()),
            digest(&[b"sound", &sound.file]),
        );
        Ok(Self {
            content: Content::Sound(samples),
            tokens,
            digest,
            message,
            part,
        })
    }

    pub fn is_picture(&self) -> bool {
        matches!(self.content, Content::Picture { .. })
    }

    /// An error about this medium.
    pub fn refuse(&self, reason: String) -> ChatError {
        let refusal = if self.is_picture() { unshown } else { unheard };
        refusal(self.message, self.part, reason)
    }
}

fn digest(parts: &[&[u8]]) -> Digest {
    parts
        .iter()
        .fold(Sha256::new(), |hash, part| hash.chain_update(part))
        .finalize()
        .into()
}

fn unshown(message: usize, part: usize, reason: String) -> ChatError {
    ChatError::Picture {
        message: message as u32,
        part: part as u32,
        reason,
    }
}

fn unheard(message: usize, part: usize, reason: String) -> ChatError {
    ChatError::Sound {
        message: message as u32,
        part: part as u32,
        reason,
    }
}

/// What a client may do about a picture that takes too many tokens.
pub fn less(detail: Detail) -> &'static str {
    match detail {
        Detail::High | Detail::Tokens(_) => "ask for less `detail`",
        Detail::Auto | Detail::Low => "make it smaller",
    }
}

/// A decoder that panics has met a file that it should have refused.
fn careful<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("is damaged in a way that the decoder does not know".into()))
}
