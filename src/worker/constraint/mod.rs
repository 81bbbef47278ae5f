//! Holding the model to a form: which tokens may come next. Grammars are compiled and masks computed
//! by llguidance, on threads of their own ([`super::compiler`], [`super::mask_thread`]): no answer
//! waits for another's grammar.
//!
//! ```text
//!   schema ─▶ grammar ─▶ [`CompiledGrammar`] (cached) ─▶ a copy for each answer ─▶ [`Mask`]s
//! ```

mod call;
mod compile;
mod formats;
mod grammar;
mod json;
mod keywords;
mod lark;
mod merge;
#[cfg(test)]
mod tests;

pub use compile::{GrammarCompiler, GrammarSources};
pub use grammar::{CompiledGrammar, Mask};

use std::sync::Arc;

/// What an answer is held to.
#[derive(Clone, Default)]
pub struct Constraints {
    /// The answer's text.
    pub format: Option<Arc<CompiledGrammar>>,
    /// What follows the token that begins a call.
    pub call: Option<Arc<CompiledGrammar>>,
}
