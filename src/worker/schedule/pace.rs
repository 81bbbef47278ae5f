//! How many tokens of prompts a step has beside running answers, so that none of these stands still
//! for longer than it may. Pure.
//!
//! What a token costs depends on the model, the machine, the other programs on it, and how full the
//! cache is. So nothing is reckoned beforehand: each step that has both says how far the next one
//! can go.

use std::time::Duration;

/// Tokens of prompts beside answers at least, and before anything was measured. Fewer are no
/// faster: each pass reads all weights, and llama.cpp takes two, one token of each sequence and then
/// what is left of the prompt.
const LEAST: f64 = 17.0;
/// Rows that the kernels for packed weights compute at a time.
const ROWS: usize = 4;
/// What a step without prompts takes may grow by this, where that is more than the limit: where
/// answers alone take that long, prompts get half of the machine.
const BESIDE: f64 = 2.0;
/// The share that one measurement has in what is known.
const WEIGHT: f64 = 0.25;
/// One step changes the number of tokens by these factors at most.
const CHANGE: (f64, f64) = (0.5, 1.5);

/// What one step computed, and how long that took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Tokens of prompts.
    pub prompt: usize,
    /// Answers that got a token.
    pub answers: usize,
    pub time: Duration,
}

/// The number of tokens of prompts beside answers, as it is measured.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Seconds that an answer may wait for its next token.
    limit: f64,
    /// Seconds of a step that has answers alone.
    answers: Option<f64>,
    tokens: f64,
    /// Tokens of a step at most.
    batch: f64,
}

impl Pace {
    pub fn new(limit: Duration, batch: usize) -> Self {
        let batch = (batch as f64).max(1.0);
        Self {
            limit: limit.as_secs_f64(),
            answers: None,
            tokens: LEAST.min(batch),
            batch,
        }
    }

    /// Tokens of prompts in the next step, if it has answers, too.
    pub fn prompt_tokens(&self) -> usize {
        let tokens = self.tokens as usize;
        // One goes with the answers' tokens; the others are whole groups of rows.
        tokens.saturating_sub(1) / ROWS * ROWS + 1
    }

    /// Learns from a step that was decoded to its end.
    pub fn learn(&mut self, measured: Measured) {
        let Measured {
            prompt,
            answers,
            time,
        } = measured;
        let time = time.as_secs_f64().max(1e-6);
        match (answers, prompt) {
            (0, _) => {}
            // Its answers were such as may wait.
            (_, read) if read > self.prompt_tokens() => {}
            (_, 0) => {
                let known = self.answers.unwrap_or(time);
                self.answers = Some(known + WEIGHT * (time - known));
            }
            _ => {
                // What answers take is not known: the number may grow, and not fall.
                let answers = self.answers.map_or(time, |answers| answers * BESIDE);
                let allowed = self.limit.max(answers);
                let change = (allowed / time).clamp(CHANGE.0, CHANGE.1);
                // A prompt's last tokens may be fewer than there was room for: that says nothing of more.
                let most = if prompt < self.prompt_tokens() {
                    1.0
                } else {
                    CHANGE.1
                };
                self.tokens =
                    (self.tokens * change.min(most)).clamp(LEAST.min(self.batch), self.batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that takes so many milliseconds for a step and for each token of it.
    fn settle(pace: &mut Pace, step: f64, token: f64) -> f64 {
        let time =
            |prompt: usize| Duration::from_secs_f64((step + token * (prompt as f64 + 1.0)) / 1e3);
        let mut longest = 0.0_f64;
        for turn in 0..60 {
            let prompt = if turn % 10 == 0 {
                0
            } else {
                pace.prompt_tokens()
            };
            let time = time(prompt);
            if turn > 20 {
                longest = longest.max(time.as_secs_f64() * 1e3);
            }
            pace.learn(Measured {
                prompt,
                answers: 1,
                time,
            });
        }
        longest
    }

    #[test]
    fn steps_take_what_they_may() {
        let limit = Duration::from_millis(250);
        // Milliseconds of a step and of a token in it, and the tokens that fit.
        for (step, token, fits) in [
            (70.0, 5.0, 35),
            (20.0, 1.0, 229),
            (90.0, 8.0, 19),
            (5.0, 0.1, 256),
        ] {
            let mut pace = Pace::new(limit, 256);
            let longest = settle(&mut pace, step, token);
            // It tries how far it can go, a group at a time.
            let group = token * ROWS as f64;
            assert!(longest <= 250.0 + group, "{step} {token}: {longest}");
            let tokens = pace.prompt_tokens();
            assert!(
                tokens % ROWS == 1 && tokens.abs_diff(fits) <= ROWS + fits / 10,
                "{step} {token}: {tokens}, not {fits}"
            );
        }
    }

    #[test]
    fn a_machine_that_is_slower_than_the_limit_still_reads() {
        let mut pace = Pace::new(Duration::from_millis(250), 256);
        let longest = settle(&mut pace, 400.0, 20.0);
        assert!([17, 21].contains(&pace.prompt_tokens()), "{pace:?}");
        assert!(longest < 860.0, "{longest}");
        let mut pace = Pace::new(Duration::from_millis(1), 256);
        settle(&mut pace, 10.0, 200.0);
        assert_eq!(pace.prompt_tokens(), 17);
    }

    #[test]
    fn the_end_of_a_prompt_and_steps_without_answers_say_nothing() {
        let mut pace = Pace::new(Duration::from_millis(250), 256);
        let before = pace.prompt_tokens();
        for (prompt, answers) in [(1, 1), (256, 0), (0, 1)] {
            pace.learn(Measured {
                prompt,
                answers,
                time: Duration::from_millis(1),
            });
            assert_eq!(pace.prompt_tokens(), before);
        }
    }

    #[test]
    fn it_follows_a_machine_that_changes() {
        let mut pace = Pace::new(Duration::from_millis(250), 256);
        settle(&mut pace, 20.0, 1.0);
        settle(&mut pace, 70.0, 5.0);
        assert!(pace.prompt_tokens() <= 37, "{pace:?}");
        settle(&mut pace, 20.0, 1.0);
        assert!(pace.prompt_tokens() >= 200, "{pace:?}");
    }

    #[test]
    fn where_answers_were_never_alone_prompts_go_on() {
        let mut pace = Pace::new(Duration::from_millis(250), 256);
        for _ in 0..20 {
            let prompt = pace.prompt_tokens();
            pace.learn(Measured {
                prompt,
                answers: 1,
                time: Duration::from_secs(1),
            });
        }
        assert_eq!(pace.prompt_tokens(), LEAST as usize);
    }

    #[test]
    fn a_batch_of_one_is_its_own_limit() {
        let pace = Pace::new(Duration::from_millis(250), 1);
        assert_eq!(pace.prompt_tokens(), 1);
    }
}
