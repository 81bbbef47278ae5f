//! The loop: one batch a step, for all requests together.

use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::TryRecvError;

use super::inbox::{Inbox, Turn};
use super::link::{Outbox, Writer};
use super::llama::DecodeError;
use super::load::Engine;
use super::prefix::{self, Candidate, Choice};
use super::prepare::Prepared;
use super::share::share;
use super::slot::{Drawing, Slot, Work};
use crate::chat::{ChatError, Finish};

/// What one slot has in the running step.
struct Portion {
    slot: usize,
    /// Tokens that it gets.
    count: usize,
    /// The place in the batch whose logits it draws from, if it draws.
    output: Option<usize>,
}

/// Owner of the engine and of everything that is computed with it. Lives on one thread.
pub struct Server {
    engine: Engine,
    slots: Vec<Slot>,
    /// The running step.
    portions: Vec<Portion>,
    /// Requests so far.
    requests: u64,
    writer: Writer,
    out: Outbox,
}

impl Server {
    pub fn new(engine: Engine, writer: Writer) -> Self {
        let slots = (0..engine.limits.slots).map(|_| Slot::default()).collect();
        Self { engine, slots, portions: vec![], requests: 0, writer, out: Outbox::default() }
    }

    /// Answers requests until the channel ends.
    pub fn run(mut self, inbox: &Inbox) {
        while !inbox.ended() && self.admit(inbox) {
            self.drop_cancelled();
            self.plan();
            self.step();
            if self.writer.flush(&mut self.out).is_err() {
                return;
            }
        }
    }

    /// Gives waiting requests to free slots; waits for one when there is nothing else to do. `false` at the end.
    fn admit(&mut self, inbox: &Inbox) -> bool {
        loop {
            let busy = self.slots.iter().filter(|slot| slot.work.is_some()).count();
            if busy == self.slots.len() {
                return true;
            }
            let turn = if busy > 0 {
                inbox.ready.try_recv()
            } else if self.writer.flush(&mut self.out).is_err() {
                return false;
            } else {
                inbox.ready.recv().map_err(|_| TryRecvError::Disconnected)
            };
            match turn {
                Ok(Turn::Ready(prepared)) => self.start(*prepared),
                Err(TryRecvError::Empty) => return true,
                Ok(Turn::End) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Puts a request into the best free slot; there is one.
    fn start(&mut self, prepared: Prepared) {
        if prepared.cancelled() {
            return;
        }
        let context = &self.engine.context;
        let free = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.work.is_none())
            .map(|(i, slot)| (i, Candidate { tokens: &slot.tokens, oldest: context.oldest(i as u32), last_used: slot.last_used }));
        let Some(Choice { slot, keep }) = prefix::choose(free, &prepared.prompt, self.engine.limits.window, prepared.request.cache_prompt)
        else {
            return;
        };
        self.requests += 1;
        let id = prepared.id;
        // Keys of a new `RandomState` are drawn by the system: good enough to draw words with.
        let seed = RandomState::new().hash_one(self.requests) as u32;
        match Work::start(prepared, keep, seed, self.engine.vocab, &self.engine.limits) {
            Ok(work) => {
                self.forget_from(slot, keep);
                self.slots[slot].last_used = self.requests;
                self.slots[slot].work = Some(work);
            }
            Err(error) => self.out.failed(id, error),
        }
    }

    fn drop_cancelled(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].work.as_ref().is_some_and(Work::cancelled) {
                self.free(slot);
            }
        }
    }

    fn finish(&mut self, slot: usize, finish: Finish) {
        if let Some(work) = self.free(slot) {
            work.finish(finish, self.engine.vocab, &mut self.out);
        }
    }

    /// Takes the slot's request away. What was read stays for the next one, unless the request said otherwise.
    fn free(&mut self, slot: usize) -> Option<Work> {
        let work = self.slots[slot].work.take()?;
        if !work.stays {
            self.forget_from(slot, 0);
        }
        Some(work)
    }

    /// Fills the batch: slots in order, as llama.cpp computes those together that follow each other.
    fn plan(&mut self) {
        self.engine.batch.clear();
        self.portions.clear();
        let wants: Vec<_> = self.slots.iter().map(Slot::want).collect();
        for (i, count) in share(&wants, self.engine.limits.batch as usize).into_iter().enumerate() {
            let slot = &self.slots[i];
            let Some(work) = slot.work.as_ref().filter(|_| count > 0) else {
                continue;
            };
            let held = slot.tokens.len();
            let draws = work.draws_at(held + count);
            let mut last = 0;
            for (offset, &token) in work.next(held, count).iter().enumerate() {
                last = self.engine.batch.push(token, (held + offset) as u32, i as u32, draws && offset + 1 == count);
            }
            self.portions.push(Portion { slot: i, count, output: draws.then_some(last) });
        }
    }

    /// Computes the batch and draws from it.
    fn step(&mut self) {
        if self.engine.batch.is_empty() {
            return;
        }
        let slots = &self.slots;
        let flags = self.portions.iter().filter_map(|portion| slots[portion.slot].work.as_ref().map(Work::cancel_flag));
        match self.engine.context.decode(&mut self.engine.batch, flags) {
            Ok(()) => self.advance(),
            // Everyone was cancelled, or the worker is ending: the slots go back to where they were.
            Err(DecodeError::Aborted) => self.each_portion(|server, portion| {
                let held = server.slots[portion.slot].tokens.len();
                server.forget_from(portion.slot, held);
            }),
            Err(error) => self.each_portion(|server, portion| {
                server.fail(portion.slot, ChatError::Inference { reason: error.to_string() });
            }),
        }
    }

    /// The batch was computed: the slots hold its tokens now, and those that are through their prompt draw.
    fn advance(&mut self) {
        self.each_portion(|server, portion| {
            let Server { engine, slots, out, .. } = server;
            let Slot { tokens, work: Some(work), .. } = &mut slots[portion.slot] else {
                return;
            };
            let held = tokens.len();
            tokens.extend_from_slice(work.next(held, portion.count));
            let Some(place) = portion.output else {
                return;
            };
            let Engine { context, vocab, candidates, ends, suppressed, calls, .. } = engine;
            let mut drawing = Drawing { vocab: *vocab, ends, suppressed, calls, candidates };
            let drawn = match context.logits(place) {
                Some(row) => work.draw(row, &mut drawing, out),
                None => Err(ChatError::Inference { reason: "llama.cpp gave no logits".to_owned() }),
            };
            match drawn {
                Ok(None) => {}
                Ok(Some(finish)) => server.finish(portion.slot, finish),
                Err(error) => server.fail(portion.slot, error),
            }
        });
    }

    /// Ends the slot's request with an error; what the slot holds is in doubt and goes.
    fn fail(&mut self, slot: usize, error: ChatError) {
        if let Some(work) = self.slots[slot].work.take() {
            self.out.failed(work.id, error);
        }
        self.forget_from(slot, 0);
    }

    fn forget_from(&mut self, slot: usize, from: usize) {
        self.engine.context.cut(slot as u32, from as u32);
        self.slots[slot].tokens.truncate(from);
    }

    fn each_portion(&mut self, act: impl Fn(&mut Self, &Portion)) {
        let portions = std::mem::take(&mut self.portions);
        for portion in &portions {
            act(self, portion);
        }
        self.portions = portions;
    }
}
