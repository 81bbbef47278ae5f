//! The memory of the sequences: what the server does about requests that need more of it than every
//! slot has.

use super::Server;
use crate::chat::{ChatError, Finish};
use crate::ipc::{ContextUse, ServeEvent};
use crate::worker::load::EngineLimits;
use crate::worker::prompt_cache::Use;
use crate::worker::schedule::room::{Limits, RoomPlan};

/// What was granted, asked for and promised.
pub struct ServerRoom {
    pub limits: Limits,
    /// Tokens that the request of each sequence may hold.
    pub promised: Vec<usize>,
    /// What was asked for and is not answered yet.
    asked: Option<usize>,
}

impl ServerRoom {
    pub fn new(limits: &EngineLimits) -> Self {
        let (floor, slots) = (limits.floor as usize, limits.slots as usize);
        Self {
            limits: Limits {
                ceiling: limits.context as usize,
                floor,
                granted: floor * slots,
                refused: 0,
            },
            promised: vec![0; slots],
            asked: None,
        }
    }
}

impl Server {
    /// Tokens that a sequence holds, or may.
    pub(super) fn reserved(&self, sequence: usize) -> usize {
        let promised = match &self.running[sequence] {
            Some(_) => self.room.promised[sequence],
            None => 0,
        };
        promised.max(self.engine.sequences.reserved(sequence))
    }

    /// Performs what the plan has about room. `false`: the rest of the plan is out of date.
    pub(super) fn make_room(&mut self, plan: &RoomPlan) -> bool {
        for &(sequence, tokens) in &plan.extended {
            self.room.promised[sequence] = tokens;
        }
        if plan.wanted > 0 && self.room.asked.is_none() {
            self.room.asked = Some(plan.wanted);
            let usage = self.context_use(plan.wanted);
            // At once: the answer is waited for. A failed write is seen by the reader as the end of the
            // channel.
            let _ = self.writer.send(&ServeEvent::Context(usage));
        }
        if let Some(sequence) = plan.emptied {
            let sequences = &mut self.engine.sequences;
            self.prompts
                .keep(sequences, sequence, Use::Conversation, false);
            self.clear(sequence);
            // What it had may be free for others now.
            self.room.limits.refused = 0;
        }
        if let Some(sequence) = plan.ended {
            self.finish(sequence, Finish::Length);
        }
        if let Some((place, tokens)) = plan.refused {
            self.refuse(place, tokens);
        }
        plan.emptied.is_none() && plan.ended.is_none() && plan.refused.is_none()
    }

    /// Refuses the request at `place` of those that wait: it could have no more than `tokens`.
    fn refuse(&mut self, place: usize, tokens: usize) {
        let Some(waiting) = self.waiting.remove(place) else {
            return;
        };
        let error = ChatError::PromptTooLong {
            prompt_tokens: waiting.prepared.prompt.len() as u32,
            context_tokens: tokens as u32,
            ceiling: self.engine.limits.context,
            sound_tokens: waiting.prepared.sound_tokens() as u32,
        };
        self.out.failed(waiting.prepared.id, error);
        // Another time there may be more.
        self.room.limits.refused = 0;
    }

    /// The supervisor's answer: all sequences together may hold so many tokens.
    pub(super) fn granted(&mut self, tokens: u64) {
        let limits = &mut self.room.limits;
        limits.granted = limits.granted.max(tokens as usize);
        if let Some(asked) = self.room.asked.take() {
            limits.refused = if asked > limits.granted { asked } else { 0 };
        }
    }

    /// Gives back what was granted and nobody has: others may need the memory by the time that somebody
    /// does.
    pub(super) fn give_room_back(&mut self) {
        let floor = self.room.limits.floor;
        let held = (0..self.running.len()).map(|sequence| self.reserved(sequence).max(floor));
        let held: usize = held.sum();
        if held < self.room.limits.granted && self.room.asked.is_none() {
            self.room.limits.granted = held;
            self.room.limits.refused = 0;
            let usage = self.context_use(held);
            self.out.push(&ServeEvent::Context(usage));
        }
    }

    /// Empties what holds more than every slot has and is free: memory is short.
    pub(super) fn spare_room(&mut self) {
        for sequence in 0..self.running.len() {
            let is_free = self.running[sequence].is_none();
            if is_free && self.reserved(sequence) > self.room.limits.floor {
                self.clear(sequence);
            }
        }
        self.give_room_back();
    }

    fn context_use(&self, wanted: usize) -> ContextUse {
        let sequences = &self.engine.sequences;
        let held: usize = (0..sequences.count())
            .map(|sequence| sequences.reserved(sequence))
            .sum();
        ContextUse {
            held: held as u64,
            granted: self.room.limits.granted as u64,
            wanted: wanted as u64,
        }
    }
}
