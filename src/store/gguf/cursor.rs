//! Reads numbers and strings from a slice, never behind its end.

use super::STRING_BYTES;
use super::error::{Fault, GgufError, shown};

/// What is being read; an error names it.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Header,
    /// The n-th metadata key, counted from 0.
    Key(u64),
    /// The value of this key.
    Value(&'a str),
    /// The name of the n-th tensor, counted from 0.
    TensorName(u64),
    Tensor(&'a str),
}

impl Place<'_> {
    pub(super) fn error(self, fault: Fault) -> GgufError {
        let place = match self {
            Self::Header => "header".into(),
            Self::Key(index) => format!("metadata key number {index}"),
            Self::Value(key) => format!("metadata `{}`", shown(key)),
            Self::TensorName(index) => format!("name of tensor number {index}"),
            Self::Tensor(name) => format!("tensor `{}`", shown(name)),
        };
        GgufError { place, fault }
    }
}

/// A position in the file's first bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_length: u64,
    pub(super) place: Place<'a>,
}

impl<'a> Cursor<'a> {
    /// `bytes`: the file's first bytes, all of them or as many as a header may have.
    pub(super) fn new(bytes: &'a [u8], file_length: u64) -> Self {
        Self {
            bytes,
            at: 0,
            file_length,
            place: Place::Header,
        }
    }

    /// Bytes before the cursor.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes behind the cursor.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What has been read since `start`, a former position.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    pub(super) fn error(&self, fault: Fault) -> GgufError {
        self.place.error(fault)
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], GgufError> {
        let taken = usize::try_from(count)
            .ok()
            .and_then(|count| self.bytes[self.at..].get(..count));
        let Some(taken) = taken else {
            return Err(self.ended(count));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        match self.bytes[self.at..].first_chunk() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.ended(N as u64)),
        }
    }

    #[cold]
    fn ended(&self, wanted: u64) -> GgufError {
        let read = self.bytes.len() as u64;
        if read < self.file_length && wanted <= self.file_length - self.at as u64 {
            return self.error(Fault::HeaderTooLong { limit: read });
        }
        self.error(Fault::Truncated {
            at: self.at as u64,
            wanted,
            length: self.file_length,
        })
    }

    pub(super) fn magic(&mut self) -> Result<[u8; 4], GgufError> {
        self.array()
    }

    pub(super) fn u8(&mut self) -> Result<u8, GgufError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, GgufError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count that has a limit; `what` it counts is for the error.
    pub(super) fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, GgufError> {
        let found = self.u64()?;
        if found > limit {
            Err(self.error(Fault::TooMany { what, found, limit }))
        } else {
            Ok(found)
        }
    }

    /// A string as it stands in the file: a length, then that many bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], GgufError> {
        let length = self.count("bytes of text", STRING_BYTES)?;
        self.take(length)
    }

    /// A key or a name: UTF-8, not empty, at most `limit` bytes.
    pub(super) fn name(&mut self, limit: u64) -> Result<&'a str, GgufError> {
        let length = self.count("bytes of name", limit)?;
        let bytes = self.take(length)?;
        if bytes.is_empty() {
            return Err(self.error(Fault::NoName));
        }
        std::str::from_utf8(bytes).map_err(|_| self.error(Fault::NotUtf8))
    }
}
