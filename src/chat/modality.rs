//! What a conversation is made of besides text. Pure.

use serde::{Deserialize, Serialize};

/// One kind of medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Modality {
    Image,
    Audio,
}

/// Kinds of media that a request has, or that a model accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modalities {
    pub image: bool,
    pub audio: bool,
}

impl Modalities {
    /// Whether there is one at all besides text.
    pub fn any(self) -> bool {
        self.image || self.audio
    }

    /// Those of both together.
    pub fn with(self, other: Self) -> Self {
        Self {
            image: self.image || other.image,
            audio: self.audio || other.audio,
        }
    }

    /// The first of those that `accepted` lacks.
    pub fn missing_in(self, accepted: Self) -> Option<Modality> {
        if self.image && !accepted.image {
            Some(Modality::Image)
        } else if self.audio && !accepted.audio {
            Some(Modality::Audio)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let modalities = |image, audio| Modalities { image, audio };
        for (needed, accepted, missing) in [
            ((false, false), (false, false), None),
            ((true, false), (true, false), None),
            ((true, true), (true, true), None),
            ((true, true), (false, false), Some(Modality::Image)),
            ((true, true), (true, false), Some(Modality::Audio)),
            ((false, true), (true, false), Some(Modality::Audio)),
        ] {
            let (needed, accepted) = (
                modalities(needed.0, needed.1),
                modalities(accepted.0, accepted.1),
            );
            assert_eq!(
                needed.missing_in(accepted),
                missing,
                "{needed:?} {accepted:?}"
            );
        }
    }
}
