//! The loop: one batch a step, for all requests together. What a step does is decided by
//! [`super::schedule`]; this file performs it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TryRecvError};

use super::encoder::{EncodeJob, MediaEncoder};
use super::generation::{Generation, SampleScratch};
use super::inbox::Inbox;
use super::link::{Outbox, Writer};
use super::llama::{self, DecodeError};
use super::load::Engine;
use super::messages::{Encoded, MAX_WAITING, MaskReady, Prepared, ServerMessage};
use super::residency::Readiness;
use super::schedule::{
    self, Admission, EmbeddingsSegment, Limits, Receive, Segment, SequenceState, StepPlan, Tokens,
    WaitingState,
};
use crate::chat::{ChatError, Finish};
use crate::ipc::ServeEvent;
use crate::sys::usage::Usage;

/// Owner of the engine and of everything that is computed with it. Lives on one thread.
pub struct Server {
    engine: Engine,
    /// `None` without a projector.
    encoder: Option<MediaEncoder>,
    /// The request of each sequence.
    running: Vec<Option<Generation>>,
    /// Requests that have no sequence yet.
    waiting: VecDeque<Box<Prepared>>,
    /// The sequence whose media come first.
    media_turn: usize,
    /// Requests so far.
    requests: u64,
    /// Where the threads beside this one deliver.
    ready: SyncSender<ServerMessage>,
    writer: Writer,
    out: Outbox,
}

impl Server {
    pub fn new(
        engine: Engine,
        encoder: Option<MediaEncoder>,
        ready: SyncSender<ServerMessage>,
        writer: Writer,
    ) -> Self {
        let running = (0..engine.sequences.count()).map(|_| None).collect();
        Self {
            engine,
            encoder,
            running,
            waiting: VecDeque::new(),
            media_turn: 0,
            requests: 0,
            ready,
            writer,
            out: Outbox::default(),
        }
    }

    /// Answers requests until the channel ends. The error says that the packed weights are not what
    /// they should be; nothing was computed with them.
    pub fn run(mut self, inbox: &Inbox) -> Result<(), String> {
        while !inbox.ended()
            && let Some(plan) = self.next_step(inbox)
        {
            if self.is_warm()? {
                self.drop_cancelled();
                self.decode(&plan.segments);
                if let Some(segment) = plan.embeddings {
                    self.decode_embeddings(&segment);
                }
            }
            if self.writer.flush(&mut self.out).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the weights were read and are good; waits a moment for that.
    fn is_warm(&mut self) -> Result<bool, String> {
        self.engine
            .readiness
            .as_mut()
            .map_or(Ok(true), Readiness::wait)
    }

    /// Takes messages, starts requests and has media encoded until there is something to decode.
    /// `None` at the end.
    fn next_step(&mut self, inbox: &Inbox) -> Option<StepPlan> {
        loop {
            if inbox.must_trim() {
                self.trim();
            }
            self.drop_cancelled();
            let plan = self.plan();
            if !self.prepare(&plan) {
                continue;
            }
            let message = match plan.receive {
                Receive::Skip => return Some(plan),
                Receive::Poll => match inbox.ready.try_recv() {
                    Ok(message) => message,
                    Err(TryRecvError::Empty) => return Some(plan),
                    Err(TryRecvError::Disconnected) => return None,
                },
                Receive::Wait { idle } => {
                    self.writer.flush(&mut self.out).ok()?;
                    if let Some(table) = self.engine.per_layer.as_mut().filter(|_| idle) {
                        table.evict();
                    }
                    inbox.ready.recv().ok()?
                }
            };
            match message {
                ServerMessage::Prepared(prepared) => self.queue(prepared),
                ServerMessage::Encoded(encoded) => self.encoded(*encoded),
                ServerMessage::MaskReady(ready) => self.mask_ready(*ready),
                // The flag was seen above.
                ServerMessage::Trim => {}
                ServerMessage::End => return None,
            }
        }
    }

    fn plan(&self) -> StepPlan {
        let limits = &self.engine.limits;
        let limits = Limits {
            batch: limits.batch as usize,
            outputs: limits.slots as usize,
            embeddings: limits.picture_step as usize,
            window: limits.window,
        };
        let held = &self.engine.sequences;
        let state = |sequence: usize| {
            let request = self.running[sequence].as_ref().map(Generation::state);
            let may_start = request.is_none() && !self.waiting.is_empty();
            SequenceState {
                cached: held.cached(sequence),
                first_position: may_start.then(|| held.first_position(sequence)).flatten(),
                owner: held.owner(sequence),
                last_used: held.last_used(sequence),
                request,
            }
        };
        let sequences: Vec<_> = (0..held.count()).map(state).collect();
        let waiting = self.waiting.iter().map(|prepared| WaitingState {
            prompt: &prepared.prompt,
            owner: prepared.owner,
            cache_prompt: prepared.request.cache_prompt,
            rates_prompt: prepared.request.prompt_logprobs,
        });
        let waiting: Vec<_> = waiting.collect();
        schedule::step(&sequences, &waiting, self.media_turn, &limits)
    }

    /// Performs what the plan has before messages are received. `false` if something failed: then
    /// the rest of the plan is out of date.
    fn prepare(&mut self, plan: &StepPlan) -> bool {
        let mut all = true;
        for &admission in &plan.admissions {
            if let Some(prepared) = self.waiting.pop_front() {
                all &= self.start(*prepared, admission);
            }
        }
        for &sequence in &plan.encode {
            all &= self.encode(sequence);
        }
        all
    }

    fn queue(&mut self, prepared: Box<Prepared>) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(prepared);
        } else {
            let reason = format!("more than {MAX_WAITING} requests wait for a slot");
            self.out
                .failed(prepared.id, ChatError::Inference { reason });
        }
    }

