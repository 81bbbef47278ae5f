//! Holding the model to a form: which tokens may come next. Grammars are compiled and masks computed
//! by llguidance, on threads of their own ([`super::compiler`], [`super::mask_thread`]): no answer
//! waits for another's grammar.
//!
//! ```text
//!   JSON ─▶ nodes ─▶ goals ─▶ rules ─▶ [`CompiledGrammar`] (cached) ─▶ a copy for each answer ─▶ [`Mask`]s
//!         schema/   goal/    write/    grammar
//! ```

mod abandoned;
mod compile;
mod formats;
mod goal;
mod grammar;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use compile::{GrammarCompiler, GrammarSources};
pub use grammar::{CompiledGrammar, Mask, Masks};

use std::sync::Arc;

/// What an answer is held to.
#[derive(Clone, Default)]
pub struct Constraints {
    /// The answer's text.
    pub format: Option<Arc<CompiledGrammar>>,
    /// What follows the token that begins a call.
    pub call: Option<Arc<CompiledGrammar>>,
}

impl Constraints {
    /// What of the schemas the answer is not held to.
    pub fn left_out(&self) -> Vec<String> {
        let grammars = [&self.format, &self.call];
        let grammars = grammars.into_iter().flatten();
        grammars
            .flat_map(|grammar| grammar.left_out.iter().cloned())
            .collect()
    }
}
