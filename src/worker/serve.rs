//! The loop: one batch a step, for all requests together.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TryRecvError};

use super::constraint::Masked;
use super::inbox::{Inbox, MAX_WAITING, Turn};
use super::link::{Outbox, Writer};
use super::llama::{self, DecodeError, Rows};
use super::load::Engine;
use super::media::{Job, Perceived, Senses};
use super::prefix::{self, Candidate, Choice};
use super::prepare::Prepared;
use super::residency::Readiness;
use super::share::{Want, share};
use super::slot::{Drawing, Slot, Work};
use crate::chat::{ChatError, Finish};
use crate::ipc::ServeEvent;
use crate::sys::usage::Usage;

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
    /// `None` without a projector.
    senses: Option<Senses>,
    slots: Vec<Slot>,
    /// Requests for which there was no slot while messages about media were taken.
    waiting: VecDeque<Box<Prepared>>,
    /// The slot whose turn it is to read a picture or a sound.
    next_shown: usize,
    /// The running step.
    portions: Vec<Portion>,
    /// Requests so far.
    requests: u64,
    /// Where the threads beside this one deliver.
    ready: SyncSender<Turn>,
    writer: Writer,
    out: Outbox,
}

impl Server {
    pub fn new(
        engine: Engine,
        senses: Option<Senses>,
        ready: SyncSender<Turn>,
        writer: Writer,
    ) -> Self {
        let slots = (0..engine.limits.slots).map(|_| Slot::default()).collect();
        let (waiting, portions, out) = (VecDeque::new(), vec![], Outbox::default());
        Self {
            engine,
            senses,
            slots,
            waiting,
            next_shown: 0,
            portions,
            requests: 0,
            ready,
            writer,
            out,
        }
    }

