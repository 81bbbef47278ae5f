//! How many tokens are worth being tried: what a step of so many costs on this machine, held against how
//! likely they are to be right. Pure.
//!
//! Steps that have one answer alone are measured. What they cost is kept in steps of one token, so that
//! a machine that gets slower as a whole changes little of it. So is what a drafter takes for a guess.

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
/// What a guess of a drafter costs before that was measured, in steps of one token.
const GUESS_OF_DRAFT: f64 = 0.15;

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
    /// What a drafter takes for a guess, in steps of one token; `None`: not measured.
    draft: Option<f64>,
    /// How often its guesses were right in the answers so far.
    drafter: [f64; OF_DRAFTER],
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            plain: None,
            each: GUESS,
            steps: [None; MOST],
            since_plain: 0,
            draft: None,
            drafter: DRAFTER_EXPECTED,
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

    /// Learns how long a drafter took for so many guesses.
    pub fn learn_draft(&mut self, guesses: usize, time: Duration) {
        let Some(plain) = self.plain.filter(|_| guesses > 0) else {
            return;
        };
        let cost = time.as_secs_f64() / guesses as f64 / plain;
        let draft = self.draft.get_or_insert(cost);
        *draft += WEIGHT * (cost - *draft);
    }

    /// Learns from an answer how often a drafter is right.
    pub fn remember(&mut self, rates: &Rates) {
        let weight = f64::from(rates.known[ANY].min(REMEMBERED)) / f64::from(2 * REMEMBERED);
        let of_answer = rates.rates.iter().skip(DRAFTER);
        for (known, of_answer) in self.drafter.iter_mut().zip(of_answer) {
            *known += weight * (of_answer - *known);
        }
    }

    /// What may be expected in an answer that begins.
    pub fn expected(&self) -> Rates {
        let mut rates = Rates::default();
        rates.rates[DRAFTER..].copy_from_slice(&self.drafter);
        rates
    }

    /// What a guess of a drafter costs, in steps of one token.
    fn draft(&self) -> f64 {
        self.draft.unwrap_or(GUESS_OF_DRAFT)
    }

    /// Whether one more guess of a drafter is expected to save more time than it takes. `expected`: tokens
    /// of the step with the `guesses` that it made; `chance`: that the next one is right, and all before it.
    pub fn pays(&self, guesses: usize, expected: f64, chance: f64) -> bool {
        let cost = |guesses: usize| self.step(guesses + 1) + self.draft() * guesses as f64;
        (expected + chance) * cost(guesses) > expected * cost(guesses + 1)
    }

    /// What is gained by the guesses of a drafter each of which is right by this chance, as a factor;
    /// 1: none is worth its time.
    pub fn gain_of_drafts(&self, chance: f64) -> f64 {
        self.best(std::iter::repeat(chance), self.draft()).1
    }

    /// What is gained by tokens of these chances, as a factor; 1: none is worth being tried.
    pub fn gain(&self, chances: impl Iterator<Item = f64>) -> f64 {
        self.best(chances, 0.0).1
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
        self.best(chances, 0.0).0
    }

    /// How many of them, each of which costs `each` beside its place in the step, and what is gained, as a
    /// factor.
    fn best(&self, chances: impl Iterator<Item = f64>, each: f64) -> (usize, f64) {
        let (mut best, mut best_gain) = (0, 1.0);
        if self.plain.is_none() || self.since_plain >= REMEASURED {
            return (best, best_gain);
        }
        let (mut expected, mut all_right) = (1.0, 1.0);
        for (i, chance) in chances.take(MOST).enumerate() {
            all_right *= chance;
            expected += all_right;
            let gain = expected / (self.step(i + 2) + each * (i + 1) as f64);
            if gain > best_gain.max(LEAST_GAIN) {
                (best, best_gain) = (i + 1, gain);
            }
        }
        (best, best_gain)
    }
}

