//! What form an answer must have: text, data of a given form, function calls.

use serde::{Deserialize, Serialize};

/// What the answer's text must be. Thoughts and function calls are not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Anything.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// A JSON value that fits this JSON Schema.
    JsonSchema {
        schema: String,
        /// Whether what cannot be kept to is an error; else it is left out, and that is said
        /// ([`ChatEvent::Accepted`](super::ChatEvent::Accepted)).
        strict: bool,
    },
    /// What this regular expression matches as a whole.
    Regex(String),
    /// What this grammar in llguidance's dialect of Lark derives.
    Grammar(String),
}

/// Whether the model calls functions. That it may not is said by offering none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// As it sees fit.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// Exactly one, of this name.
    Named(String),
}

/// A part of a request that the model is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// [`ChatRequest::format`](super::ChatRequest::format).
    Format,
    /// The parameters of the function at this place in
    /// [`ChatRequest::tools`](super::ChatRequest::tools).
    Tool(u32),
}
