//! How many tokens are worth being tried: what a step of so many costs on this machine, held against how
//! likely they are to be right. Pure.
//!
//! Steps that have one answer alone are measured. What they cost is kept in steps of one token, so that
//! a machine that gets slower as a whole changes little of it.

use std::time::Duration;

use crate::chat::MOST_DRAFT;

/// Tokens that are tried in a step at most.
pub const MOST: usize = MOST_DRAFT as usize;

/// What each token beyond the first adds to a step before that was measured, in steps of one token. Two
/// in a hundred lost while it is found out are soon made good.
const GUESS: f64 = 0.25;
/// The share that one measurement has in what is known of steps of as many tokens, the first one of
/// them, and one in what is known of each token.
const WEIGHT: f64 = 0.25;
const FIRST_WEIGHT: f64 = 0.75;
const EACH_WEIGHT: f64 = 0.5;
/// By this share what is known of steps of other numbers of tokens follows what is known of each token,
/// with a measurement: the machine may have changed.
const FOLLOWED: f64 = 1.0 / 8.0;
/// Tokens must be expected in less time by this factor.
const LEAST_GAIN: f64 = 1.05;
/// After so many steps with tokens that were tried there is one without, so that it is known what that
/// costs.
const REMEASURED: u32 = 64;
/// By this share it is forgotten in each step of one token that tokens were seen to cost more than was
/// guessed: what was slow by chance does not count for ever.
const FORGOTTEN: f64 = 1.0 / 512.0;

/// What steps of one answer cost.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Seconds of a step of one token.
    plain: Option<f64>,
    /// What each token beyond the first adds, in steps of one token.
    each: f64,
    /// Steps of so many tokens and two, in steps of one token; `None`: not measured.
    steps: [Option<f64>; MOST],
    /// Steps since the last one of one token.
    since_plain: u32,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            plain: None,
            each: GUESS,
            steps: [None; MOST],
            since_plain: 0,
        }
    }
}

impl Costs {
    /// Learns from a step of `tokens` tokens of one answer, and nothing else.
    pub fn learn(&mut self, tokens: usize, time: Duration) {
        let time = time.as_secs_f64().max(1e-6);
        let Some(more) = tokens.checked_sub(2) else {
            self.since_plain = 0;
            let plain = self.plain.get_or_insert(time);
            *plain += WEIGHT * (time - *plain);
            self.each += FORGOTTEN * (GUESS - self.each).min(0.0);
            self.follow(FORGOTTEN);
            return;
        };
        self.since_plain += 1;
        let Some(plain) = self.plain else {
            return;
        };
        let cost = time / plain;
        self.each += EACH_WEIGHT * ((cost - 1.0) / (more + 1) as f64 - self.each);
        self.follow(FOLLOWED);
        let expected = self.step(tokens);
        if let Some(step) = self.steps.get_mut(more) {
            let weight = if step.is_some() { WEIGHT } else { FIRST_WEIGHT };
            *step = Some(expected + weight * (cost - expected));
        }
    }

    /// Moves what is known of steps by a share to what is known of each token.
    fn follow(&mut self, share: f64) {
        for (more, step) in self.steps.iter_mut().enumerate() {
            let line = 1.0 + self.each * (more + 1) as f64;
            step.iter_mut()
                .for_each(|step| *step += share * (line - *step));
        }
    }

    /// What a step of `tokens` tokens costs, in steps of one token.
    fn step(&self, tokens: usize) -> f64 {
        let Some(more) = tokens.checked_sub(2) else {
            return 1.0;
        };
        let measured = self.steps.get(more).copied().flatten();
        measured.unwrap_or(1.0 + self.each * (more + 1) as f64)
    }

    /// How many of the next tokens are worth being tried that are right by these chances, each if all
    /// before it are.
    pub fn worth(&self, chances: impl Iterator<Item = f64>) -> usize {
        if self.plain.is_none() || self.since_plain >= REMEASURED {
            return 0;
        }
        let (mut best, mut best_gain) = (0, LEAST_GAIN);
        let (mut expected, mut all_right) = (1.0, 1.0);
        for (i, chance) in chances.take(MOST).enumerate() {
            all_right *= chance;
            expected += all_right;
            let gain = expected / self.step(i + 2);
            if gain > best_gain {
                (best, best_gain) = (i + 1, gain);
            }
        }
        best
    }
}

/// How a token was guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It stands behind words of which so many are the same.
    Lookup { same: usize },
    /// The answer's form leaves no choice about its text.
    Forced,
}

/// The share that one token has in what is known of its kind.
const RATE_WEIGHT: f64 = 0.2;
/// What is expected of each kind before anything is known of an answer: look-ups by few, some and many
/// tokens in common, and what is forced.
const EXPECTED: [f64; 4] = [0.3, 0.6, 0.85, 0.9];

/// How often guesses were right in one answer.
#[derive(Clone, Debug)]
pub struct Rates([f64; 4]);

impl Default for Rates {
    fn default() -> Self {
        Self(EXPECTED)
    }
}

impl Rates {
    /// The chance that a token is right.
    pub fn of(&self, source: Source) -> f64 {
        self.0[kind(source)]
    }

    /// A token was right, or not.
    pub fn learn(&mut self, source: Source, is_right: bool) {
        let rate = &mut self.0[kind(source)];
        *rate += RATE_WEIGHT * (f64::from(u8::from(is_right)) - *rate);
    }
}

fn kind(source: Source) -> usize {
    match source {
        Source::Lookup { same: ..4 } => 0,
        Source::Lookup { same: 4..8 } => 1,
        Source::Lookup { .. } => 2,
        Source::Forced => 3,
    }
}

#[cfg(test)]
mod tests;
