//! What is sampled of an answer, token by token: what it means, and what may follow.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Generation, SampleScratch, logprob};
use crate::chat::{ChatError, ChatEvent, Done, Finish, Timings, Usage};
use crate::gemma::parse::{End, Progress, Summary};
use crate::gemma::tracker::{AnswerPart, AnswerStep, Token as Written};
use crate::worker::link::Outbox;
use crate::worker::llama::{Guess, Token};
use crate::worker::messages::MaskReady;
use crate::worker::speculation::Costs;
use crate::worker::vocab::Vocab;

impl Generation {
    /// How many of the proposed tokens are tried in the next step.
    pub(super) fn draft(&self, costs: &Costs, is_alone: bool) -> usize {
        // One is drawn anyway.
        let left = self.limit.saturating_sub(self.usage.completion_tokens + 1) as usize;
        let reach = self.guide.reach(self.tracker.part());
        self.speculator.worth(costs, is_alone).min(left).min(reach)
    }

    /// Its fresh tokens were decoded, and those behind them that were tried: those that follow are
    /// sampled.
    pub fn decoded(&mut self) {
        self.fresh.clear();
    }

    /// Whether the token that was sampled last is the guess at this place, and another can be sampled from
    /// the row behind that.
    pub fn goes_on(&self, place: usize) -> bool {
        let guess = self.speculator.proposal().nth(place);
        guess == self.fresh.last().copied() && !self.guide.waits()
    }

    /// All tokens were sampled that could be; `drafted` were tried. The cache has all of them but the
    /// last.
    pub fn sampled(&mut self, drafted: usize) {
        self.speculator.drawn(&self.fresh, drafted);
        self.fresh.drain(..self.fresh.len().saturating_sub(1));
    }

    /// Guesses what comes next, by what was said before or with a drafter, and has the masks computed that
    /// are needed for it. `ask` has the drafter go on from the token that it gets; see
    /// [`Speculator::draft`](crate::worker::speculation::Speculator::draft). Returns how often it guessed.
    pub fn guess(
        &mut self,
        costs: &Costs,
        is_alone: bool,
        ask: impl FnOnce(Token, Arc<AtomicBool>, &mut dyn FnMut(Guess) -> bool),
    ) -> usize {
        if self.guide.has_masks() {
            return 0;
        }
        self.speculator.propose(&self.prompt.tokens);
        let (last, flag) = (self.fresh.last().copied(), self.cancel_flag());
        let drafts = self.speculator.draft(costs, is_alone, |goes_on| {
            if let Some(last) = last {
                ask(last, flag, goes_on);
            }
        });
        self.look_at_masks(costs, is_alone);
        drafts
    }

    /// Guesses what comes next by what was said before, and has the masks computed that are needed for it.
    fn look_ahead(&mut self, costs: &Costs, is_alone: bool) {
        if !self.guide.has_masks() {
            self.speculator.propose(&self.prompt.tokens);
            self.look_at_masks(costs, is_alone);
        }
    }

    /// Has the masks computed that are needed for the guesses.
    fn look_at_masks(&mut self, costs: &Costs, is_alone: bool) {
        let worth = self.speculator.worth(costs, is_alone);
        let guesses = self.speculator.proposal().take(worth);
        self.guide
            .look_ahead(guesses, self.speculator.ahead(is_alone));
    }

    /// Takes masks that it waited for, and the tokens for which these leave no choice. `Some` as in
    /// [`Generation::sample`].
    pub fn mask_ready(
        &mut self,
        ready: MaskReady,
        (costs, is_alone): (&Costs, bool),
        with: &mut SampleScratch<'_>,
        out: &mut Outbox,
    ) -> Result<Option<Finish>, ChatError> {
        if let Ok(masks) = &ready.masks {
            let (tokens, forced) = (&masks.tokens, masks.forced);
            // Where there are none what was looked up is still what is expected.
            if !tokens.is_empty() {
                self.speculator.propose_allowed(tokens, forced);
            }
        }
        self.guide.mask_ready(ready.masks, self.tracker.part())?;
        if self.logprobs.is_some() || self.speculator.ahead(is_alone) == 0 {
            return Ok(None);
        }
        while self.fresh.len() < self.most_fresh
            && let Some(token) = self.guide.only()
            && !with.suppressed.contains(&token)
        {
            self.sampler.take_only(token, with.candidates)?;
            self.speculator.taken_without(token);
            if let Some(finish) = self.take(token, None, with.vocab, out) {
                return Ok(Some(finish));
            }
        }
        if self.guide.waits() {
            self.look_ahead(costs, is_alone);
        }
        Ok(None)
    }

