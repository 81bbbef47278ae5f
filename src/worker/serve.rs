//! The loop: one batch a step, for all requests together. What a step does is decided by
//! [`super::schedule`]; this file performs it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use super::encoder::MediaEncoder;
use super::generation::{Generation, tell_reading};
use super::inbox::Inbox;
use super::link::{Outbox, Writer};
use super::llama::{self, DecodeError};
use super::load::Engine;
use super::messages::{MAX_WAITING, Prepared, ServerMessage};
use super::prompt_cache::{PromptCache, Wish};
use super::residency::Readiness;
use super::schedule::pace::{Measured, Pace};
use super::schedule::{self, Admission, Limits, Receive, SequenceState, StepPlan};
use super::speculation::Costs;
use crate::chat::ChatError;
use crate::ipc::ServeEvent;
use crate::sys::usage::Usage;
use prompts::{Fetching, Waiting};
use room::ServerRoom;

mod decode;
mod media;
mod prompts;
mod room;

/// Owner of the engine and of everything that is computed with it. Lives on one thread.
pub struct Server {
    engine: Engine,
    /// `None` without a projector.
    encoder: Option<MediaEncoder>,
    /// The request of each sequence.
    running: Vec<Option<Generation>>,
    /// Requests that have no sequence yet.
    waiting: VecDeque<Waiting>,
    /// Those that wait for what is kept of their prompts.
    fetching: Vec<Fetching>,
    prompts: PromptCache,
    room: ServerRoom,
    /// Something was read since all was kept.
    has_unkept: bool,
    pace: Pace,
    costs: Costs,
    /// What a drafter took in this step.
    drafting: Duration,
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
        prompts: PromptCache,
        ready: SyncSender<ServerMessage>,
        writer: Writer,
    ) -> Self {
        let running = (0..engine.sequences.count()).map(|_| None).collect();
        let pace = Pace::new(engine.limits.step_time, engine.limits.batch as usize);
        let room = ServerRoom::new(&engine.limits);
        Self {
            engine,
            room,
            pace,
            costs: Costs::default(),
            drafting: Duration::ZERO,
            encoder,
            running,
            waiting: VecDeque::new(),
            fetching: vec![],
            prompts,
            has_unkept: false,
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
                tell_reading(&mut self.running, &self.engine.sequences, &self.writer);
                self.perform(&plan);
            }
            if self.writer.flush(&mut self.out).is_err() {
                break;
            }
        }
        // What was fetched for those who wait is not needed any more.
        self.waiting.clear();
        self.prompts.end();
        self.keep_all(true);
        self.prompts.finish();
        Ok(())
    }

    /// Decodes what the plan has, and learns how long that takes.
    fn perform(&mut self, plan: &StepPlan) {
        let start = Instant::now();
        self.drafting = Duration::ZERO;
        let mut whole = self.decode(&plan.segments);
        if let Some(segment) = plan.embeddings {
            whole &= self.decode_embeddings(&segment);
        }
        let is_one_piece = plan.embeddings.is_some() && self.engine.limits.whole_pictures;
        if whole && !is_one_piece {
            let (prompt, answers) = plan.counts();
            // Drafts are for later steps.
            let time = start.elapsed().saturating_sub(self.drafting);
            if answers == 0 {
                self.prompts.read(prompt, time);
            }
            let alone = plan.lone_answer();
            if let Some(tokens) = alone {
                self.costs.learn(tokens, time);
            }
            // What is tried makes a step longer that could be short.
            if alone.is_none_or(|tokens| tokens == 1) {
                self.pace.learn(Measured {
                    prompt,
                    answers,
                    time,
                });
            }
        }
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
            if let Some(tokens) = inbox.granted() {
                self.granted(tokens);
            }
            self.drop_cancelled();
            self.give_up_fetching();
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
                    let idle = idle && self.fetching.is_empty();
                    self.writer.flush(&mut self.out).ok()?;
                    if let Some(table) = self.engine.per_layer.as_mut().filter(|_| idle) {
                        table.evict();
                    }
                    match self.wait(inbox, idle)? {
                        Some(message) => message,
                        None => continue,
                    }
                }
            };
            match message {
                ServerMessage::Prepared(prepared) => self.queue(prepared),
                ServerMessage::Encoded(encoded) => self.encoded(*encoded),
                ServerMessage::MaskReady(ready) => self.mask_ready(*ready),
                ServerMessage::Kept(done) => self.keeper_done(*done),
                // Both are seen above.
                ServerMessage::Trim | ServerMessage::Granted => {}
                ServerMessage::End => return None,
            }
        }
    }

    fn plan(&self) -> StepPlan {
        let limits = &self.engine.limits;
        let limits = Limits {
            batch: limits.batch as usize,
            beside_answers: self.pace.prompt_tokens(),
            outputs: limits.outputs() as usize,
            embeddings: limits.picture_step as usize,
            whole_media: limits.whole_pictures,
            window: limits.window,
            room: self.room.limits,
        };
        let held = &self.engine.sequences;
        let is_alone = self.is_alone();
        let state = |sequence: usize| {
            let request = self.running[sequence].as_ref();
            let request = request.map(|request| request.state(&self.costs, is_alone));
            let may_start = request.is_none() && !self.waiting.is_empty();
            SequenceState {
                cached: held.cached(sequence),
                first_position: may_start.then(|| held.first_position(sequence)).flatten(),
                checkpoint: held.checkpoint(sequence),
                owner: held.owner(sequence),
                last_used: held.last_used(sequence),
                reserved: self.reserved(sequence),
                request,
            }
        };
        let sequences: Vec<_> = (0..held.count()).map(state).collect();
        let waiting: Vec<_> = self.waiting.iter().map(Waiting::state).collect();
        schedule::step(&sequences, &waiting, self.media_turn, &limits)
    }

    /// Performs what the plan has before messages are received. `false` if something failed: then
    /// the rest of the plan is out of date.
    fn prepare(&mut self, plan: &StepPlan) -> bool {
        let mut all = self.make_room(&plan.room);
        // The last ones first, so that the places of the others stay.
        let mut admitted = vec![];
        for &admission in plan.admissions.iter().rev().filter(|_| all) {
            let waiting = self.waiting.remove(admission.place);
            admitted.extend(waiting.map(|waiting| (waiting, admission)));
        }
        for (waiting, admission) in admitted.into_iter().rev() {
            all &= self.start(waiting, admission);
        }
        for &sequence in &plan.encode {
            all &= self.encode(sequence);
        }
        all
    }

    fn queue(&mut self, prepared: Box<Prepared>) {
        if self.waiting.len() + self.fetching.len() < MAX_WAITING {
            self.enqueue(prepared);
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
        let is_idle = self.waiting.is_empty() && self.fetching.is_empty();
        if is_idle && self.running.iter().all(Option::is_none) {
            self.forget_all();
            self.encoder.iter().for_each(MediaEncoder::unload);
            self.engine.maps.evict();
        } else {
            self.engine.maps.mark_cold();
            self.prompts.spare_memory();
            self.spare_room();
        }
        llama::trim();
        self.out.push(&ServeEvent::Trimmed {
            before,
            after: resident(),
        });
    }

    /// Starts a request on a free sequence; `false` if that failed.
    fn start(&mut self, waiting: Waiting, admission: Admission) -> bool {
        let Waiting {
            prepared,
            stops,
            fetched,
        } = waiting;
        let sequence = admission.sequence;
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
        let wish = Wish {
            retention: prepared.request.retention,
            sent: prepared.sent,
        };
        let there = self.bring(&prepared.prompt, admission, fetched, wish);
        self.engine.sequences.begin(sequence, owner, self.requests);
        self.room.promised[sequence] = admission.reserved;
        prepared.accept(&mut self.out);
        if there > 0 && stops.turn == Some(there) {
            self.note_turn(sequence, there);
        }
        match Generation::start(*prepared, (there, stops), seed, &self.engine, place) {
            Ok(mut generation) => {
                generation.expect(&self.costs);
                self.running[sequence] = Some(generation);
                // What could not be brought back has to be read: the plan counted on it.
                there == admission.reuse
            }
            Err(error) => {
                self.out.failed(id, error);
                false
            }
        }
    }

    fn drop_cancelled(&mut self) {
        self.waiting.retain(|waiting| !waiting.prepared.cancelled());
        self.fetching
            .retain(|fetching| !fetching.waiting.prepared.cancelled());
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
            self.clear(sequence);
        }
        Some(generation)
    }

    /// Ends a sequence's request with an error; what the sequence holds is in doubt and goes.
    fn fail(&mut self, sequence: usize, error: ChatError) {
        if let Some(generation) = self.running[sequence].take() {
            self.out.failed(generation.id, error);
        }
        self.clear(sequence);
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
