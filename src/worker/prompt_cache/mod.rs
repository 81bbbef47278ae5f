//! What a sequence of the KV cache holds, kept for longer than the sequence: handed over to the
//! supervisor ([`keeper`]) when nothing else is to be done or something else takes its place, and
//! fetched when a prompt begins with it ([`index`]), as far as that is faster than reading
//! ([`worth`]).
//!
//! Sliding layers forget, so a state is good for exactly one place. These are: the end of an answer,
//! since the next turn begins with it; the start of the turn that the model writes, where the next
//! prompt differs from what was computed (thoughts are left out of it), or else the start of the
//! prompt's last step, which costs nothing (an answer may be written in other tokens than it was
//! sampled in); and the end of the system prompt, with which other conversations begin as well: those of
//! the same user, or everybody's if the configuration lists it ([`places`]).

mod index;
mod keeper;
mod places;
mod worth;

use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

pub use self::index::Found;
use self::keeper::{Job, Keeper, Lineage};
pub use self::keeper::{KeeperDone, Trial};
use self::places::Place;
pub use self::places::{Listed, Places};
use self::worth::Speeds;
use super::messages::ServerMessage;
use super::schedule::{SharedStop, Stops};
use super::sequence::Sequence;
use super::sequences::{KvCache, SavedState, Sequences};
use crate::chat::{PrincipalId, Retention};
use crate::ipc::RequestId;
use crate::ipc::prompts::{Owner, Prefix, PrefixId, PromptCachePlan, State};

/// Bytes of states that are made also when memory is short.
const SPARED: u64 = 64 << 20;
/// A system prompt of fewer tokens is not kept for other conversations.
const LEAST_FORK: usize = 256;
/// So many tokens behind what everybody goes on from are kept for oneself.
const LEAST_BEHIND: usize = 32;

/// What is kept of what a sequence holds.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Tokens of the sequence.
    tokens: usize,
    /// Of the places that are kept, the first.
    first: usize,
    /// Tokens behind which nothing is of use: the next prompt differs.
    useful: Option<usize>,
    /// What the next state takes the place of.
    id: Option<PrefixId>,
    /// Changes when the sequence begins something else.
    epoch: u64,
    wish: Wish,
}

/// What a request says of keeping what it leaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    pub retention: Retention,
    /// See [`crate::ipc::prompts::PromptRequest::Keep`].
    pub sent: u64,
}

/// Whose a state is, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its conversation goes on from it.
    Conversation,
    /// Other conversations of its owner do.
    Fork,
    /// Everybody's do, for it is this system prompt of the configuration's (SHA-256).
    Shared([u8; 32]),
}

/// What was fetched for a request.
pub struct Fetched {
    pub states: Vec<SavedState>,
    /// Over once they are in the cache, or not needed any more.
    pub trial: Trial,
}

/// See the module's text.
pub struct PromptCache {
    /// `None`: nothing is kept.
    keeper: Option<Keeper>,
    /// Bytes of the states of one prefix at most.
    largest: u64,
    index: index::Index,
    speeds: Speeds,
    /// Of each sequence.
    kept: Vec<Kept>,
    /// States that are being kept.
    keeping: usize,
}

impl PromptCache {
    pub fn new(
        plan: Option<(PromptCachePlan, OwnedFd)>,
        sequences: usize,
        done: SyncSender<ServerMessage>,
    ) -> Self {
        let (plan, channel) = plan.unzip();
        let (kept, largest) = plan.map_or((vec![], 0), |plan| (plan.kept, plan.largest));
        Self {
            keeper: channel.map(|channel| Keeper::spawn(channel, done)),
            largest,
            index: index::Index::new(kept),
            speeds: Speeds::default(),
            kept: vec![Kept::default(); sequences],
            keeping: 0,
        }
    }

    /// Memory was short while requests ran: states are copies of what is in memory.
    pub fn spare_memory(&mut self) {
        self.largest = self.largest.min(SPARED);
    }

    /// So many tokens of prompts were read in a step that had nothing else.
    pub fn read(&mut self, tokens: usize, time: Duration) {
        self.speeds.read(tokens, time);
    }

