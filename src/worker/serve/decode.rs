//! One batch: what it computes, and what is sampled from it.

use std::time::{Duration, Instant};

use super::{Server, inference};
use crate::chat::{ChatError, Finish};
use crate::worker::generation::{Generation, SampleScratch};
use crate::worker::llama::DecodeError;
use crate::worker::load::Engine;
use crate::worker::messages::MaskReady;
use crate::worker::schedule::{Segment, Tokens};
use crate::worker::speculation;

impl Server {
    /// Decodes a batch and samples from it; `false` if that did not come to its end.
    pub(super) fn decode(&mut self, segments: &[Segment]) -> bool {
        self.note_before(segments);
        let Self {
            engine, running, ..
        } = self;
        let sequences = &mut engine.sequences;
        sequences.clear_batch();
        let mut rows = vec![];
        for segment in segments {
            // A request may have been cancelled after the plan was made.
            if let Some(generation) = &running[segment.sequence] {
                let tokens = generation.tokens(&segment.tokens);
                let row = sequences.push(segment.sequence, &tokens, segment.logits);
                rows.push((segment, row));
            }
        }
        if rows.is_empty() {
            return true;
        }
        if let Some(table) = &mut engine.per_layer {
            table.trim();
            table.fetch(sequences.batch());
        }
        let flags = rows.iter().filter_map(|(segment, _)| {
            running[segment.sequence]
                .as_ref()
                .map(Generation::cancel_flag)
        });
        let decoded = sequences.decode(flags);
        match decoded {
            Ok(()) => {
                for (segment, row) in rows {
                    self.rate(segment, row);
                    self.note(segment);
                    let running = self.running[segment.sequence].as_ref();
                    if running.is_some_and(|generation| generation.samples_behind(&segment.tokens))
                    {
                        self.sample(segment, row);
                    }
                }
            }
            // Every request was cancelled, or the worker is ending.
            Err(DecodeError::Aborted) => {}
            Err(error) => rows
                .iter()
                .for_each(|(segment, _)| self.fail(segment.sequence, inference(error))),
        }
        decoded.is_ok()
    }

    /// Rates the tokens of a prompt that stand behind those of a segment, whose last is at `last` in
    /// the batch. Only where all of the segment's logits were wanted for that.
    fn rate(&mut self, segment: &Segment, last: usize) {
        let Tokens::Prompt(range) = &segment.tokens else {
            return;
        };
        let Engine {
            sequences, vocab, ..
        } = &mut self.engine;
        let Some(generation) = &mut self.running[segment.sequence] else {
            return;
        };
        if !generation.rates_prompt() {
            return;
        }
        for at in range.clone() {
            let row = last + at + 1 - range.end;
            if let Some(logits) = sequences.logits(row) {
                generation.rate(logits, at + 1, vocab);
            }
        }
    }

    /// Samples the next tokens of a sequence, whose segment's last token is at `last` in the batch: the
    /// one behind what is known of it, and the ones behind tokens that were tried, up to the first that
    /// is another. What was tried behind that is removed.
    fn sample(&mut self, segment: &Segment, last: usize) {
        let sequence = segment.sequence;
        let draft = match segment.tokens {
            Tokens::Sampled { draft, .. } => draft,
            Tokens::Prompt(_) => 0,
        };
        let is_alone = self.is_alone();
        let Engine {
            sequences,
            vocab,
            candidates,
            suppressed,
            ..
        } = &mut self.engine;
        let Some(generation) = &mut self.running[sequence] else {
            return;
        };
        let mut scratch = SampleScratch {
            vocab,
            suppressed,
            candidates,
        };
        generation.decoded();
        let (right, outcome) = speculation::verify(draft, |right| {
            let sampled = match sequences.logits(last - draft + right) {
                Some(row) => generation.sample(row, &mut scratch, &mut self.out),
                None => Err(ChatError::Inference {
                    reason: "llama.cpp gave no logits".to_owned(),
                }),
            };
            let goes_on = matches!(sampled, Ok(None)) && generation.goes_on(right);
            (sampled, goes_on)
        });
        if right < draft {
            let held = sequences.cached(sequence).len();
            sequences.truncate(sequence, held - (draft - right));
        }
        generation.sampled(draft);
        if let Ok(None) = outcome {
            let row = last - draft + right;
            let begun = Instant::now();
            let mut drafting = Duration::ZERO;
            let drafts = generation.guess(&self.costs, is_alone, |token, cancelled, goes_on| {
                sequences.draft(sequence, (row, token), cancelled, goes_on);
                drafting = begun.elapsed();
            });
            self.costs.learn_draft(drafts, drafting);
            self.drafting += drafting;
        }
        match outcome {
            Ok(None) => {}
            Ok(Some(finish)) => self.finish(sequence, finish),
            Err(error) => self.fail(sequence, error),
        }
    }

    /// Masks were computed; the request that waited for them may have ended.
    pub(super) fn mask_ready(&mut self, ready: MaskReady) {
        let (slot, id) = (ready.slot, ready.id);
        let is_alone = self.is_alone();
        let Engine {
            vocab,
            candidates,
            suppressed,
            ..
        } = &mut self.engine;
        let running = self.running[slot].as_mut();
        let Some(generation) = running.filter(|generation| generation.id == id) else {
            return;
        };
        let mut scratch = SampleScratch {
            vocab,
            suppressed,
            candidates,
        };
        let speed = (&self.costs, is_alone);
        match generation.mask_ready(ready, speed, &mut scratch, &mut self.out) {
            Ok(None) => {}
            Ok(Some(finish)) => self.finish(slot, finish),
            Err(error) => {
                self.out.failed(id, error);
                self.free(slot);
            }
        }
    }

    /// Whether one request runs, and no other.
    pub(super) fn is_alone(&self) -> bool {
        self.running.iter().flatten().count() == 1
    }

    pub(super) fn finish(&mut self, sequence: usize, finish: Finish) {
        if let Some(generation) = self.free(sequence) {
            generation.teach(&mut self.costs);
            generation.finish(finish, self.engine.vocab, &mut self.out);
        }
    }
}
