//! How much the model may think before it answers.

use serde::{Deserialize, Serialize};

/// Tokens of thought that the effort `low` allows.
pub const LOW_EFFORT: u32 = 512;
/// Tokens of thought that the effort `medium` allows.
pub const MEDIUM_EFFORT: u32 = 2048;
/// Tokens of thought that the effort `high` allows.
pub const HIGH_EFFORT: u32 = 8192;

/// Whether the model thinks, and how long. Whatever the budget, a part of the answer's tokens is
/// kept for the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thinking {
    #[default]
    Off,
    On {
        /// Tokens, after which the thought is ended and the answer begins.
        budget: Option<u32>,
    },
}

impl Thinking {
    /// What `reasoning_effort` has names for, least effort first.
    pub const EFFORTS: [(&str, Self); 7] = [
        ("none", Self::Off),
        // Gemma's least is none.
        ("minimal", Self::Off),
        (
            "low",
            Self::On {
                budget: Some(LOW_EFFORT),
            },
        ),
        (
            "medium",
            Self::On {
                budget: Some(MEDIUM_EFFORT),
            },
        ),
        (
            "high",
            Self::On {
                budget: Some(HIGH_EFFORT),
            },
        ),
        ("xhigh", Self::On { budget: None }),
        ("max", Self::On { budget: None }),
    ];

    /// The effort of this name.
    pub fn of_effort(name: &str) -> Option<Self> {
        Self::EFFORTS
            .iter()
            .find(|(effort, _)| *effort == name)
            .map(|(_, thinking)| *thinking)
    }

    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}
