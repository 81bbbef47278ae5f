//! What the worker does in one step: which request gets which sequence, which medium is encoded
//! next, whether messages are received first, and what llama.cpp decodes. Pure.
//!
//! The worker has one sequence of the KV cache for each request that runs. [`step`] looks at all of
//! them and at the requests that wait, and [`mod@super::serve`] performs its plan:
//!
//! ```text
//!   waiting requests ──▶ admissions: the sequence with the longest usable prefix   (reuse),
//!                                    as far as there is room for more tokens       (room)
//!   media            ──▶ encode: one medium at a time for each request
//!   messages         ──▶ receive: skip, poll or wait
//!   prompts, answers ──▶ segments: one batch of tokens for all sequences           (share)
//!   encoded media    ──▶ embeddings: a piece of one medium, after the batch
//! ```

pub mod pace;
mod plan;
pub mod reuse;
pub mod room;
mod share;
mod stops;
#[cfg(test)]
mod tests;

pub use self::plan::{Admission, EmbeddingsSegment, From, Receive, Segment, StepPlan, Tokens};
pub use self::reuse::FetchedState;
use self::reuse::{Candidate, Wanted};
use self::room::{Room, Short};
use self::share::{Claim, Demand, share};
pub use self::stops::{SharedStop, Stops};
use super::sequence::{MediumSpan, Sequence};
use crate::chat::{PrincipalId, ServiceTier};

/// A sequence of the KV cache.
#[derive(Clone, Copy, Debug)]
pub struct SequenceState<'a> {
    /// What the cache holds of it.
    pub cached: &'a Sequence,
    /// The first position that its sliding layers still have; `None` when it is empty. Looked at
    /// only where requests wait.
    pub first_position: Option<u32>,
    /// Whose request filled it.
    pub owner: Option<PrincipalId>,
    /// A place to which they can be brought back: the tokens before it.
    pub checkpoint: Option<usize>,
    /// When its last request came; larger is later.
    pub last_used: u64,
    /// Tokens for which it has memory, or may take some.
    pub reserved: usize,
    /// The request that it answers; `None` if it is free.
    pub request: Option<RunningState<'a>>,
}

/// A request that has a sequence.
#[derive(Clone, Copy, Debug)]
pub struct RunningState<'a> {
    pub prompt: &'a Sequence,
    /// Tokens of the answer that are known and not in the cache.
    pub fresh: usize,
    /// Tokens that may be tried behind them.
    pub draft: usize,
    /// The first medium of the prompt that is not in the cache as a whole.
    pub medium: MediumState,
    /// The mask of the next token is still being computed.
    pub awaits_mask: bool,
    /// The logits behind each token of the prompt are wanted.
    pub rates_prompt: bool,
    pub tier: ServiceTier,
    pub stops: Stops,
}

/// How far a medium is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediumState {
    /// There is none, or its encoding was not asked for.
    #[default]
    Raw,
    /// Its encoding was asked for.
    Encoding,
    /// Its embeddings are there.
    Encoded,
}

/// A request that has no sequence yet.
#[derive(Clone, Copy, Debug)]
pub struct WaitingState<'a> {
    pub prompt: &'a Sequence,
    pub owner: PrincipalId,
    /// It may go on from what a sequence holds of its owner.
    pub cache_prompt: bool,
    /// As in [`RunningState`]; then nothing is gone on from.
    pub rates_prompt: bool,
    pub tier: ServiceTier,
    pub stops: Stops,
    pub fetched: Option<FetchedState>,
}

/// What holds for the worker's life.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens of one batch.
    pub batch: usize,
    /// Tokens of prompts, or of a medium that can be decoded in pieces, in a step beside running
    /// answers ([`pace`]).
    pub beside_answers: usize,
    /// Tokens of one batch whose logits are computed: as many as there are sequences, at least.
    pub outputs: usize,
    /// Tokens of a medium that are decoded at once.
    pub embeddings: usize,
    /// A medium must be decoded in one step, because its tokens attend to each other.
    pub whole_media: bool,
    /// Positions that sliding layers look back.
    pub window: u32,
    pub room: room::Limits,
}

