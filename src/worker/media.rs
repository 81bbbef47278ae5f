//! Pictures and sounds as the model reads them. Another process has decoded them
//! ([`super::decode`]); here are pixels and samples in a file that nobody can change any more.

use std::io;

use sha2::{Digest as _, Sha256};

use super::sequence::Digest;
use crate::chat::{ChatError, DecodedMedia, Detail, Pixels, Samples};
use crate::gemma::picture::Size;
use crate::gemma::sound::Hearing;

/// Bytes that are hashed together.
const PIECE: u64 = 64 << 10;

/// A picture or a sound of which it is known how many tokens it becomes.
#[derive(Debug)]
pub struct Medium {
    pub form: Form,
    pub tokens: usize,
    /// The same for the same pixels or samples, and for nothing else.
    pub digest: Digest,
    file: DecodedMedia,
    /// Its first byte there, and how many they are.
    at: u64,
    bytes: u64,
    /// Where the conversation has it.
    message: usize,
    part: usize,
}

/// What is to be encoded.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Picture(Size),
    Sound,
}

impl Medium {
    pub fn picture(
        pixels: &Pixels,
        file: &DecodedMedia,
        message: usize,
        part: usize,
    ) -> Result<Self, ChatError> {
        let size = Size {
            width: pixels.width,
            height: pixels.height,
        };
        Self {
            form: Form::Picture(size),
            tokens: size.tokens() as usize,
            digest: Digest::default(),
            file: file.clone(),
            at: pixels.at,
            bytes: pixels.bytes(),
            message,
            part,
        }
        .hashed()
    }

    pub fn sound(
        samples: &Samples,
        file: &DecodedMedia,
        hearing: Hearing,
        message: usize,
        part: usize,
    ) -> Result<Self, ChatError> {
        Self {
            form: Form::Sound,
            tokens: hearing.tokens(samples.count as usize),
            digest: Digest::default(),
            file: file.clone(),
            at: samples.at,
            bytes: samples.bytes(),
            message,
            part,
        }
        .hashed()
    }

    /// With its digest.
    fn hashed(mut self) -> Result<Self, ChatError> {
        let mut hash = match self.form {
            Form::Picture(size) => Sha256::new()
                .chain_update(b"picture")
                .chain_update(size.width.to_le_bytes())
                .chain_update(size.height.to_le_bytes()),
            Form::Sound => Sha256::new().chain_update(b"sound"),
        };
        let mut piece = vec![0; PIECE.min(self.bytes) as usize];
        let mut done = 0;
        while done < self.bytes {
            let piece = &mut piece[..PIECE.min(self.bytes - done) as usize];
            self.file
                .read(piece, self.at + done)
                .map_err(|error| self.unread(&error))?;
            hash.update(&*piece);
            done += piece.len() as u64;
        }
        self.digest = hash.finalize().into();
        Ok(self)
    }

    pub fn is_picture(&self) -> bool {
        matches!(self.form, Form::Picture(_))
    }

    /// A picture's pixels: red, green and blue of each, row by row.
    pub fn rgb(&self) -> Result<Vec<u8>, ChatError> {
        self.read()
    }

    /// A sound's samples.
    pub fn samples(&self) -> Result<Vec<f32>, ChatError> {
        let bytes = self.read()?;
        let (samples, _) = bytes.as_chunks();
        let samples: Vec<_> = samples.iter().map(|one| f32::from_le_bytes(*one)).collect();
        // Who decoded it has looked, but may have been taken over.
        match samples.iter().all(|sample| sample.is_finite()) {
            true => Ok(samples),
            false => Err(self.refuse("has samples that are no numbers".to_owned())),
        }
    }

    fn read(&self) -> Result<Vec<u8>, ChatError> {
        let mut bytes = vec![0; self.bytes as usize];
        self.file
            .read(&mut bytes, self.at)
            .map_err(|error| self.unread(&error))?;
        Ok(bytes)
    }

    /// An error about this medium.
    pub fn refuse(&self, reason: String) -> ChatError {
        let (message, part) = (self.message as u32, self.part as u32);
        match self.form {
            Form::Picture(_) => ChatError::Picture {
                message,
                part,
                reason,
            },
            Form::Sound => ChatError::Sound {
                message,
                part,
                reason,
            },
        }
    }

    fn unread(&self, error: &io::Error) -> ChatError {
        let what = if self.is_picture() {
            "picture"
        } else {
            "sound"
        };
        ChatError::Inference {
            reason: format!("a decoded {what} cannot be read: {error}"),
        }
    }
}

/// What a client may do about a picture that takes too many tokens.
pub fn less(detail: Detail) -> &'static str {
    match detail {
        Detail::High | Detail::Tokens(_) => "ask for less `detail`",
        Detail::Auto | Detail::Low => "make it smaller",
    }
}
