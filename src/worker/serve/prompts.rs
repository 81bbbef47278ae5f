//! What the server does about prompts that were read: it goes on from them, and has them kept.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::{Inbox, Server};
use crate::chat::Thinking;
use crate::gemma::model_shape::CHECKPOINT_MOST;
use crate::worker::messages::{Prepared, ServerMessage};
use crate::worker::prompt_cache::{Fetched, Found, KeeperDone, Use, Wish};
use crate::worker::schedule::{
    Admission, FetchedState, From, Segment, Stops, Tokens, WaitingState, reuse,
};
use crate::worker::sequence::Sequence;

/// How long a worker has nothing to do before it keeps what it has read: an agent's next request comes
/// at once.
const QUIET: Duration = Duration::from_secs(1);

/// How long a request waits for what is kept of its prompt, whatever the disk does; then it is read.
const FETCHING: Duration = Duration::from_secs(5);

/// A request that waits for what is kept of its prompt.
pub struct Fetching {
    pub waiting: Waiting,
    found: Found,
    /// When it is read without.
    due: Instant,
}

/// A request that has no sequence yet.
pub struct Waiting {
    pub prepared: Box<Prepared>,
    pub stops: Stops,
    /// What brings its prompt to where it goes on.
    pub fetched: Option<(Found, Fetched)>,
}

impl Waiting {
    pub fn state(&self) -> WaitingState<'_> {
        let Self {
            prepared,
            stops,
            fetched,
        } = self;
        WaitingState {
            prompt: &prepared.prompt,
            owner: prepared.owner,
            cache_prompt: prepared.request.cache_prompt,
            rates_prompt: prepared.request.prompt_logprobs,
            tier: prepared.request.tier,
            stops: *stops,
            fetched: fetched.as_ref().map(|(found, fetched)| FetchedState {
                tokens: found.tokens,
                whole: fetched.states.first().map_or(0, |whole| whole.tokens),
            }),
        }
    }
}