    /// Releases memory: what is rarely needed, and when nothing is being answered all that can be made
    /// again.
    fn trim(&mut self) {
        let before = resident();
        if let Some(table) = &mut self.engine.per_layer {
            table.evict();
        }
        if self.waiting.is_empty() && self.running.iter().all(Option::is_none) {
            self.engine.sequences.release();
            self.encoder.iter().for_each(MediaEncoder::unload);
            self.engine.maps.evict();
        } else {
            self.engine.maps.mark_cold();
        }
        llama::trim();
        self.out.push(&ServeEvent::Trimmed {
            before,
            after: resident(),
        });
    }

    /// A medium was encoded; the request that waited for it may have ended.
    fn encoded(&mut self, Encoded { slot, id, rows }: Encoded) {
        let running = self.running[slot].as_mut();
        let Some(generation) = running.filter(|generation| generation.id == id) else {
            return;
        };
        match rows {
            Ok(rows) => generation.encoded(rows),
            Err(error) => {
                self.out.failed(id, error);
                self.free(slot);
            }
        }
    }

    /// A mask was computed; the request that waited for it may have ended.
    fn mask_ready(&mut self, ready: MaskReady) {
        let (slot, id) = (ready.slot, ready.id);
        let running = self.running[slot].as_mut();
        let Some(generation) = running.filter(|generation| generation.id == id) else {
            return;
        };
        if let Err(error) = generation.mask_ready(ready) {
            self.out.failed(id, error);
            self.free(slot);
        }
    }

    /// Has the next medium of a sequence's request encoded; `false` if that failed.
    fn encode(&mut self, sequence: usize) -> bool {
        let Some(generation) = &mut self.running[sequence] else {
            return true;
        };
        let (id, cancelled) = (generation.id, generation.cancel_flag());
        let Some(medium) = generation.encode_next() else {
            return true;
        };
        let job = EncodeJob {
            slot: sequence,
            id,
            medium: Arc::downgrade(medium),
            cancelled,
        };
        let asked = match &self.encoder {
            Some(encoder) => encoder.encode(job),
            None => Err(ChatError::Inference {
                reason: "the worker has no projector".to_owned(),
            }),
        };
        if let Err(error) = asked {
            self.out.failed(id, error);
            self.free(sequence);
            return false;
        }
        true
    }

