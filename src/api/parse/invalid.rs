//! What is wrong with a request, as its client is told. Pure.

use std::fmt;

use crate::chat::{self, Place};

/// What is wrong with a request: the field as the client spelled it, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Empty for the body as a whole.
    pub field: String,
    /// Continues the sentence "the field …".
    pub reason: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// What [`ChatRequest::check`](chat::ChatRequest::check) found, in the words of an API.
    pub fn at(invalid: chat::Invalid, field: impl Fn(Place) -> String) -> Self {
        Self::new(field(invalid.place), invalid.reason)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "`{}` {}", self.field, self.reason)
    }
}