impl Server {
    /// Waits for a message. `Some(None)`: none came, and what is idle was kept; `None`: at the end.
    #[allow(clippy::option_option, reason = "the end, or nothing, or a message")]
    pub(super) fn wait(&mut self, inbox: &Inbox, idle: bool) -> Option<Option<ServerMessage>> {
        let due = self.fetching.iter().map(|fetching| fetching.due).min();
        let limit = match due {
            Some(due) => due.saturating_duration_since(Instant::now()),
            None if idle && self.has_unkept => QUIET,
            None => return inbox.ready.recv().ok().map(Some),
        };
        match inbox.ready.recv_timeout(limit) {
            Ok(message) => Some(Some(message)),
            Err(RecvTimeoutError::Timeout) => {
                if due.is_none() {
                    self.keep_all(false);
                    self.give_room_back();
                }
                Some(None)
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Lets a request wait for a sequence, or first for what is kept of its prompt.
    pub(super) fn enqueue(&mut self, prepared: Box<Prepared>) {
        let (owner, prompt) = (prepared.owner, &prepared.prompt);
        let keeps = prepared.request.cache_prompt && !prepared.request.prompt_logprobs;
        let thinks = prepared.request.thinking != Thinking::Off;
        let asks = keeps.then_some((owner, prepared.request.retention));
        let stops = self.prompts.stops(prepared.places.as_ref(), asks, thinks);
        let mut found = None;
        if keeps {
            let held = self.held(&prepared);
            found = self.prompts.fetch(prepared.id, owner, prompt, held);
        }
        let waiting = Waiting {
            prepared,
            stops,
            fetched: None,
        };
        match found {
            Some(found) => self.fetching.push(Fetching {
                waiting,
                found,
                due: Instant::now() + FETCHING,
            }),
            None => self.waiting.push_back(waiting),
        }
    }

    /// Has those read that have waited for the disk long enough.
    pub(super) fn give_up_fetching(&mut self) {
        let now = Instant::now();
        let overdue = self.fetching.extract_if(.., |fetching| fetching.due <= now);
        self.waiting
            .extend(overdue.map(|fetching| fetching.waiting));
    }

    /// Tokens of a prompt that a sequence of its owner has, if it is free.
    fn held(&self, prepared: &Prepared) -> usize {
        let sequences = &self.engine.sequences;
        let free = (0..sequences.count()).filter(|&i| self.running[i].is_none());
        let own = free.filter(|&i| sequences.owner(i) == Some(prepared.owner));
        let window = self.engine.limits.window;
        own.map(|i| {
            let candidate = reuse::Candidate {
                cached: sequences.cached(i),
                first_position: sequences.first_position(i),
                checkpoint: sequences.checkpoint(i),
                owner: sequences.owner(i),
                last_used: 0,
            };
            reuse::reusable(&candidate, &prepared.prompt, window).0
        })
        .max()
        .unwrap_or_default()
    }

    pub(super) fn keeper_done(&mut self, done: KeeperDone) {
        let Some((request, fetched)) = self.prompts.done(done) else {
            return;
        };
        let is_it = |fetching: &Fetching| fetching.waiting.prepared.id == request;
        let Some(at) = self.fetching.iter().position(is_it) else {
            return;
        };
        let Fetching {
            mut waiting, found, ..
        } = self.fetching.remove(at);
        match fetched {
            Some(fetched) => {
                waiting.fetched = Some((found, fetched));
                self.waiting.push_back(waiting);
            }
            // It is gone, and no longer found: there may be another.
            None => self.enqueue(waiting.prepared),
        }
    }

    /// Brings a sequence to where a request's prompt goes on, after what it holds was kept if something
    /// else takes its place. Returns the tokens of the prompt that are there.
    pub(super) fn bring(
        &mut self,
        prompt: &Sequence,
        admission: Admission,
        fetched: Option<(Found, Fetched)>,
        wish: Wish,
    ) -> usize {
        let Admission {
            sequence,
            reuse,
            from,
            ..
        } = admission;
        let held = self.engine.sequences.cached(sequence).len();
        if from == From::Fetched || 2 * reuse < held {
            self.prompts.keep(
                &mut self.engine.sequences,
                sequence,
                Use::Conversation,
                false,
            );
        }
        let sequences = &mut self.engine.sequences;
        let (there, found) = match (from, fetched) {
            (From::Fetched, Some((found, Fetched { states, trial }))) => {
                let restored = sequences.restore(sequence, prompt, states, reuse);
                if restored {
                    drop(trial);
                } else {
                    self.prompts.is_unusable(found);
                    trial.failed();
                }
                (restored, Some(found).filter(|_| restored))
            }
            (From::Fetched, None) => {
                sequences.clear(sequence);
                (false, None)
            }
            (From::Checkpoint, _) => (sequences.go_back(sequence), None),
            (From::Sequence, _) => {
                sequences.truncate(sequence, reuse);
                (true, None)
            }
        };
        let there = if there { reuse } else { 0 };
        self.prompts.begin(sequence, there, found, wish);
        self.has_unkept = true;
        there
    }

    /// Notes the state at a prompt's stop, if the segment that was decoded ends there.
    pub(super) fn note(&mut self, segment: &Segment) {
        let sequence = segment.sequence;
        let (Tokens::Prompt(range), Some(generation)) = (&segment.tokens, &self.running[sequence])
        else {
            return;
        };
        let stops = generation.stops();
        let sequences = &mut self.engine.sequences;
        if stops.fork == Some(range.end) {
            self.prompts.keep(sequences, sequence, Use::Fork, false);
        }
        if let Some(stop) = stops.shared.filter(|stop| stop.tokens == range.end) {
            let shared = Use::Shared(stop.text);
            self.prompts.keep(sequences, sequence, shared, false);
        }
        if stops.turn == Some(range.end) {
            self.note_turn(sequence, range.end);
        }
    }

    /// Notes the state at the start of the model's turn, where a sequence is now: there the next prompt
    /// goes on.
    pub(super) fn note_turn(&mut self, sequence: usize, tokens: usize) {
        let sequences = &mut self.engine.sequences;
        self.prompts.differs(sequence, tokens);
        if !sequences.take_checkpoint(sequence, CHECKPOINT_MOST as usize) {
            self.prompts
                .keep(sequences, sequence, Use::Conversation, false);
        }
    }

    /// Notes the state before the last step of a prompt that has no better place.
    pub(super) fn note_before(&mut self, segments: &[Segment]) {
        for segment in segments {
            let sequence = segment.sequence;
            if let (Tokens::Prompt(range), Some(generation)) =
                (&segment.tokens, &self.running[sequence])
                && generation.samples_behind(&segment.tokens)
                && generation.cache_prompt
                && generation.stops().turn.is_none()
                && range.start > 0
            {
                let most = CHECKPOINT_MOST as usize;
                self.engine.sequences.take_checkpoint(sequence, most);
            }
        }
    }

    /// Has all kept that no request has. `waits`: this is the last that is done.
    pub(super) fn keep_all(&mut self, waits: bool) {
        let mut all = true;
        for sequence in 0..self.running.len() {
            if self.running[sequence].is_none() {
                let sequences = &mut self.engine.sequences;
                let conversation = Use::Conversation;
                all &= self.prompts.keep(sequences, sequence, conversation, waits);
            }
        }
        self.has_unkept = !all;
    }

    /// Empties a sequence.
    pub(super) fn clear(&mut self, sequence: usize) {
        self.engine.sequences.clear(sequence);
        self.prompts.forget(sequence);
    }

    /// Frees the cache.
    pub(super) fn forget_all(&mut self) {
        self.engine.sequences.release();
        (0..self.running.len()).for_each(|sequence| self.prompts.forget(sequence));
        self.give_room_back();
    }
}
