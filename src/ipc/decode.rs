//! The protocol of a worker that decodes the pictures and sounds of one request. It gets two
//! descriptors with the request: a file in which they lie, one behind the other, and one for what
//! they become, which it fills in the same way. What was decoded never crosses the channel, so the
//! supervisor holds none of it. The worker says what each has become, in their order, and ends with
//! the last. A sound that is longer than the model hears at once becomes several, one behind the other.
//!
//! A sound of any length can be had piece by piece as well, from a worker for each piece: it says
//! where the next one goes on.

use serde::{Deserialize, Serialize};

use super::{Protocol, WorkerKind};
use crate::chat::Detail;
use crate::gemma::picture::{self, Size, TOKEN_SIDE};
use crate::gemma::sound::{FRAME, MAX_SAMPLES, RATE};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Decode {}

impl Protocol for Decode {
    const KIND: WorkerKind = WorkerKind::Decode;
    type Request = DecodeRequest;
    type Event = DecodeEvent;
    const LARGEST_EVENT: usize = 64 << 10;
}

/// Bytes of memory that such a worker may use at first, which is enough for most of what is sent, and
/// that it may be given if its media say that they take more.
pub const DECODE_MEMORY: u64 = 64 << 20;
pub const DECODE_MEMORY_MOST: u64 = 512 << 20;
/// Bytes that the media of one request may become.
pub const DECODED_MOST: u64 = 128 << 20;

/// Bytes of a pixel: red, green and blue.
const PIXEL: u64 = 3;
/// Samples of a second of decoded sound.
pub const SOUND_RATE: u32 = RATE;
/// Bytes of a sample.
pub const SAMPLE: u64 = size_of::<f32>() as u64;

/// A piece that is not the last is this part of the longest at least.
const SHORTEST_PIECE: usize = 4;

/// What is to be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeRequest {
    pub media: Vec<EncodedMedium>,
    /// Bytes of memory that this worker may use.
    pub memory: u64,
}

/// A medium in the file that comes with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedMedium {
    pub kind: MediumKind,
    pub bytes: u64,
}

/// What it is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediumKind {
    Picture(Detail),
    /// A sound, whole: cut into pieces where it is longer than [`MAX_SAMPLES`].
    Sound,
    /// One piece of a sound.
    Piece {
        from: SoundPlace,
        /// Samples of the piece at most, no more than [`MAX_SAMPLES`].
        longest: u32,
        /// Seconds of the whole sound at most.
        limit: u32,
    },
}

/// Where a piece of a sound begins. It means nothing but to a worker that decodes the same file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoundPlace {
    /// Packets of the file's sound before it.
    pub packet: u64,
    /// Samples of what follows, at the file's own rate, that belong to what was heard already.
    pub skip: u64,
}

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecodeEvent {
    /// What the next medium has become; its bytes are in the file.
    Decoded(DecodedMedium),
    /// The media's headers say that they take more memory than there is, or more room in the file for
    /// what they become: so many bytes. The worker exits after this, and nothing was decoded.
    Needs { memory: u64, room: u64 },
    /// What is wrong with the next medium; continues "the picture …" or "the sound …". The worker
    /// exits after this.
    Rejected { reason: String },
}

/// What a medium has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecodedMedium {
    /// Pixels, three bytes each, at the size at which the model sees them.
    Picture { width: u32, height: u32 },
    /// A piece of a sound: samples, four bytes each.
    Sound {
        samples: u32,
        /// There is nothing to hear in it.
        silent: bool,
        /// Where the next piece begins, if this is not the last.
        next: Option<SoundPlace>,
    },
}

impl MediumKind {
    /// Bytes that it becomes at most; a sound, if it is no longer than the model hears at once.
    pub fn most_bytes(self) -> u64 {
        match self {
            Self::Picture(detail) => {
                let token = u64::from(TOKEN_SIDE) * u64::from(TOKEN_SIDE) * PIXEL;
                u64::from(picture::largest_budget(detail)) * token
            }
            Self::Sound => MAX_SAMPLES as u64 * SAMPLE,
            Self::Piece { longest, .. } => u64::from(longest) * SAMPLE,
        }
    }

