//! Pictures and sounds in a conversation: the files as the client sent them, into which only a
//! decoder looks, and what becomes of them before a model's worker gets the request.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A picture file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Shared, because a conversation that is kept has it as well.
    #[serde(with = "file_bytes")]
    pub file: Arc<[u8]>,
    pub detail: Detail,
}

/// A sound file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sound {
    /// Shared like a picture's.
    #[serde(with = "file_bytes")]
    pub file: Arc<[u8]>,
}

/// A decoded picture: red, green and blue of each pixel, row by row, in the request's
/// [`DecodedMedia`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pixels {
    /// Pixels, at which the model sees it.
    pub width: u32,
    pub height: u32,
    /// As the client asked for it.
    pub detail: Detail,
    /// Its first byte.
    pub at: u64,
}

/// A decoded sound: mono samples of 32-bit floating point, little-endian, at
/// [`crate::gemma::sound::RATE`] a second, in the request's [`DecodedMedia`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    pub count: u32,
    /// Its first byte.
    pub at: u64,
}

impl Pixels {
    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * 3
    }
}

impl Samples {
    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        u64::from(self.count) * size_of::<f32>() as u64
    }
}

/// All that was decoded of a request's pictures and sounds: a file without a name, which goes to the
/// model's worker as a descriptor. Clones are the same file. Nobody can change it any more.
#[derive(Clone, Debug)]
pub struct DecodedMedia(Arc<File>);

impl DecodedMedia {
    pub fn new(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// Reads as many bytes as `into` has room for, from the one at `at` on.
    pub fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(into, at)
    }
}

impl AsFd for DecodedMedia {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The same file.
impl PartialEq for DecodedMedia {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// How closely a picture is looked at, which is how many tokens it becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// As many as the picture's size is worth, up to the family's usual number.
    #[default]
    Auto,
    /// The fewest.
    Low,
    /// The most.
    High,
    /// As many as one of [`BUDGETS`].
    Tokens(u32),
}

/// The numbers of tokens of a picture that the family was trained with.
pub const BUDGETS: [u32; 5] = [70, 140, 280, 560, 1120];

/// What media show and say is nobody's business but the model's.
impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} bytes, {:?})", self.file.len(), self.detail)
    }
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({} bytes)", self.file.len())
    }
}

/// The file in one piece.
pub(super) mod file_bytes {
    use std::sync::Arc;

    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(file: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(file)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(deserializer).map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_not_printed() {
        let picture = Picture {
            file: Arc::from(&b"secret"[..]),
            detail: Detail::High,
        };
        assert_eq!(format!("{picture:?}"), "Picture(6 bytes, High)");
        assert_eq!(
            format!(
                "{:?}",
                Sound {
                    file: Arc::from(&b"secret"[..])
                }
            ),
            "Sound(6 bytes)"
        );
    }

    #[test]
    fn a_picture_crosses_the_channel_in_one_piece() {
        let picture = Picture {
            file: vec![200u8; 1000].into(),
            detail: Detail::Low,
        };
        let bytes = postcard::to_stdvec(&picture).unwrap();
        assert!(bytes.len() < 1010, "{}", bytes.len());
        assert_eq!(postcard::from_bytes::<Picture>(&bytes).unwrap(), picture);
    }
}
