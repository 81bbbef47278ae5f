//! Reads numbers and texts of a file through a window, never behind its end and never for longer
//! than it may.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::error::{Fault, GgufError, shown};
use super::{ELEMENTS, HEADER_BYTES, KEPT_BYTES, STRING_BYTES};

/// Bytes of the first window, which is all that other files than models cost, and of the largest:
/// each has twice the bytes of the one before.
const FIRST_WINDOW: u64 = 64 << 10;
const LARGEST_WINDOW: u64 = 1 << 20;

/// What a header is read from.
pub trait Source {
    /// Reads bytes at a position of the file; returns how many, 0 at the end.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }
}

impl Source for &[u8] {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let rest = usize::try_from(position).ok().and_then(|at| self.get(at..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// When reading is given up, apart from what a header may have at most. By default never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience<'a> {
    pub deadline: Option<Instant>,
    /// Set by whoever no longer wants to know.
    pub stop: Option<&'a AtomicBool>,
}

impl Patience<'_> {
    fn check(&self) -> Result<(), Fault> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Fault::Stopped);
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Fault::Late);
        }
        Ok(())
    }
}

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

/// A position in a file, and the bytes around it.
pub(super) struct Cursor<'a> {
    source: &'a dyn Source,
    file_length: u64,
    at: u64,
    window: Vec<u8>,
    window_start: u64,
    next_window: u64,
    /// Bytes that may still be kept, and elements of lists that may still be stepped over.
    keepable: u64,
    elements: u64,
    patience: Patience<'a>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a dyn Source, file_length: u64, patience: Patience<'a>) -> Self {
        Self {
            source,
            file_length,
            at: 0,
            window: vec![],
            window_start: 0,
            next_window: FIRST_WINDOW,
            keepable: KEPT_BYTES,
            elements: ELEMENTS,
            patience,
        }
    }

    /// Bytes before the cursor.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next `count` bytes, which are no more than the largest window has.
    fn peek(&mut self, count: u64) -> Result<&[u8], Fault> {
        debug_assert!(count <= LARGEST_WINDOW);
        let end = self.window_start + self.window.len() as u64;
        if self.at < self.window_start || self.at + count > end {
            self.refill(count)?;
        }
        let start = (self.at - self.window_start) as usize;
        Ok(&self.window[start..start + count as usize])
    }

    /// Has the window start at the cursor, with `count` bytes at least.
    fn refill(&mut self, count: u64) -> Result<(), Fault> {
        self.check_room(count)?;
        self.patience.check()?;
        let end = self.file_length.min(HEADER_BYTES);
        let wanted = self.next_window.max(count).min(end - self.at);
        self.next_window = (2 * self.next_window).min(LARGEST_WINDOW);
        self.window_start = self.at;
        self.window.resize(wanted as usize, 0);
        let mut filled = 0;
        while filled < self.window.len() {
            let position = self.at + filled as u64;
            match self.source.read_at(&mut self.window[filled..], position) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.truncate(filled);
                    return Err(Fault::Disk {
                        reason: error.to_string(),
                    });
                }
            }
        }
        self.window.truncate(filled);
        if (filled as u64) < count {
            return Err(Fault::Shrunk {
                at: self.at + filled as u64,
                length: self.file_length,
            });
        }
        Ok(())
    }

    /// Whether the file, and what a header may have of it, goes on for `count` bytes.
    fn check_room(&self, count: u64) -> Result<(), Fault> {
        let end = self.at.checked_add(count);
        if end.is_none_or(|end| end > self.file_length) {
            return Err(Fault::Truncated {
                at: self.at,
                wanted: count,
                length: self.file_length,
            });
        }
        if end.is_none_or(|end| end > HEADER_BYTES) {
            return Err(Fault::HeaderTooLong {
                limit: HEADER_BYTES,
            });
        }
        Ok(())
    }

    /// Steps over bytes without reading them.
    pub(super) fn skip(&mut self, count: u64) -> Result<(), Fault> {
        self.check_room(count)?;
        self.at += count;
        Ok(())
    }

    /// Reads bytes to be kept. Together they have a limit, so a header's memory has one, too.
    pub(super) fn keep(&mut self, count: u64) -> Result<Box<[u8]>, Fault> {
        self.check_room(count)?;
        let limit = LARGEST_WINDOW.min(self.keepable);
        if count > limit {
            return Err(Fault::TooMany {
                what: "bytes of names, texts and lists",
                found: count,
                limit,
            });
        }
        self.keepable -= count;
        let kept = self.peek(count)?.into();
        self.at += count;
        Ok(kept)
    }

    /// Counts elements of a list that are stepped over one by one.
    pub(super) fn count_elements(&mut self, found: u64) -> Result<(), Fault> {
        match self.elements.checked_sub(found) {
            Some(left) => {
                self.elements = left;
                Ok(())
            }
            None => Err(Fault::TooMany {
                what: "elements of lists",
                found,
                limit: self.elements,
            }),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.peek(N as u64)?);
        self.at += N as u64;
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count that has a limit; `what` it counts is for the error.
    pub(super) fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, Fault> {
        let found = self.u64()?;
        if found > limit {
            Err(Fault::TooMany { what, found, limit })
        } else {
            Ok(found)
        }
    }

    /// The length of a text, which comes before its bytes.
    pub(super) fn text_length(&mut self) -> Result<u64, Fault> {
        self.count("bytes of text", STRING_BYTES)
    }

    /// A key or a name: UTF-8, not empty, at most `limit` bytes.
    pub(super) fn name(&mut self, limit: u64) -> Result<Box<str>, Fault> {
        let length = self.count("bytes of name", limit)?;
        if length == 0 {
            return Err(Fault::NoName);
        }
        let bytes = Vec::from(self.keep(length)?);
        String::from_utf8(bytes)
            .map(String::into_boxed_str)
            .map_err(|_| Fault::NotUtf8)
    }
}
