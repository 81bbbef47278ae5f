//! Holding the model to a form: which tokens may come next.
//!
//! ```text
//!   preparer ──▶ compiler: schema ─▶ grammar ─▶ [`Prototype`] (cached) ──▶ slot
//!                                                                           │ tokens    a thread for each
//!   llama thread ◀───────────────────── masks ─────────────────────── [`Held`] constrained answer
//! ```
//!
//! Grammars are compiled and masks computed by llguidance, on threads of their own: nobody waits
//! for another's grammar.

mod call;
mod compile;
mod formats;
mod held;
mod json;
mod keywords;
mod lark;
mod merge;
mod prototype;
#[cfg(test)]
mod tests;

pub use compile::{Compiler, Desk, Waiting, Wanted};
pub use held::{Held, Masked};
pub use prototype::{Mask, Prototype};

use std::sync::Arc;

/// What an answer is held to.
#[derive(Clone, Default)]
pub struct Constraints {
    /// The answer's text.
    pub format: Option<Arc<Prototype>>,
    /// What follows the token that begins a call.
    pub call: Option<Arc<Prototype>>,
}