    /// Samples the next token from `row` and says what it means. `Some` when the answer is complete:
    /// then [`Generation::finish`] must follow.
    pub fn sample(
        &mut self,
        row: &[f32],
        with: &mut SampleScratch<'_>,
        out: &mut Outbox,
    ) -> Result<Option<Finish>, ChatError> {
        if self.limit == 0 {
            self.started(out);
            return Ok(Some(Finish::Length));
        }
        let goes_on = self.may_not_end();
        let sampled = self.sampler.sample(
            row,
            self.guide.allowed(self.tracker.part(), !goes_on),
            with.suppressed,
            with.candidates,
        );
        // Before anything is said: where the model is at fault another may answer.
        let token = sampled?;
        if self.read.is_none() {
            self.started(out);
        }
        Ok(self.take(token, Some(row), with.vocab, out))
    }

    /// Whether the answer goes on whatever the model says.
    fn may_not_end(&self) -> bool {
        self.ignore_ends || self.usage.completion_tokens < self.min_tokens
    }

    /// Takes the next token, which was sampled from `row`, and says what it means.
    fn take(
        &mut self,
        token: Token,
        row: Option<&[f32]>,
        vocab: Vocab,
        out: &mut Outbox,
    ) -> Option<Finish> {
        let goes_on = self.may_not_end();
        self.fresh.push(token);
        self.speculator.take(&self.prompt.tokens, token);
        self.usage.completion_tokens += 1;
        if vocab.is_end(token) {
            if let Some(row) = row {
                self.rate_end(row, token, vocab, out);
            }
            return Some(Finish::Stop);
        }
        let bytes = vocab.bytes(token);
        let guard = self.repetition.as_mut();
        let repeats = guard.is_some_and(|guard| guard.take(token as u32, &bytes));
        let control = vocab.is_marker(token);
        let written = match std::str::from_utf8(&bytes) {
            Ok(marker) if control => Written::Control(marker),
            _ => Written::Bytes(&bytes),
        };
        let step = self.tracker.take(written);
        self.guide.take(token, &bytes, step);
        let wanted = self.logprobs.zip(row);
        let logprob = wanted.map(|(count, row)| logprob::told(row, token, count, vocab));
        let (written, step) = match written {
            // A marker is no text, and begins nothing here.
            Written::Control(_) if self.raw => (Written::Bytes(&[]), AnswerStep::TEXT),
            Written::Bytes(_) if self.raw => (written, AnswerStep::TEXT),
            _ => (written, step),
        };
        let mut events = vec![];
        let progress = self.parser.push(written, step, logprob, &mut events);
        out.events(self.id, events);
        match progress {
            Progress::Stopped => Some(Finish::Stop),
            Progress::More if self.usage.completion_tokens >= self.limit => Some(Finish::Length),
            Progress::More if repeats && !goes_on => Some(Finish::Repetition),
            Progress::More => None,
        }
    }

    /// Reports the token that ends an answer to a rated prompt, in whose list each token has a place.
    fn rate_end(&mut self, row: &[f32], token: Token, vocab: Vocab, out: &mut Outbox) {
        if let Some(count) = self.logprobs.filter(|_| self.rates_end) {
            let logprob = logprob::told(row, token, count, vocab);
            let (none, mut events) = (Written::Bytes(&[]), vec![]);
            self.parser
                .push(none, AnswerStep::TEXT, Some(logprob), &mut events);
            out.events(self.id, events);
        }
    }

    /// Says what is left to say, and that this was it.
    pub fn finish(self, finish: Finish, vocab: Vocab, out: &mut Outbox) {
        let Self {
            id,
            tracker,
            parser,
            raw,
            fresh,
            usage,
            speculator,
            received,
            read,
            ..
        } = self;
        let ended = fresh.last().is_some_and(|&last| vocab.is_end(last));
        let part = if raw {
            AnswerPart::Text
        } else {
            tracker.part()
        };
        let mut events = vec![];
        let summary = parser.finish(part, if ended { End::Turn } else { End::Cut }, &mut events);
        let finish = match summary {
            Summary {
                stop: Some(which), ..
            } => Finish::StopString(which),
            // One that was ended for another reason is cut off as well.
            Summary { cut_call: true, .. } if finish != Finish::Repetition => Finish::Length,
            Summary { called: true, .. } if ended => Finish::ToolCalls,
            _ => finish,
        };
        let usage = Usage {
            reasoning_tokens: summary.reasoning_tokens,
            drafted: speculator.drafted(),
            ..usage
        };
        let read = read.unwrap_or(received);
        let timings = Timings {
            prompt_us: read.duration_since(received).as_micros() as u64,
            predicted_us: read.elapsed().as_micros() as u64,
        };
        events.push(ChatEvent::Done(Done {
            finish,
            usage,
            timings,
        }));
        out.events(id, events);
    }
}