    /// Asks for what brings `prompt` farther than the `held` tokens of it that a sequence holds, if that
    /// is there and worth it. [`KeeperDone::Fetched`] follows.
    pub fn fetch(
        &self,
        request: RequestId,
        owner: PrincipalId,
        prompt: &Sequence,
        held: usize,
    ) -> Option<Found> {
        let keeper = self.keeper.as_ref()?;
        let found = self.index.find(owner, prompt)?;
        let gained = found.tokens.checked_sub(held)?;
        let kept = self.index.get(found.id)?.clone();
        let is_worth_it =
            found.bytes <= self.largest && self.speeds.is_worth_fetching(gained, found.bytes);
        (is_worth_it && keeper.has_done(Job::Fetch { kept, request })).then_some(found)
    }

    /// Takes what the keeper has done; what was fetched for a request, with the request.
    pub fn done(&mut self, done: KeeperDone) -> Option<(RequestId, Option<Fetched>)> {
        match done {
            KeeperDone::Kept {
                lineage,
                kept,
                replaced,
                time,
            } => {
                self.keeping = self.keeping.saturating_sub(1);
                let of = self.kept.get_mut(lineage.sequence);
                let of = of.filter(|of| Some(of.epoch) == lineage.epoch);
                let Some(kept) = kept else {
                    // There may be room later.
                    of.into_iter().for_each(|of| of.tokens = 0);
                    return None;
                };
                self.speeds
                    .copied(kept.prefix.bytes().unwrap_or_default(), time);
                replaced.into_iter().for_each(|id| self.index.remove(id));
                if let Some(of) = of {
                    of.id = Some(kept.id);
                }
                self.index.insert(kept);
                None
            }
            KeeperDone::Fetched {
                request,
                kept,
                states,
                time,
            } => {
                match states {
                    Some(_) => self
                        .speeds
                        .copied(kept.prefix.bytes().unwrap_or_default(), time),
                    None => self.index.remove(kept.id),
                }
                let fetched = states.and_then(|states| {
                    let trial = self.keeper.as_ref()?.trial(kept.id);
                    Some(Fetched { states, trial })
                });
                Some((request, fetched))
            }
        }
    }

    /// A request with such a wish goes on from the first `tokens` tokens of a sequence, or from those of
    /// a prefix that was `found`.
    pub fn begin(&mut self, sequence: usize, tokens: usize, found: Option<Found>, wish: Wish) {
        let kept = &mut self.kept[sequence];
        let held = match found {
            // What is kept for longer than wished is good enough; what is not is kept once more.
            Some(found)
                if found.retention == wish.retention || wish.retention == Retention::InMemory =>
            {
                let is_its_own = !found.is_fork && found.retention == wish.retention;
                Kept {
                    tokens,
                    first: tokens,
                    id: Some(found.id).filter(|_| is_its_own),
                    ..Kept::default()
                }
            }
            // It is still the same conversation if it goes on from a place that is kept.
            None if tokens >= kept.first && kept.wish.retention == wish.retention => {
                kept.tokens = kept.tokens.min(tokens);
                kept.useful = None;
                kept.wish = wish;
                return;
            }
            _ => Kept::default(),
        };
        *kept = Kept {
            epoch: kept.epoch + 1,
            wish,
            ..held
        };
    }

    /// What follows the first `tokens` tokens of a sequence will not be in the next prompt.
    pub fn differs(&mut self, sequence: usize, tokens: usize) {
        self.kept[sequence].useful = Some(tokens);
    }

    /// Nothing of what a sequence holds is kept.
    pub fn forget(&mut self, sequence: usize) {
        let kept = &mut self.kept[sequence];
        *kept = Kept {
            epoch: kept.epoch + 1,
            ..Kept::default()
        };
    }

    /// Where the states of a prompt are noted that has these `places`. `asks`: whose it is, and how long
    /// it is kept; `None` if it is not.
    pub fn stops(
        &self,
        places: Option<&Places>,
        asks: Option<(PrincipalId, Retention)>,
        thinks: bool,
    ) -> Stops {
        let Some(places) = places else {
            return Stops::default();
        };
        let shared = places
            .shared
            .filter(|(place, _)| place.tokens >= LEAST_FORK);
        let behind = shared.map_or(LEAST_FORK, |(place, _)| place.tokens + LEAST_BEHIND);
        let fork = places.system_end.filter(|place| place.tokens >= behind);
        let turn = Some(places.answer).filter(|_| thinks || places.differs);
        let ends = [
            shared.map(|(place, _)| place.tokens),
            fork.map(|place| place.tokens),
            turn,
        ];
        let is_open = self
            .keeper
            .as_ref()
            .is_some_and(|keeper| !keeper.has_failed());
        let Some((owner, retention)) = asks.filter(|_| is_open) else {
            return Stops {
                ends,
                ..Stops::default()
            };
        };
        let shared = shared.filter(|&(place, text)| {
            let owner = Owner::All { text };
            !self.index.has(owner, place, Retention::InMemory)
        });
        let is_new = |place: &Place| !self.index.has(Owner::One(owner), *place, retention);
        Stops {
            ends,
            fork: fork.filter(is_new).map(|place| place.tokens),
            shared: shared.map(|(place, text)| SharedStop {
                tokens: place.tokens,
                text,
            }),
            turn,
        }
    }