    /// Starts a request on a free sequence; `false` if that failed.
    fn start(&mut self, prepared: Prepared, Admission { sequence, reuse }: Admission) -> bool {
        if prepared.cancelled() {
            return false;
        }
        let id = prepared.id;
        if let Err(reason) = self.engine.sequences.reserve() {
            self.out.failed(id, ChatError::Inference { reason });
            return false;
        }
        self.requests += 1;
        // Keys of a new `RandomState` are chosen at random by the system: good enough to sample words with.
        let seed = RandomState::new().hash_one(self.requests) as u32;
        let place = (sequence, self.ready.clone());
        let owner = prepared.owner;
        match Generation::start(prepared, reuse, seed, &self.engine, place) {
            Ok(generation) => {
                let sequences = &mut self.engine.sequences;
                sequences.reuse(sequence, owner, reuse, self.requests);
                self.running[sequence] = Some(generation);
                true
            }
            Err(error) => {
                self.out.failed(id, error);
                false
            }
        }
    }

    fn drop_cancelled(&mut self) {
        self.waiting.retain(|prepared| !prepared.cancelled());
        for sequence in 0..self.running.len() {
            if self.running[sequence]
                .as_ref()
                .is_some_and(Generation::cancelled)
            {
                self.free(sequence);
            }
        }
    }

    /// Takes a sequence's request away. What was decoded stays for the next one, unless the request
    /// said otherwise.
    fn free(&mut self, sequence: usize) -> Option<Generation> {
        let generation = self.running[sequence].take()?;
        if !generation.cache_prompt {
            self.engine.sequences.clear(sequence);
        }
        Some(generation)
    }

    /// Ends a sequence's request with an error; what the sequence holds is in doubt and goes.
    fn fail(&mut self, sequence: usize, error: ChatError) {
        if let Some(generation) = self.running[sequence].take() {
            self.out.failed(generation.id, error);
        }
        self.engine.sequences.clear(sequence);
    }

    /// Decodes a batch and samples from it.
    fn decode(&mut self, segments: &[Segment]) {
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
                let row = sequences.push(segment.sequence, tokens, segment.logits);
                rows.push((segment, row));
            }
        }
        if rows.is_empty() {
            return;
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
        match sequences.decode(flags) {
            Ok(()) => {
                for (segment, row) in rows {
                    self.rate(segment, row);
                    let running = self.running[segment.sequence].as_ref();
                    if running.is_some_and(|generation| generation.samples_behind(&segment.tokens))
                    {
                        self.sample(segment.sequence, row);
                    }
                }
            }
            // Every request was cancelled, or the worker is ending.
            Err(DecodeError::Aborted) => {}
            Err(error) => rows
                .iter()
                .for_each(|(segment, _)| self.fail(segment.sequence, inference(error))),
        }
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

    /// Samples the next token of a sequence from a row of logits.
    fn sample(&mut self, sequence: usize, row: usize) {
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
        let sampled = match sequences.logits(row) {
            Some(row) => generation.sample(row, &mut scratch, &mut self.out),
            None => Err(ChatError::Inference {
                reason: "llama.cpp gave no logits".to_owned(),
            }),
        };
        match sampled {
            Ok(None) => {}
            Ok(Some(finish)) => self.finish(sequence, finish),
            Err(error) => self.fail(sequence, error),
        }
    }

    fn finish(&mut self, sequence: usize, finish: Finish) {
        if let Some(generation) = self.free(sequence) {
            generation.finish(finish, self.engine.vocab, &mut self.out);
        }
    }

    /// Decodes a medium, or as much of it as one step takes.
    fn decode_embeddings(&mut self, segment: &EmbeddingsSegment) {
        let sequence = segment.sequence;
        let sequences = &mut self.engine.sequences;
        // A batch that failed has not brought the sequence to where the medium is.
        let due = sequences.cached(sequence).len() == segment.span.at + segment.offset;
        let Some(generation) = self.running[sequence].as_mut().filter(|_| due) else {
            return;
        };
        let cancelled = generation.cancel_flag();
        let Some(piece) = generation.piece(segment) else {
            return;
        };
        self.media_turn = sequence + 1;
        match sequences.decode_embeddings(sequence, &piece, cancelled) {
            Ok(()) => generation.piece_decoded(segment),
            Err(DecodeError::Aborted) => {}
            Err(error) => self.fail(sequence, inference(error)),
        }
    }
}

fn inference(error: DecodeError) -> ChatError {
    ChatError::Inference {
        reason: error.to_string(),
    }
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let Usage {
        anonymous,
        file_backed,
        ..
    } = Usage::own();
    anonymous + file_backed
}
