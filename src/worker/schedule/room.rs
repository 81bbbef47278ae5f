//! Which sequence may hold how many tokens. Pure.
//!
//! Each sequence may hold the floor, whatever the others do. What is granted beyond all floors goes to
//! the requests that need more, in the order in which they come; it is theirs as long as they run, and
//! stays with their sequence afterwards, for the next turn. Where it is not enough:
//!
//! ```text
//!   more is asked for ── refused ──▶ free sequences are emptied, the least recently used first
//!          │ granted                     │ none is left
//!          ▼                             ▼
//!     it goes on   ◀── others end ── it waits for those that run and hold more than the floor
//!                                        │ there are none
//!                                        ▼
//!                            a request is refused; an answer ends here
//! ```
//!
//! One shortage is seen to at a time, that of answers first. Who comes later and needs no more than the
//! floor passes.

use super::reuse::Choice;
use super::{From, SequenceState};
use crate::ipc::ANSWER_ROOM;

/// Tokens of an answer that it must have room for before its request begins, and by which it gets
/// more.
pub const ANSWER: usize = ANSWER_ROOM as usize;

/// What holds of the context.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens that one sequence may come to hold.
    pub ceiling: usize,
    /// Tokens that each may hold in any case.
    pub floor: usize,
    /// Tokens that all may hold together.
    pub granted: usize,
    /// Tokens for all together that were asked for in vain; 0: none.
    pub refused: usize,
}

/// What is to be done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomPlan {
    /// Sequences that may hold so many tokens from now on.
    pub extended: Vec<(usize, usize)>,
    /// Tokens for all together to be asked for; 0: none.
    pub wanted: usize,
    /// A free sequence to be emptied.
    pub emptied: Option<usize>,
    /// A sequence whose answer ends here.
    pub ended: Option<usize>,
    /// The place of a request that waits in vain, and the tokens that it could have.
    pub refused: Option<(usize, usize)>,
}

/// Someone for whom there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    who: Who,
    /// The sequence that it has, or would go on from.
    sequence: usize,
    /// Tokens that all together would hold.
    wanted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Answer,
    /// By its place among those that wait.
    Request(usize),
}

/// Who may hold what.
#[derive(Debug)]
pub struct Room {
    limits: Limits,
    sequences: Vec<Holder>,
    extended: Vec<(usize, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    reserved: usize,
    last_used: u64,
    is_free: bool,
    is_blocked: bool,
}

impl Room {
    pub fn of(sequences: &[SequenceState<'_>], limits: Limits) -> Self {
        let holder = |state: &SequenceState<'_>| Holder {
            reserved: state.reserved,
            last_used: state.last_used,
            is_free: state.request.is_none(),
            is_blocked: false,
        };
        Self {
            limits,
            sequences: sequences.iter().map(holder).collect(),
            extended: vec![],
        }
    }

    /// Lets a running sequence of `position` tokens hold another, if it is full.
    pub fn extend(&mut self, sequence: usize, position: usize) -> Result<(), Short> {
        let Limits { ceiling, floor, .. } = self.limits;
        if position < floor.max(self.sequences[sequence].reserved) {
            return Ok(());
        }
        let tokens = (position + ANSWER).min(ceiling);
        self.take(sequence, tokens).map_err(|wanted| {
            self.sequences[sequence].is_blocked = true;
            let who = Who::Answer;
            Short {
                who,
                sequence,
                wanted,
            }
        })?;
        self.extended.push((sequence, tokens));
        Ok(())
    }

    /// Tokens that a sequence may hold.
    pub fn most(&self, sequence: usize) -> usize {
        let Limits { ceiling, floor, .. } = self.limits;
        floor.max(self.sequences[sequence].reserved).min(ceiling)
    }

    /// Whether a free sequence may hold so many tokens, or could if that were asked for.
    pub fn may_hold(&self, tokens: usize) -> bool {
        let Limits {
            ceiling,
            floor,
            granted,
            refused,
        } = self.limits;
        let free = (0..self.sequences.len()).filter(|&sequence| self.sequences[sequence].is_free);
        let wanted = free.map(|sequence| self.wanted(sequence, tokens)).min();
        let is_there = |wanted| wanted <= granted || wanted > refused;
        tokens <= floor || tokens <= ceiling && wanted.is_some_and(is_there)
    }

    /// Lets a request of `prompt` tokens have the sequence that was chosen for it, and more than the
    /// floor only where it `may_grow`. What was `fetched` for it has so many tokens. Returns what the
    /// sequence may hold then.
    pub fn admit(
        &mut self,
        place: usize,
        choice: &Choice,
        (prompt, fetched): (usize, usize),
        may_grow: bool,
    ) -> Result<usize, Short> {
        let Limits { ceiling, floor, .. } = self.limits;
        let sequence = choice.sequence;
        // What it goes on from keeps its memory.
        let held = match choice.from {
            From::Sequence | From::Checkpoint if choice.reuse > 0 => {
                self.sequences[sequence].reserved
            }
            // It is put there as a whole, however little of it is of use.
            From::Fetched => fetched,
            _ => 0,
        };
        let tokens = (prompt + ANSWER).min(ceiling).max(held);
        let who = Who::Request(place);
        let taken = match tokens <= floor || may_grow {
            true => self.take(sequence, tokens),
            false => Err(self.wanted(sequence, tokens)),
        };
        taken.map_err(|wanted| Short {
            who,
            sequence,
            wanted,
        })?;
        self.sequences[sequence].is_free = false;
        Ok(tokens)
    }

    /// Reserves `tokens` for a sequence. The error is what all together would hold.
    fn take(&mut self, sequence: usize, tokens: usize) -> Result<(), usize> {
        let wanted = self.wanted(sequence, tokens);
        if tokens > self.limits.floor && wanted > self.limits.granted {
            return Err(wanted);
        }
        self.sequences[sequence].reserved = tokens;
        Ok(())
    }

    /// Tokens of all together, if `sequence` has so many.
    fn wanted(&self, sequence: usize, tokens: usize) -> usize {
        let floor = self.limits.floor;
        let others = self.sequences.iter().enumerate();
        let others = others.filter(|(other, _)| *other != sequence);
        let others: usize = others.map(|(_, other)| other.reserved.max(floor)).sum();
        others + tokens.max(floor)
    }

    /// What is to be done, also about the one that is short.
    pub fn plan(mut self, short: Option<Short>) -> RoomPlan {
        let Limits {
            floor,
            granted,
            refused,
            ..
        } = self.limits;
        let mut plan = RoomPlan {
            extended: std::mem::take(&mut self.extended),
            ..RoomPlan::default()
        };
        let Some(Short {
            who,
            sequence,
            wanted,
        }) = short
        else {
            return plan;
        };
        if wanted > refused {
            plan.wanted = wanted;
            return plan;
        }
        let others = self.sequences.iter().enumerate();
        let large = others.filter(|(other, holder)| *other != sequence && holder.reserved > floor);
        let (free, running): (Vec<_>, Vec<_>) = large.partition(|(_, holder)| holder.is_free);
        plan.emptied = free
            .into_iter()
            .min_by_key(|(_, holder)| holder.last_used)
            .map(|(other, _)| other);
        if plan.emptied.is_some() || running.iter().any(|(_, holder)| !holder.is_blocked) {
            return plan;
        }
        match who {
            Who::Answer => plan.ended = Some(sequence),
            Who::Request(place) => {
                let others = self.wanted(sequence, 0) - floor;
                plan.refused = Some((place, granted.saturating_sub(others).max(floor)));
            }
        }
        plan
    }
}