    /// Samples of a piece of a sound at most.
    fn longest(self) -> Option<usize> {
        match self {
            Self::Picture(_) => None,
            Self::Sound => Some(MAX_SAMPLES),
            Self::Piece { longest, .. } => Some(longest as usize),
        }
    }
}

impl DecodedMedium {
    /// Whether a medium of this kind can become this: a worker that was taken over says anything.
    pub fn is_of(self, kind: MediumKind) -> bool {
        match (self, kind) {
            (Self::Picture { width, height }, MediumKind::Picture(detail)) => {
                Size { width, height }.is_within(picture::largest_budget(detail))
            }
            (Self::Sound { samples, next, .. }, kind) => kind.longest().is_some_and(|longest| {
                // So pieces come to an end.
                let least = next.map_or(FRAME, |_| longest / SHORTEST_PIECE);
                (least..=longest).contains(&(samples as usize))
            }),
            _ => false,
        }
    }

    /// Whether it is the last of what a medium of this kind becomes.
    pub fn is_last_of(self, kind: MediumKind) -> bool {
        let is_cut = matches!(self, Self::Sound { next: Some(_), .. });
        !(is_cut && kind == MediumKind::Sound)
    }

    /// Bytes that it takes. Meaningful for what [`DecodedMedium::is_of`] its kind.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Picture { width, height } => u64::from(width)
                .saturating_mul(height.into())
                .saturating_mul(PIXEL),
            Self::Sound { samples, .. } => u64::from(samples) * SAMPLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_medium_can_become_is_taken_for_it() {
        let picture = |width, height| DecodedMedium::Picture { width, height };
        let piece = |samples, is_last: bool| DecodedMedium::Sound {
            samples,
            silent: false,
            next: (!is_last).then(SoundPlace::default),
        };
        let sound = |samples| piece(samples, true);
        let short = MediumKind::Piece {
            from: SoundPlace::default(),
            longest: 160_000,
            limit: 60,
        };
        let auto = MediumKind::Picture(Detail::Auto);
        let low = MediumKind::Picture(Detail::Low);
        for (decoded, kind, is_of) in [
            (picture(960, 672), auto, true),
            (picture(960, 672), low, false),
            (picture(480, 336), low, true),
            (picture(480, 335), low, false),
            (picture(0, 336), low, false),
            (picture(u32::MAX / 48 * 48, 48), low, false),
            (picture(960, 672), MediumKind::Sound, false),
            (sound(640), MediumKind::Sound, true),
            (sound(480_000), MediumKind::Sound, true),
            (sound(639), MediumKind::Sound, false),
            (sound(480_001), MediumKind::Sound, false),
            (sound(640), auto, false),
            (piece(480_000, false), MediumKind::Sound, true),
            (piece(119_999, false), MediumKind::Sound, false),
            (sound(160_000), short, true),
            (sound(160_001), short, false),
            (piece(39_999, false), short, false),
            (picture(960, 672), short, false),
        ] {
            assert_eq!(decoded.is_of(kind), is_of, "{decoded:?} {kind:?}");
            if is_of {
                assert!(decoded.bytes() <= kind.most_bytes());
            }
        }
        assert_eq!(picture(960, 672).bytes(), auto.most_bytes());
        assert_eq!(sound(480_000).bytes(), MediumKind::Sound.most_bytes());
        for (decoded, kind, is_last) in [
            (picture(960, 672), auto, true),
            (sound(640), MediumKind::Sound, true),
            (piece(480_000, false), MediumKind::Sound, false),
            (piece(160_000, false), short, true),
        ] {
            assert_eq!(decoded.is_last_of(kind), is_last, "{decoded:?}");
        }
    }
}
