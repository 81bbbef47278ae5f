//! What can be asked of a model's vocabulary and template alone: nothing is generated, and no slot
//! is taken.

use serde::{Deserialize, Serialize};

use super::{ChatRequest, MAX_TEXT_BYTES, bounded};

/// A token has a byte at least, and one more may stand before all.
const MAX_TOKENS: usize = MAX_TEXT_BYTES + 1;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TextTask {
    /// The tokens of a text of at most [`MAX_TEXT_BYTES`].
    Tokenize {
        text: String,
        /// Whether the token that begins every prompt comes first.
        begin: bool,
        /// Whether control tokens that the text spells become such.
        control: bool,
    },
    /// The bytes of tokens, control tokens spelled out.
    Detokenize { tokens: Vec<u32> },
    /// How many tokens this request's prompt has.
    Count(Box<ChatRequest>),
    /// The text that this request's prompt is, with a marker in the place of each picture and sound.
    Render(Box<ChatRequest>),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextAnswer {
    /// Each token with the bytes that it stands for.
    Tokens(#[serde(deserialize_with = "bounded::list::<MAX_TOKENS, _, _>")] Vec<(u32, Vec<u8>)>),
    /// Not always characters: a token may be a part of one.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Count(u32),
}