    /// Answers requests until the channel ends. The error says that the packed weights are not what
    /// they should be; nothing was computed with them.
    pub fn run(mut self, inbox: &Inbox) -> Result<(), String> {
        while !inbox.ended() && self.admit(inbox) {
            self.drop_cancelled();
            if self.is_warm()? {
                self.plan();
                self.step();
                self.show();
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

    /// Gives waiting requests to free slots and media to those that wait for them; waits for either
    /// when there is nothing else to do. `false` at the end.
    fn admit(&mut self, inbox: &Inbox) -> bool {
        loop {
            if inbox.must_ease() {
                self.ease();
            }
            while self.slots.iter().any(|slot| slot.work.is_none())
                && let Some(prepared) = self.waiting.pop_front()
            {
                self.start(*prepared);
            }
            let step = self.engine.limits.picture_step as usize;
            let busy = self
                .slots
                .iter()
                .any(|slot| slot.want() != Want::Idle || slot.piece(step).is_some());
            let turn = if busy {
                // With all slots taken, nobody but a slot that waits for something has a use for a
                // message.
                if self
                    .slots
                    .iter()
                    .all(|slot| slot.work.as_ref().is_some_and(|work| !work.waits()))
                {
                    return true;
                }
                inbox.ready.try_recv()
            } else if self.writer.flush(&mut self.out).is_err() {
                return false;
            } else {
                // A slot that waits will soon go on.
                if self.slots.iter().all(|slot| slot.work.is_none())
                    && let Some(table) = &mut self.engine.per_layer
                {
                    table.give_back();
                }
                inbox.ready.recv().map_err(|_| TryRecvError::Disconnected)
            };
            match turn {
                Ok(Turn::Ready(prepared)) if self.waiting.len() < MAX_WAITING => {
                    self.waiting.push_back(prepared)
                }
                Ok(Turn::Ready(prepared)) => {
                    let reason = format!("more than {MAX_WAITING} requests wait for a slot");
                    self.out
                        .failed(prepared.id, ChatError::Inference { reason });
                }
                Ok(Turn::Perceived(perceived)) => self.perceived(*perceived),
                Ok(Turn::Masked(masked)) => self.masked(*masked),
                Ok(Turn::Ease) => {}
                Err(TryRecvError::Empty) => return true,
                Ok(Turn::End) | Err(TryRecvError::Disconnected) => return false,
            }
            self.drop_cancelled();
        }
    }

    /// Gives memory back: what is rarely needed, and when nothing is being answered all that can be
    /// made again.
    fn ease(&mut self) {
        let before = resident();
        if let Some(table) = &mut self.engine.per_layer {
            table.give_back();
        }
        if self.waiting.is_empty() && self.slots.iter().all(|slot| slot.work.is_none()) {
            self.slots.iter_mut().for_each(|slot| slot.held.truncate(0));
            self.engine.context.release();
            self.senses.iter().for_each(Senses::rest);
            self.engine.maps.give_back();
        } else {
            self.engine.maps.cool();
        }
        llama::trim();
        self.out.push(&ServeEvent::Eased {
            before,
            after: resident(),
        });
    }

    /// A medium was perceived; whoever waited for it may be gone.
    fn perceived(&mut self, Perceived { slot, id, rows }: Perceived) {
        let Some(work) = self.slots[slot].work.as_mut().filter(|work| work.id == id) else {
            return;
        };
        match rows {
            Ok(rows) => work.rows = Some(rows),
            Err(error) => {
                self.out.failed(id, error);
                self.free(slot);
            }
        }
    }

    /// A mask was computed; whoever waited for it may be gone.
    fn masked(&mut self, masked: Masked) {
        let (slot, id) = (masked.slot, masked.id);
        let Some(work) = self.slots[slot].work.as_mut().filter(|work| work.id == id) else {
            return;
        };
        if let Err(error) = work.masked(masked) {
            self.out.failed(id, error);
            self.free(slot);
        }
    }

    /// Has the slot's next medium perceived, if there is one.
    fn ask(&mut self, slot: usize) {
        let Some(work) = &self.slots[slot].work else {
            return;
        };
        let Some(medium) = work.next_medium() else {
            return;
        };
        let job = Job {
            slot,
            id: work.id,
            medium: Arc::downgrade(medium),
            cancelled: work.cancel_flag(),
        };
        let nobody = || {
            Err(ChatError::Inference {
                reason: "the worker has no projector".to_owned(),
            })
        };
        if let Err(error) = self
            .senses
            .as_ref()
            .map_or_else(nobody, |senses| senses.perceive(job))
        {
            self.out.failed(work.id, error);
            self.free(slot);
        }
    }

    /// Puts a request into the best free slot; there is one.
    fn start(&mut self, prepared: Prepared) {
        if prepared.cancelled() {
            return;
        }
        if let Err(reason) = self.engine.context.renew() {
            return self
                .out
                .failed(prepared.id, ChatError::Inference { reason });
        }
        let context = &self.engine.context;
        let free = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.work.is_none())
            .map(|(i, slot)| {
                (
                    i,
                    Candidate {
                        held: &slot.held,
                        oldest: context.oldest(i as u32),
                        last_used: slot.last_used,
                    },
                )
            });
        let Some(Choice { slot, keep }) = prefix::choose(
            free,
            &prepared.prompt,
            self.engine.limits.window,
            prepared.request.cache_prompt,
        ) else {
            return;
        };
        self.requests += 1;
        let id = prepared.id;
        // Keys of a new `RandomState` are drawn by the system: good enough to draw words with.
        let seed = RandomState::new().hash_one(self.requests) as u32;
        match Work::start(
            prepared,
            keep,
            seed,
            &self.engine,
            (slot, self.ready.clone()),
        ) {
            Ok(work) => {
                self.forget_from(slot, keep);
                self.slots[slot].last_used = self.requests;
                self.slots[slot].work = Some(work);
                self.ask(slot);
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

    /// Takes the slot's request away. What was read stays for the next one, unless the request said
    /// otherwise.
    fn free(&mut self, slot: usize) -> Option<Work> {
        let work = self.slots[slot].work.take()?;
        if !work.stays {
            self.forget_from(slot, 0);
        }
        Some(work)
    }

    /// Fills the batch: slots in order, as llama.cpp computes those together that follow each
    /// other.
    fn plan(&mut self) {
        self.engine.batch.clear();
        self.portions.clear();
        let wants: Vec<_> = self.slots.iter().map(Slot::want).collect();
        for (i, count) in share(&wants, self.engine.limits.batch as usize)
            .into_iter()
            .enumerate()
        {
            let slot = &self.slots[i];
            let Some(work) = slot.work.as_ref().filter(|_| count > 0) else {
                continue;
            };
            let held = slot.held.len();
            let draws = work.draws_at(held + count);
            let mut last = 0;
            for (offset, &token) in work.next(held, count).iter().enumerate() {
                last = self.engine.batch.push(
                    token,
                    (held + offset) as u32,
                    i as u32,
                    draws && offset + 1 == count,
                );
            }
            self.portions.push(Portion {
                slot: i,
                count,
                output: draws.then_some(last),
            });
        }
    }

    /// Computes the batch and draws from it.
    fn step(&mut self) {
        if self.engine.batch.is_empty() {
            return;
        }
        if let Some(table) = &mut self.engine.per_layer {
            table.trim();
            table.fetch(self.engine.batch.tokens());
        }
        let slots = &self.slots;
        let flags = self
            .portions
            .iter()
            .filter_map(|portion| slots[portion.slot].work.as_ref().map(Work::cancel_flag));
        let Some(context) = self.engine.context.get() else {
            return;
        };
        match context.decode(&mut self.engine.batch, flags) {
            Ok(()) => self.advance(),
            // Everyone was cancelled, or the worker is ending: the slots go back to where they
            // were.
            Err(DecodeError::Aborted) => self.each_portion(|server, portion| {
                let held = server.slots[portion.slot].held.len();
                server.forget_from(portion.slot, held);
            }),
            Err(error) => self.each_portion(|server, portion| {
                server.fail(
                    portion.slot,
                    ChatError::Inference {
                        reason: error.to_string(),
                    },
                );
            }),
        }
    }

    /// Reads a medium, or as much of it as one step takes, for one slot: the others' answers go on
    /// in between.
    fn show(&mut self) {
        let step = self.engine.limits.picture_step as usize;
        let mut turns = (0..self.slots.len()).map(|i| (self.next_shown + i) % self.slots.len());
        let Some((slot, piece)) =
            turns.find_map(|slot| Some((slot, self.slots[slot].piece(step)?)))
        else {
            return;
        };
        let held = self.slots[slot].held.len();
        let rows = Rows {
            numbers: piece.rows,
            count: piece.count,
            position: held as u32,
            sequence: slot as u32,
            picture: piece.picture,
        };
        let (place, count) = (piece.place, piece.count);
        self.next_shown = slot + 1;
        let Some(context) = self.engine.context.get() else {
            return;
        };
        match context.show(rows, piece.cancelled) {
            Ok(()) => {
                if self.slots[slot].hold(place, count) {
                    self.ask(slot);
                }
            }
            Err(DecodeError::Aborted) => self.forget_from(slot, held),
            Err(error) => self.fail(
                slot,
                ChatError::Inference {
                    reason: error.to_string(),
                },
            ),
        }
    }

    /// The batch was computed: the slots hold its tokens now, and those that are through their
    /// prompt draw.
    fn advance(&mut self) {
        self.each_portion(|server, portion| {
            let Server {
                engine, slots, out, ..
            } = server;
            let Slot {
                held,
                work: Some(work),
                ..
            } = &mut slots[portion.slot]
            else {
                return;
            };
            held.tokens
                .extend_from_slice(work.next(held.len(), portion.count));
            let Some(place) = portion.output else {
                return;
            };
            let Engine {
                context,
                vocab,
                candidates,
                suppressed,
                ..
            } = engine;
            let mut drawing = Drawing {
                vocab,
                suppressed,
                candidates,
            };
            let drawn = match context.get().and_then(|context| context.logits(place)) {
                Some(row) => work.draw(row, &mut drawing, out),
                None => Err(ChatError::Inference {
                    reason: "llama.cpp gave no logits".to_owned(),
                }),
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
        self.slots[slot].held.truncate(from);
    }

    fn each_portion(&mut self, act: impl Fn(&mut Self, &Portion)) {
        let portions = std::mem::take(&mut self.portions);
        for portion in &portions {
            act(self, portion);
        }
        self.portions = portions;
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
