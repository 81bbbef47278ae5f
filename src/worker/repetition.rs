//! Whether an answer says the same again and again, and would do so for ever. Pure.
//!
//! A run of [`RUN`] tokens that was there [`TIMES`] times before is worn. An answer whose last
//! [`LAST`] tokens all but end worn runs has come to a loop: one phrase or one paragraph, several
//! in any order, one call after the other, or a long thought with a word changed now and then. What
//! is merely regular is not: a row of a table, an entry of a list, a line of code that differs from
//! the others in one value has a new run behind each of them, however alike the rest is. Data, in
//! which there are few words, may be the same for longer ([`LAST_OF_DATA`]): a table of zeros is
//! what somebody wants. `docs/measuring.md` has how rarely this is wrong.

use std::collections::HashMap;

/// Tokens of a run.
const RUN: usize = 24;
/// How often a run was there before it is worn.
const TIMES: u8 = 8;
/// Tokens that are looked at: so long an answer may repeat itself. More than anybody asks for who
/// wants a word a thousand times, and a fraction of what a loop takes until the context ends.
const LAST: usize = 2048;
/// The same of data.
const LAST_OF_DATA: usize = 4 * LAST;
/// What has fewer words than these among [`LAST`] tokens is data. In what people say nine of ten
/// tokens have a letter, in JSON and tables of numbers less than a third.
const WORDS: usize = LAST * 2 / 5;
/// One in so many of the tokens that are looked at may end a run that is not worn.
const FRESH: usize = 50;
/// What makes a hash of the tokens of a run: an odd number, so that it has an inverse.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Watches one answer.
#[derive(Debug)]
pub struct RepetitionGuard {
    /// The tokens of the run that ends with the last one, at their positions modulo [`RUN`].
    run: [u32; RUN],
    /// Its hash.
    hash: u64,
    /// How often each run was there.
    seen: HashMap<u64, u8>,
    /// The last tokens, at their positions modulo [`LAST_OF_DATA`].
    last: Vec<Noted>,
    text: Window,
    data: Window,
    /// Tokens so far.
    tokens: usize,
}

/// What is kept of a token.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// A worn run ends with it.
    is_worn: bool,
    is_word: bool,
}

/// The last tokens, so many.
#[derive(Debug)]
struct Window {
    size: usize,
    /// Those that end worn runs.
    worn: usize,
    words: usize,
}

impl Window {
    fn of(size: usize) -> Self {
        Self {
            size,
            worn: 0,
            words: 0,
        }
    }

    /// One token comes in as another one leaves.
    fn slide(&mut self, new: Noted, old: Noted) {
        self.worn = self.worn + usize::from(new.is_worn) - usize::from(old.is_worn);
        self.words = self.words + usize::from(new.is_word) - usize::from(old.is_word);
    }

    fn is_worn(&self) -> bool {
        self.worn >= self.size - self.size / FRESH
    }
}

impl RepetitionGuard {
    pub fn new() -> Self {
        Self {
            run: [0; RUN],
            hash: 0,
            seen: HashMap::new(),
            last: vec![],
            text: Window::of(LAST),
            data: Window::of(LAST_OF_DATA),
            tokens: 0,
        }
    }

    /// Takes the next token of the answer and its bytes; `true` when that has come to a loop.
    pub fn take(&mut self, token: u32, bytes: &[u8]) -> bool {
        let is_worn = self.is_worn(token);
        let is_word = bytes
            .iter()
            .any(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii());
        self.note(Noted { is_worn, is_word });
        self.text.is_worn() && self.text.words >= WORDS || self.data.is_worn()
    }

    /// Whether a worn run ends with this token, which comes next.
    fn is_worn(&mut self, token: u32) -> bool {
        let place = self.tokens % RUN;
        let first = std::mem::replace(&mut self.run[place], token);
        // As in Rabin and Karp's search: the oldest token leaves the hash as the newest comes in.
        // One is added to each, so that token 0 counts.
        self.hash = self
            .hash
            .wrapping_mul(BASE)
            .wrapping_add(u64::from(token) + 1);
        if self.tokens >= RUN {
            let leaving = (u64::from(first) + 1).wrapping_mul(BASE.wrapping_pow(RUN as u32));
            self.hash = self.hash.wrapping_sub(leaving);
        }
        self.tokens += 1;
        if self.tokens < RUN {
            return false;
        }
        let times = self.seen.entry(self.hash).or_default();
        let is_worn = *times >= TIMES;
        *times = times.saturating_add(1);
        is_worn
    }

    /// Notes the token that was counted last.
    fn note(&mut self, new: Noted) {
        let at = self.tokens - 1;
        for window in [&mut self.text, &mut self.data] {
            let old = at.checked_sub(window.size);
            let old = old.map_or_else(Noted::default, |old| self.last[old % LAST_OF_DATA]);
            window.slide(new, old);
        }
        match self.last.get_mut(at % LAST_OF_DATA) {
            Some(noted) => *noted = new,
            None => self.last.push(new),
        }
    }
}

#[cfg(test)]
mod tests;
