//! Pictures and sounds in a conversation: the files as the client sent them. Only the worker looks
//! inside.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A picture file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Shared, because a request is kept for its retry while it is on its way to the worker.
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
