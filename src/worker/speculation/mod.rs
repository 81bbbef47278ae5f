//! Several tokens of an answer in one step: which are guessed, and how many of them are tried.
//!
//! Decoding reads all weights for one token, and computing a few more of them costs little. So the tokens
//! that may come next are computed together with the last one; then each is drawn as ever, from its own
//! row of logits, and the first that is not what was guessed ends it. What is behind it is taken out of
//! the cache. The answer is the one that would have been drawn without, token by token.
//!
//! ```text
//!   said before ([`lookup`]) ──▶ proposal ──▶ worth it? ([`costs`]) ──▶ draft: decoded with the last token
//!   a drafter, where it gains more ─────▶ │                                        │
//!   left no choice ([`super::guide`]) ──▶ │                                        │
//!                                 ▲       └──── what was right, drawn or not ◀──────┘
//! ```
//!
//! A drafter ([`super::llama::Guess`]) takes time for each guess, so it is asked only where that is expected to pay.

mod costs;
mod lookup;

use self::costs::Rates;
pub use self::costs::{Costs, MOST, Source};
use self::lookup::{Found, Lookup};
use super::llama::{Guess, Token};
use crate::chat::{Drafted, Speculation};

/// Guesses that a drafter is asked for where it is not asked by what they cost.
const ALWAYS_DRAFTED: usize = 4;

/// Draws from the row behind what is known of an answer, and then from the rows behind `draft` tokens
/// that were tried, for as long as `draw`, which gets the number of those that were right, says that
/// the next one is, too. Returns how many were, and what came of the last draw.
///
/// Each token is drawn from the row that it is drawn from without guesses, and a guess changes no row: so
/// whatever is guessed, answers have the same distribution.
pub fn verify<T>(draft: usize, mut draw: impl FnMut(usize) -> (T, bool)) -> (usize, T) {
    let mut right = 0;
    loop {
        let (drawn, is_right) = draw(right);
        if right == draft || !is_right {
            return (right, drawn);
        }
        right += 1;
    }
}

/// The guesses of one answer.
pub struct Speculator {
    mode: Speculation,
    lookup: Lookup,
    rates: Rates,
    /// What may come next.
    proposal: Vec<(Token, Source)>,
    drafted: Drafted,
}

impl Speculator {
    /// `prediction`: what the client expects of the answer.
    pub fn new(mode: Speculation, prediction: Vec<Token>) -> Self {
        let prediction = match mode {
            Speculation::Off => vec![],
            _ => prediction,
        };
        Self {
            mode,
            lookup: Lookup::new(prediction),
            rates: Rates::default(),
            proposal: vec![],
            drafted: Drafted::default(),
        }
    }

    /// What is expected of its guesses is what earlier answers were like.
    pub fn expect(&mut self, costs: &Costs) {
        self.rates = costs.expected();
    }

    /// Has `costs` know what its guesses were like.
    pub fn teach(&self, costs: &mut Costs) {
        costs.remember(&self.rates);
    }

    pub fn is_off(&self) -> bool {
        self.mode == Speculation::Off
    }

