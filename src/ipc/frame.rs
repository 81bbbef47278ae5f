//! How a message lies on the socket: its length as a little-endian `u32`, then that many bytes of
//! postcard.
//!
//! Descriptors that belong to a message travel with the first byte of its frame. Nothing here reads
//! or writes; the supervisor drives it from async code, the worker from blocking code.

use std::{fmt, io};

use serde::{Serialize, de::DeserializeOwned};
/// Bytes of one message at most; the length is checked before anything is reserved for it.
pub const MAX_FRAME: usize = 64 << 20;
/// Bytes of the length in front of each message.
pub const HEADER: usize = 4;

/// Bytes of buffer that a [`Decoder`] keeps when it has nothing left to decode.
const KEEP: usize = 64 << 10;

/// Why bytes are no message, or a message makes no frame. Either way the channel is of no further
/// use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message has more bytes than it may.
    TooLarge { bytes: usize, limit: usize },
    /// The bytes of a frame are not the message they should be.
    Malformed { reason: String },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => {
                write!(f, "a message of {bytes} bytes; at most {limit} are allowed")
            }
            Self::Malformed { reason } => write!(f, "a malformed message: {reason}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<postcard::Error> for FrameError {
    fn from(error: postcard::Error) -> Self {
        Self::Malformed {
            reason: error.to_string(),
        }
    }
}

/// Appends the frame of `message` to `out`. After an error `out` is as it was. What it takes is
/// counted first: a buffer that grows leaves copies of what it holds, and a file is large.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let bytes = postcard::to_io(message, Count(0))?.0;
    if bytes > MAX_FRAME {
        return Err(FrameError::TooLarge {
            bytes,
            limit: MAX_FRAME,
        });
    }
    let start = out.len();
    out.reserve(HEADER + bytes);
    // MAX_FRAME fits a u32, and `bytes` is no larger.
    out.extend_from_slice(&(bytes as u32).to_le_bytes());
    if let Err(error) = postcard::to_io(message, &mut *out) {
        out.truncate(start);
        return Err(error.into());
    }
    debug_assert_eq!(out.len(), start + HEADER + bytes);
    Ok(())
}

/// Counts the bytes that are written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts messages together from bytes that come in any pieces.
#[derive(Debug)]
pub struct Decoder {
    /// Bytes of one message at most.
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been decoded.
    done: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_limit(MAX_FRAME)
    }
}

impl Decoder {
    /// For messages of up to [`MAX_FRAME`] bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// For messages of up to `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            done: 0,
        }
    }

    /// Takes bytes as they came. Call [`Decoder::next`] until it has no more before feeding again:
    /// then the decoder never holds more than one frame and one piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come. After an error the channel must be
    /// closed.
    #[allow(
        clippy::should_implement_trait,
        reason = "generic over the message, and it can fail"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let waiting = &self.buffer[self.done..];
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER>() else {
            self.compact();
            return Ok(None);
        };
        let bytes = u32::from_le_bytes(*header) as usize;
        if bytes > self.limit {
            return Err(FrameError::TooLarge {
                bytes,
                limit: self.limit,
            });
        }
        let Some(body) = rest.get(..bytes) else {
            self.compact();
            return Ok(None);
        };
        let (message, left) = postcard::take_from_bytes(body)?;
        if !left.is_empty() {
            return Err(FrameError::Malformed {
                reason: format!("{} bytes too many", left.len()),
            });
        }
        let end = self.done + HEADER + bytes;
        // It may hold a prompt, and its memory is freed or used for something else.
        self.buffer[self.done..end].fill(0);
        self.done = end;
        Ok(Some(message))
    }

    /// Whether a part of a message is waiting: the channel must not end here.
    pub fn in_frame(&self) -> bool {
        self.done < self.buffer.len()
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.done);
        self.done = 0;
        if self.buffer.len() < KEEP && self.buffer.capacity() > 2 * KEEP {
            self.buffer.shrink_to(KEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::{ServeEvent, ServeRequest};
    use proptest::prelude::*;

    fn frames(messages: &[ServeEvent]) -> Vec<u8> {
        let mut out = vec![];
        for message in messages {
            encode(message, &mut out).unwrap();
        }
        out
    }

    fn sample() -> Vec<ServeEvent> {
        vec![
            ServeEvent::Trimmed {
                before: 7,
                after: 0,
            },
            ServeEvent::LoadFailed {
                reason: "é".repeat(300),
                out_of_memory: false,
            },
            ServeEvent::Packed,
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(cuts in prop::collection::vec(1usize..700, 0..40)) {
            let bytes = frames(&sample());
            let (mut decoder, mut got, mut at) = (Decoder::new(), vec![], 0usize);
            for piece in cuts.into_iter().chain([usize::MAX]) {
                let end = at.saturating_add(piece).min(bytes.len());
                decoder.feed(&bytes[at..end]);
                at = end;
                while let Some(message) = decoder.next::<ServeEvent>().unwrap() {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, sample());
            prop_assert!(!decoder.in_frame());
        }

        #[test]
        fn noise_is_an_error_or_a_message_but_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            decoder.feed(&(noise.len() as u32).to_le_bytes());
            decoder.feed(&noise);
            let _ = decoder.next::<ServeRequest>();
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::new();
        decoder.feed(&(MAX_FRAME as u32 + 1).to_le_bytes());
        assert_eq!(
            decoder.next::<ServeEvent>(),
            Err(FrameError::TooLarge {
                bytes: MAX_FRAME + 1,
                limit: MAX_FRAME
            })
        );
        assert!(decoder.buffer.capacity() < 1024);
        let mut decoder = Decoder::with_limit(1000);
        decoder.feed(&1001u32.to_le_bytes());
        assert_eq!(
            decoder.next::<ServeEvent>(),
            Err(FrameError::TooLarge {
                bytes: 1001,
                limit: 1000
            })
        );
    }

    #[test]
    fn an_oversized_message_makes_no_frame() {
        let mut out = vec![1, 2, 3];
        let message = ServeEvent::LoadFailed {
            reason: "x".repeat(MAX_FRAME),
            out_of_memory: false,
        };
        assert!(matches!(
            encode(&message, &mut out),
            Err(FrameError::TooLarge { .. })
        ));
        assert_eq!(out, [1, 2, 3]);
    }

    #[test]
    fn bytes_after_a_message_are_an_error() {
        let mut decoder = Decoder::new();
        decoder.feed(&[3, 0, 0, 0, 0, 1, 9]);
        assert!(matches!(
            decoder.next::<ServeEvent>(),
            Err(FrameError::Malformed { .. })
        ));
    }

    #[test]
    fn a_truncated_message_waits_and_is_known_to_be_open() {
        let bytes = frames(&sample()[..1]);
        let mut decoder = Decoder::new();
        decoder.feed(&bytes[..bytes.len() - 1]);
        assert_eq!(decoder.next::<ServeEvent>(), Ok(None));
        assert!(decoder.in_frame());
    }

    #[test]
    fn a_large_message_leaves_no_large_buffer() {
        let mut decoder = Decoder::new();
        decoder.feed(&frames(&[ServeEvent::LoadFailed {
            reason: "x".repeat(1 << 20),
            out_of_memory: false,
        }]));
        assert!(decoder.next::<ServeEvent>().unwrap().is_some());
        assert_eq!(decoder.next::<ServeEvent>(), Ok(None));
        assert!(decoder.buffer.capacity() <= 2 * KEEP);
    }
}