    /// What was found could not be gone on from.
    pub fn is_unusable(&mut self, found: Found) {
        self.index.remove(found.id);
    }

    /// Keeps the whole of what `sequence` holds, if reading it again would take longer. `waits`: also
    /// when much is being kept; else `false` says that it is to be tried again.
    pub fn keep<C: KvCache>(
        &mut self,
        sequences: &mut Sequences<C>,
        sequence: usize,
        usage: Use,
        waits: bool,
    ) -> bool {
        let (Some(keeper), Some(owner)) = (&self.keeper, sequences.owner(sequence)) else {
            return true;
        };
        let kept = self.kept[sequence];
        if keeper.has_failed() || !self.is_worth_it(sequences, sequence) {
            return true;
        }
        if !waits && self.keeping >= keeper::WAITING {
            return false;
        }
        let Some(mut states) = sequences.save(sequence) else {
            return true;
        };
        let is_conversation = usage == Use::Conversation;
        if !is_conversation {
            states.truncate(1);
        }
        let prefix = prefix_of(&states, sequences.cached(sequence), usage, owner, kept.wish);
        let (tokens, first) = (
            states.iter().map(|state| state.tokens).max(),
            states.iter().map(|state| state.tokens).min(),
        );
        let job = Job::Keep {
            prefix,
            states,
            replaces: kept.id.filter(|_| is_conversation),
            lineage: Lineage {
                sequence,
                epoch: Some(kept.epoch).filter(|_| is_conversation),
            },
            sent: kept.wish.sent,
        };
        let is_taken = if waits {
            keeper.has_done_at_last(job);
            true
        } else {
            keeper.has_done(job)
        };
        self.keeping += usize::from(is_taken);
        if is_taken && is_conversation {
            let kept = &mut self.kept[sequence];
            (kept.tokens, kept.first) = (tokens.unwrap_or_default(), first.unwrap_or_default());
        }
        is_taken
    }

    /// Whether what `sequence` holds is to be kept.
    fn is_worth_it<C: KvCache>(&self, sequences: &mut Sequences<C>, sequence: usize) -> bool {
        let held = sequences.cached(sequence);
        let kept = self.kept[sequence];
        // A medium that was cut is no place to go on from.
        if held.whole(held.len()) != held.len() {
            return false;
        }
        let useful = kept.useful.unwrap_or(usize::MAX).min(held.len());
        let unkept = useful.saturating_sub(kept.tokens);
        let bytes = sequences.state_bytes(sequence) as u64;
        bytes <= self.largest && self.speeds.is_worth_keeping(unkept, bytes)
    }

    /// Nobody listens any more to what is done.
    pub fn end(&self) {
        self.keeper.iter().for_each(Keeper::end);
    }

    /// Waits until all is kept that was to be.
    pub fn finish(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.finish();
        }
    }
}

/// What the supervisor is told of states.
fn prefix_of(
    states: &[SavedState],
    held: &Sequence,
    usage: Use,
    owner: PrincipalId,
    wish: Wish,
) -> Prefix {
    let state = |state: &SavedState| State {
        tokens: state.tokens as u32,
        digest: index::digest(held, state.tokens),
        bytes: state.bytes.len() as u64,
    };
    let (owner, retention) = match usage {
        Use::Shared(text) => (Owner::All { text }, Retention::InMemory),
        Use::Conversation | Use::Fork => (Owner::One(owner), wish.retention),
    };
    Prefix {
        owner,
        retention,
        is_fork: usage != Use::Conversation,
        states: states.iter().map(state).collect(),
    }
}