    /// What was tried so far.
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }

    /// Tokens that may come next.
    pub fn proposal(&self) -> impl Iterator<Item = Token> {
        self.proposal.iter().map(|&(token, _)| token)
    }

    /// How many of the proposed tokens are to be tried. `is_alone`: no other request shares the step.
    pub fn worth(&self, costs: &Costs, is_alone: bool) -> usize {
        match self.mode {
            Speculation::Off => 0,
            Speculation::On => self.proposal.len(),
            // Others fill the step already, and llama.cpp computes sequences with unlike numbers of tokens
            // one after the other.
            Speculation::Auto if !is_alone => 0,
            Speculation::Auto => {
                let chances = self.proposal.iter();
                costs.worth(chances.map(|&(_, source)| self.rates.of(source)))
            }
        }
    }

    /// Tokens along which it is of use to know what the answer's form allows.
    pub fn ahead(&self, is_alone: bool) -> usize {
        match self.mode {
            Speculation::Off => 0,
            Speculation::Auto if !is_alone => 0,
            Speculation::Auto | Speculation::On => MOST,
        }
    }

    /// The answer goes on with `token`.
    pub fn take(&mut self, prompt: &[Token], token: Token) {
        if !self.is_off() {
            self.lookup.take(prompt, token);
            self.rates.recover();
        }
    }

    /// What was drawn behind `drafted` tokens of the proposal that were tried, whose first is the first
    /// that was proposed. What is left of the proposal is what may come next.
    pub fn drawn(&mut self, tokens: &[Token], drafted: usize) {
        let mut right = 0;
        for (&token, &(guess, source)) in tokens.iter().zip(&self.proposal) {
            self.rates.learn(source, token == guess);
            if token != guess {
                break;
            }
            right += 1;
        }
        for (i, &(_, source)) in self.proposal.iter().take(drafted).enumerate() {
            let tally = match source {
                Source::Lookup { .. } => &mut self.drafted.lookup,
                Source::Forced => &mut self.drafted.forced,
                Source::Drafter { .. } => &mut self.drafted.drafter,
            };
            // The last token that was drawn was not in the step.
            if i < right.min(tokens.len() - 1) {
                tally.accepted += 1;
            } else {
                tally.rejected += 1;
            }
        }
        if right == tokens.len() {
            self.proposal.drain(..right.min(self.proposal.len()));
        } else {
            self.proposal.clear();
        }
    }

    /// `token` was taken without being drawn: nothing else was possible.
    pub fn taken_without(&mut self, token: Token) {
        self.drafted.forced.accepted += 1;
        if self.proposal().next() == Some(token) {
            self.proposal.remove(0);
        } else {
            self.proposal.clear();
        }
    }

    /// Proposes what followed the same words before.
    pub fn propose(&mut self, prompt: &[Token]) {
        self.proposal.clear();
        if self.is_off() {
            return;
        }
        if let Some(Found { tokens, same }) = self.lookup.find(prompt, MOST) {
            let source = Source::Lookup { same };
            self.proposal
                .extend(tokens.iter().map(|&token| (token, source)));
        }
    }

    /// Proposes what a drafter guesses, where that is expected to gain more than what was looked up. `ask`
    /// has it guess for as long as it is told to go on. Returns how often it did.
    pub fn draft(
        &mut self,
        costs: &Costs,
        is_alone: bool,
        ask: impl FnOnce(&mut dyn FnMut(Guess) -> bool),
    ) -> usize {
        if !self.asks_drafter(costs, is_alone) {
            return 0;
        }
        let (mut drafts, mut all_right, mut expected) = (vec![], 1.0, 1.0);
        ask(&mut |Guess { token, chance }| {
            let source = Source::Drafter { chance };
            all_right *= self.rates.of(source);
            expected += all_right;
            drafts.push((token, source));
            let next = all_right * self.rates.of_drafter();
            match self.mode {
                Speculation::On => drafts.len() < ALWAYS_DRAFTED,
                _ => drafts.len() < MOST && costs.pays(drafts.len(), expected, next),
            }
        });
        let count = drafts.len();
        if count > 0 {
            self.proposal = drafts;
        }
        count
    }

    fn asks_drafter(&self, costs: &Costs, is_alone: bool) -> bool {
        match self.mode {
            Speculation::Off => false,
            Speculation::On => self.proposal.is_empty(),
            Speculation::Auto if !is_alone => false,
            Speculation::Auto => {
                let looked_up = self.proposal.iter();
                let looked_up = looked_up.map(|&(_, source)| self.rates.of(source));
                costs.gain_of_drafts(self.rates.of_drafter()) > costs.gain(looked_up)
            }
        }
    }

    /// Proposes `tokens`, which the answer's form allows; of the first `forced` it leaves no choice.
    pub fn propose_allowed(&mut self, tokens: &[Token], forced: usize) {
        let mut sources = self.proposal.iter().map(|&(_, source)| source);
        let usual = sources
            .find(|source| *source != Source::Forced)
            .unwrap_or(Source::Lookup { same: 0 });
        let source = |i| {
            if i < forced {
                Source::Forced
            } else {
                let proposed = self.proposal.get(i).map(|&(_, source)| source);
                let proposed = proposed.filter(|source| *source != Source::Forced);
                proposed.unwrap_or(usual)
            }
        };
        self.proposal = tokens
            .iter()
            .enumerate()
            .map(|(i, &token)| (token, source(i)))
            .collect();
    }
}

#[cfg(test)]
mod tests;
