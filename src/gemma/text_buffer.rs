//! Text on its way out, and the log-probabilities that travel with it.

use std::collections::VecDeque;

use super::utf8::Utf8;
use crate::chat::TokenLogprob;

/// Text released together with the log-probabilities of the tokens that began in it or before it.
pub type Released = (String, Vec<TokenLogprob>);

/// Text in arrival order: decoded, held, released. Its owner decides how much is held.
#[derive(Debug, Default)]
pub struct TextBuffer {
    utf8: Utf8,
    held: String,
    /// Bytes of text that have left.
    released: usize,
    /// Each with the length of text that must have left before it is due.
    logprobs: VecDeque<(usize, TokenLogprob)>,
}

impl TextBuffer {
    /// Takes a token's bytes and its log-probability, which leaves with the first of its text.
    pub fn feed(&mut self, bytes: &[u8], logprob: Option<TokenLogprob>) {
        let begins = self.released + self.held.len();
        self.logprobs
            .extend(logprob.map(|l| (begins + usize::from(!bytes.is_empty()), l)));
        self.utf8.feed(bytes, &mut self.held);
    }

    /// Takes the log-probability of a token without text, which leaves with the next text.
    pub fn note(&mut self, logprob: Option<TokenLogprob>) {
        self.feed(&[], logprob);
    }

    /// A character that was begun will not be completed.
    pub fn settle(&mut self) {
        self.utf8.flush(&mut self.held);
    }

    /// The text not released yet.
    pub fn held(&self) -> &str {
        &self.held
    }

    /// Drops the first `len` bytes of what is held, with the log-probabilities of the tokens that end
    /// in them.
    pub fn skip(&mut self, len: usize) {
        let all = self.released + self.held.len();
        self.held.drain(..len);
        self.released += len;
        // A token ends where the next one begins.
        let begins = |(due, _): &(usize, TokenLogprob)| due.saturating_sub(1);
        let ends = self.logprobs.iter().skip(1).map(begins).chain([all]);
        let skipped = ends.take_while(|end| *end <= self.released).count();
        self.logprobs.drain(..skipped.min(self.logprobs.len()));
    }

    /// Releases the first `len` bytes of what is held.
    pub fn release(&mut self, len: usize) -> Option<Released> {
        if len == 0 {
            return None;
        }
        let text: String = self.held.drain(..len).collect();
        self.released += len;
        let logprobs = self.due();
        Some((text, logprobs))
    }

    /// Every log-probability that no text has taken.
    pub fn leftovers(&mut self) -> Vec<TokenLogprob> {
        self.logprobs.drain(..).map(|(_, l)| l).collect()
    }

    /// Releases the first `len` bytes of what is held with all log-probabilities up to there, and
    /// forgets the rest.
    pub fn end(&mut self, len: usize) -> Released {
        let text: String = self.held.drain(..len).collect();
        self.released += len;
        let logprobs = self.due();
        self.held.clear();
        self.logprobs.clear();
        (text, logprobs)
    }

    fn due(&mut self) -> Vec<TokenLogprob> {
        let count = self
            .logprobs
            .iter()
            .take_while(|(after, _)| *after <= self.released)
            .count();
        self.logprobs.drain(..count).map(|(_, l)| l).collect()
    }
}