/// How a token was guessed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// It stands behind words of which so many are the same.
    Lookup { same: usize },
    /// The answer's form leaves no choice about its text.
    Forced,
    /// A drafter says so, and thinks it so likely, from 0 to 1.
    Drafter { chance: f32 },
}

/// The share that one token has in what is known of its kind. What is looked up is right, or wrong, for
/// many tokens in a row.
const RATE_WEIGHT: f64 = 0.2;
/// The share that one guess has in what is known of a drafter's: the first few count as much as what was
/// expected, and later ones less, so that a few wrong ones among many right ones do not end it.
const DRAFTER_WEIGHT: f64 = 0.1;
/// Guesses that what was expected counts for.
const EXPECTED_WEIGHT: f64 = 5.0;
/// What is expected of each kind before anything is known of an answer: look-ups by few, some and many
/// tokens in common, and what is forced.
const EXPECTED: [f64; DRAFTER] = [0.3, 0.6, 0.85, 0.9];
/// Where the kinds of a drafter begin: by how likely it thinks its guess, and then any of its guesses.
const DRAFTER: usize = 4;
const DRAFTER_EXPECTED: [f64; OF_DRAFTER] = [0.35, 0.6, 0.8, 0.93, 0.75];
const OF_DRAFTER: usize = 5;
const KINDS: usize = DRAFTER + OF_DRAFTER;
const ANY: usize = KINDS - 1;
/// By this share the chance of any guess of a drafter comes back to what is expected, with each token of
/// the answer: what is said next may be easier.
const RECOVERED: f64 = 1.0 / 512.0;
/// After so many guesses of a drafter an answer counts half in what is expected of the next one.
const REMEMBERED: u32 = 16;

/// How often guesses were right in one answer.
#[derive(Clone, Debug)]
pub struct Rates {
    rates: [f64; KINDS],
    /// Tokens of each kind that were right or wrong.
    known: [u32; KINDS],
}

impl Default for Rates {
    fn default() -> Self {
        let mut rates = [0.0; KINDS];
        rates[..DRAFTER].copy_from_slice(&EXPECTED);
        rates[DRAFTER..].copy_from_slice(&DRAFTER_EXPECTED);
        Self {
            rates,
            known: [0; KINDS],
        }
    }
}

impl Rates {
    /// The chance that a token is right.
    pub fn of(&self, source: Source) -> f64 {
        self.rates[kind(source)]
    }

    /// The chance that a guess is right for which a drafter is not asked yet, if all before it are.
    pub fn of_drafter(&self) -> f64 {
        self.rates[ANY]
    }

    /// The answer has one more token.
    pub fn recover(&mut self) {
        let any = &mut self.rates[ANY];
        *any += RECOVERED * (DRAFTER_EXPECTED[ANY - DRAFTER] - *any).max(0.0);
    }

    /// A token was right, or not.
    pub fn learn(&mut self, source: Source, is_right: bool) {
        let mut learn = |kind: usize| {
            let (rate, known) = (&mut self.rates[kind], &mut self.known[kind]);
            let weight = match kind {
                ..DRAFTER => RATE_WEIGHT,
                _ => (f64::from(*known) + EXPECTED_WEIGHT)
                    .recip()
                    .max(DRAFTER_WEIGHT),
            };
            *rate += weight * (f64::from(u8::from(is_right)) - *rate);
            *known = known.saturating_add(1);
        };
        learn(kind(source));
        if let Source::Drafter { .. } = source {
            learn(ANY);
        }
    }
}

fn kind(source: Source) -> usize {
    match source {
        Source::Lookup { same: ..4 } => 0,
        Source::Lookup { same: 4..8 } => 1,
        Source::Lookup { .. } => 2,
        Source::Forced => 3,
        Source::Drafter { chance: ..0.5 } => DRAFTER,
        Source::Drafter { chance: ..0.8 } => DRAFTER + 1,
        Source::Drafter { chance: ..0.95 } => DRAFTER + 2,
        Source::Drafter { .. } => DRAFTER + 3,
    }
}

#[cfg(test)]
mod tests;