impl Limits {
    /// Tokens of the next batch, in which answers have so many `more` than one each. Alone, prompts take
    /// all of it.
    fn batch(&self, running: &[Option<Progress<'_>>], more: usize) -> usize {
        match answers(running) {
            0 => self.batch,
            answers => self.batch.min(answers + more + self.beside_answers),
        }
    }

    /// Tokens of a medium in the step that has these segments.
    fn piece(&self, running: &[Option<Progress<'_>>], segments: &[Segment]) -> usize {
        if self.whole_media || answers(running) == 0 {
            return self.embeddings;
        }
        let prompts = segments.iter().map(|segment| match &segment.tokens {
            Tokens::Prompt(range) => range.len(),
            Tokens::Sampled { .. } => 0,
        });
        let left = self.beside_answers.saturating_sub(prompts.sum());
        self.embeddings.min(left.max(1))
    }
}

/// Requests that are being answered, and not only read. Those of the flex tier do not count while
/// others run: they hold nobody up.
fn answers(running: &[Option<Progress<'_>>]) -> usize {
    let all = running.iter().flatten();
    let only_flex = all.clone().all(Progress::is_flex);
    all.filter(|progress| progress.is_answering() && (only_flex || !progress.is_flex()))
        .count()
}

/// A request on its sequence, `position` tokens of which are in the cache.
#[derive(Clone, Copy)]
struct Progress<'a> {
    position: usize,
    /// Whose it is.
    owner: Option<PrincipalId>,
    request: RunningState<'a>,
    /// Tokens that it may hold.
    most: usize,
    /// There is no room for its next token.
    is_blocked: bool,
    /// Its prompt is not read while somebody waits for another answer.
    is_paused: bool,
}

/// Plans one step. `waiting` are in the order in which they came; of the sequences with encoded
/// media, `media_turn` or the next one after it is served.
pub fn step(
    sequences: &[SequenceState<'_>],
    waiting: &[WaitingState<'_>],
    media_turn: usize,
    limits: &Limits,
) -> StepPlan {
    let mut running: Vec<Option<Progress<'_>>> = sequences
        .iter()
        .map(|state| {
            state.request.map(|request| Progress {
                position: state.cached.len(),
                owner: state.owner,
                request,
                most: 0,
                is_blocked: false,
                is_paused: false,
            })
        })
        .collect();
    let mut room = Room::of(sequences, limits.room);
    let mut short = extend(&mut room, &mut running);
    let admissions = admit(
        sequences,
        waiting,
        &mut running,
        &mut room,
        (limits.window, &mut short),
    );
    let room = room.plan(short);
    pause(&mut running);
    let encode = running
        .iter()
        .enumerate()
        .filter(|(_, progress)| progress.is_some_and(|progress| progress.must_encode()))
        .map(|(sequence, _)| sequence)
        .collect();
    let receive = receive(&running, limits);
    let segments = batch(&running, limits);
    for segment in &segments {
        if let Some(progress) = &mut running[segment.sequence] {
            progress.position += segment.tokens.count();
        }
    }
    let embeddings = embeddings(&running, media_turn, limits.piece(&running, &segments));
    StepPlan {
        admissions,
        encode,
        receive,
        segments,
        embeddings,
        room,
    }
}

/// Lets answers have more room that have used theirs. Returns the first for which there is none.
fn extend(room: &mut Room, running: &mut [Option<Progress<'_>>]) -> Option<Short> {
    let mut short = None;
    for (sequence, progress) in running.iter_mut().enumerate() {
        let Some(progress) = progress else {
            continue;
        };
        let last = progress.position + progress.request.fresh.saturating_sub(1);
        if let Err(shortage) = room.extend(sequence, last) {
            progress.is_blocked = true;
            short.get_or_insert(shortage);
        }
        progress.most = room.most(sequence);
    }
    short
}

/// Gives free sequences to waiting requests.
fn admit<'a>(
    sequences: &[SequenceState<'a>],
    waiting: &[WaitingState<'a>],
    running: &mut [Option<Progress<'a>>],
    room: &mut Room,
    (window, short): (u32, &mut Option<Short>),
) -> Vec<Admission> {
    let mut admissions = vec![];
    for (place, request) in waiting.iter().enumerate() {
        let free = sequences
            .iter()
            .enumerate()
            .filter(|(i, _)| running[*i].is_none())
            .map(|(i, state)| (i, Candidate::of(state)));
        let reuses = request.cache_prompt && !request.rates_prompt;
        let owner = reuses.then_some(request.owner);
        // What takes more room than there will be is read instead.
        let may_use = |state: &FetchedState| reuses && room.may_hold(state.whole);
        let fetched = request.fetched.filter(may_use).unwrap_or_default();
        let wanted = Wanted {
            prompt: request.prompt,
            owner,
            fetched: fetched.tokens,
        };
        let Some(choice) = reuse::choose(free, &wanted, window) else {
            break;
        };
        // Who comes later goes on with what everybody has.
        let sizes = (request.prompt.len(), fetched.whole);
        let reserved = match room.admit(place, &choice, sizes, short.is_none()) {
            Ok(reserved) => reserved,
            Err(shortage) => {
                short.get_or_insert(shortage);
                continue;
            }
        };
        let admission = Admission {
            place,
            sequence: choice.sequence,
            reserved,
            reuse: choice.reuse,
            from: choice.from,
        };
        running[admission.sequence] = Some(Progress {
            position: admission.reuse,
            owner: Some(request.owner),
            request: RunningState {
                prompt: request.prompt,
                fresh: 0,
                draft: 0,
                medium: MediumState::Raw,
                awaits_mask: false,
                rates_prompt: request.rates_prompt,
                tier: request.tier,
                stops: request.stops,
            },
            most: reserved,
            is_blocked: false,
            is_paused: false,
        });
        admissions.push(admission);
    }
    admissions
}

/// Lets prompts of the flex tier wait for all requests of others that go on. Flex answers go on, a
/// token in a step, so that their room is free again soon.
fn pause(running: &mut [Option<Progress<'_>>]) {
    let goes_on = |progress: &Progress<'_>| !progress.is_flex() && !progress.is_blocked;
    let somebody_waits = running.iter().flatten().any(goes_on);
    for progress in running.iter_mut().flatten() {
        progress.is_paused = somebody_waits && progress.is_flex() && !progress.is_answering();
    }
}

fn receive(running: &[Option<Progress<'_>>], limits: &Limits) -> Receive {
    let can_decode = running.iter().flatten().any(|progress| {
        progress.demand() != Demand::Nothing || progress.embeddings(limits.embeddings).is_some()
    });
    if !can_decode {
        return Receive::Wait {
            idle: running.iter().all(Option::is_none),
        };
    }
    // A message can be of use to a free sequence, or to one that waits for a medium or a mask.
    let all_compute = running
        .iter()
        .all(|progress| progress.is_some_and(|progress| !progress.awaits_message()));
    if all_compute {
        Receive::Skip
    } else {
        Receive::Poll
    }
}

fn batch(running: &[Option<Progress<'_>>], limits: &Limits) -> Vec<Segment> {
    let rated = rated_share(running, limits.outputs);
    let all = running.iter().flatten();
    // Each needs one output at most, but for what is tried.
    let mut outputs = match all.clone().any(|progress| progress.is_rated()) {
        true => 0,
        false => limits.outputs.saturating_sub(all.clone().count()),
    };
    let fresh: usize = all.map(|progress| progress.request.fresh).sum();
    let mut left = limits.batch.saturating_sub(fresh);
    let mut demand = |progress: &Progress<'_>| match progress.demand() {
        Demand::Prompt(tokens) if progress.request.rates_prompt => {
            Demand::Prompt(tokens.min(rated))
        }
        Demand::Decode { fresh, draft } => {
            let draft = draft.min(outputs).min(left);
            (outputs, left) = (outputs - draft, left - draft);
            Demand::Decode { fresh, draft }
        }
        demand => demand,
    };
    let claims: Vec<Claim> = running
        .iter()
        .map(|progress| Claim {
            demand: progress.as_ref().map_or(Demand::Nothing, &mut demand),
            account: progress.and_then(|progress| Some(progress.owner?.account())),
        })
        .collect();
    let answers = claims.iter().map(|claim| claim.demand.answer());
    let more = answers.map(|tokens| tokens.saturating_sub(1)).sum();
    let shares = share(&claims, limits.batch(running, more));
    let segments = running.iter().zip(shares).enumerate();
    segments
        .filter_map(|(sequence, (progress, count))| {
            let progress = progress.as_ref().filter(|_| count > 0)?;
            Some(progress.segment(sequence, count))
        })
        .collect()
}

/// Tokens that each prompt that is rated may have in a batch: all others need one output at most.
fn rated_share(running: &[Option<Progress<'_>>], outputs: usize) -> usize {
    let all = running.iter().flatten();
    let rated = all.clone().filter(|progress| progress.is_rated()).count();
    outputs.saturating_sub(all.count() - rated) / rated.max(1)
}

/// The piece of a medium that comes next: other sequences' tokens are decoded in between.
fn embeddings(
    running: &[Option<Progress<'_>>],
    media_turn: usize,
    limit: usize,
) -> Option<EmbeddingsSegment> {
    let count = running.len();
    let mut turns = (0..count).map(|i| (media_turn + i) % count);
    turns.find_map(|sequence| {
        let (span, offset, count) = running[sequence].as_ref()?.embeddings(limit)?;
        Some(EmbeddingsSegment {
            sequence,
            span,
            offset,
            count,
        })
    })
}

impl Progress<'_> {
    /// Tokens that the next batch could have of it.
    fn demand(&self) -> Demand {
        let RunningState {
            prompt,
            awaits_mask,
            ..
        } = self.request;
        if self.is_paused {
            Demand::Nothing
        } else if self.position < prompt.len() {
            match prompt.text_from(self.position) {
                0 => Demand::Nothing,
                tokens => {
                    let stop = self.request.stops.next(self.position);
                    let most = stop.map_or(usize::MAX, |stop| stop - self.position);
                    Demand::Prompt(tokens.min(most))
                }
            }
        } else if awaits_mask || self.is_blocked {
            Demand::Nothing
        } else {
            let RunningState { fresh, draft, .. } = self.request;
            let room = self.most.saturating_sub(self.position + fresh);
            Demand::Decode {
                fresh,
                draft: draft.min(room),
            }
        }
    }

    /// The first `count` of the tokens that it demands.
    fn segment(&self, sequence: usize, count: usize) -> Segment {
        let (position, prompt) = (self.position, self.request.prompt.len());
        let fresh = self.request.fresh;
        let tokens = if position < prompt {
            Tokens::Prompt(position..position + count)
        } else {
            Tokens::Sampled {
                fresh,
                draft: count.saturating_sub(fresh),
            }
        };
        let logits = match &tokens {
            Tokens::Sampled { draft, .. } => draft + 1,
            Tokens::Prompt(_) if self.is_rated() => count,
            Tokens::Prompt(range) => usize::from(range.end == prompt),
        };
        Segment {
            sequence,
            tokens,
            logits,
        }
    }

    fn is_flex(&self) -> bool {
        self.request.tier == ServiceTier::Flex
    }

    fn is_answering(&self) -> bool {
        self.position >= self.request.prompt.len()
    }

    /// Tokens of its prompt come next whose logits are all wanted.
    fn is_rated(&self) -> bool {
        self.request.rates_prompt && self.position < self.request.prompt.len()
    }

    /// The medium at its position, if it is encoded: with the offset and the length of the piece,
    /// of `limit` tokens at most, that comes next.
    fn embeddings(&self, limit: usize) -> Option<(MediumSpan, usize, usize)> {
        if self.request.medium != MediumState::Encoded || self.is_paused {
            return None;
        }
        let span = *self.request.prompt.medium_over(self.position)?;
        let offset = self.position - span.at;
        Some((span, offset, limit.min(span.count - offset)))
    }

    fn has_medium(&self) -> bool {
        self.request.prompt.media_from(self.position) > 0
    }

    fn must_encode(&self) -> bool {
        self.request.medium == MediumState::Raw && self.has_medium() && !self.is_paused
    }

    fn awaits_message(&self) -> bool {
        self.has_medium() || self.request.awaits_mask || self.is_blocked
    }
}
