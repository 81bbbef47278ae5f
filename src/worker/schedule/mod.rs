//! What the worker does in one step: which request gets which sequence, which medium is encoded
//! next, whether messages are received first, and what llama.cpp decodes. Pure.
//!
//! The worker has one sequence of the KV cache for each request that runs. [`step`] looks at all of
//! them and at the requests that wait, and [`mod@super::serve`] performs its plan:
//!
//! ```text
//!   waiting requests ──▶ admissions: the sequence with the longest usable prefix   (reuse)
//!   media            ──▶ encode: one medium at a time for each request
//!   messages         ──▶ receive: skip, poll or wait
//!   prompts, answers ──▶ segments: one batch of tokens for all sequences           (share)
//!   encoded media    ──▶ embeddings: a piece of one medium, after the batch
//! ```

mod reuse;
mod share;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::reuse::Candidate;
use self::share::{Demand, share};
use super::sequence::{MediumSpan, Sequence};
use crate::chat::PrincipalId;

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
    /// When its last request came; larger is later.
    pub last_used: u64,
    /// The request that it answers; `None` if it is free.
    pub request: Option<RunningState<'a>>,
}

/// A request that has a sequence.
#[derive(Clone, Copy, Debug)]
pub struct RunningState<'a> {
    pub prompt: &'a Sequence,
    /// The first medium of the prompt that is not in the cache as a whole.
    pub medium: MediumState,
    /// The mask of the next token is still being computed.
    pub awaits_mask: bool,
    /// The logits behind each token of the prompt are wanted.
    pub rates_prompt: bool,
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
}

/// What holds for the worker's life.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tokens of one batch.
    pub batch: usize,
    /// Tokens of one batch whose logits are computed: as many as there are sequences, at least.
    pub outputs: usize,
    /// Tokens of a medium that are decoded at once.
    pub embeddings: usize,
    /// Positions that sliding layers look back.
    pub window: u32,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// In the order in which the requests wait.
    pub admissions: Vec<Admission>,
    /// Sequences whose next medium is to be encoded.
    pub encode: Vec<usize>,
    pub receive: Receive,
    /// The batch: sequences in their order, since llama.cpp computes those together that follow
    /// each other.
    pub segments: Vec<Segment>,
    /// Decoded after the batch.
    pub embeddings: Option<EmbeddingsSegment>,
}

/// The request that has waited longest, and after it the next, gets a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    pub sequence: usize,
    /// Tokens of the sequence that stay; all that follow are truncated.
    pub reuse: usize,
}

/// What to do about messages before the batch is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receive {
    /// Every sequence computes: a message could change nothing.
    #[default]
    Skip,
    /// Take a message if there is one.
    Poll,
    /// There is nothing to decode: wait for one.
    Wait {
        /// No request runs.
        idle: bool,
    },
}

/// Tokens of one sequence in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub sequence: usize,
    pub tokens: Tokens,
    /// Of how many of its last tokens the logits are wanted.
    pub logits: usize,
}

/// Where the tokens of a segment come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// The prompt, at these positions.
    Prompt(Range<usize>),
    /// The token that was sampled last.
    Sampled,
}

impl Tokens {
    fn count(&self) -> usize {
        match self {
            Self::Prompt(range) => range.len(),
            Self::Sampled => 1,
        }
    }
}

/// A piece of an encoded medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddingsSegment {
    pub sequence: usize,
    pub span: MediumSpan,
    /// The first token of the piece, counted from the medium's.
    pub offset: usize,
    /// Tokens.
    pub count: usize,
}

/// A request on its sequence, `position` tokens of which are in the cache.
#[derive(Clone, Copy)]
struct Progress<'a> {
    position: usize,
    request: RunningState<'a>,
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
                request,
            })
        })
        .collect();
    let admissions = admit(sequences, waiting, &mut running, limits.window);
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
    let embeddings = embeddings(&running, media_turn, limits.embeddings);
    StepPlan {
        admissions,
        encode,
        receive,
        segments,
        embeddings,
    }
}

/// Gives free sequences to waiting requests.
fn admit<'a>(
    sequences: &[SequenceState<'a>],
    waiting: &[WaitingState<'a>],
    running: &mut [Option<Progress<'a>>],
    window: u32,
) -> Vec<Admission> {
    let mut admissions = vec![];
    for request in waiting {
        let free = sequences
            .iter()
            .enumerate()
            .filter(|(i, _)| running[*i].is_none())
            .map(|(i, state)| {
                let candidate = Candidate {
                    cached: state.cached,
                    first_position: state.first_position,
                    owner: state.owner,
                    last_used: state.last_used,
                };
                (i, candidate)
            });
        let reuses = request.cache_prompt && !request.rates_prompt;
        let owner = reuses.then_some(request.owner);
        let Some(admission) = reuse::choose(free, request.prompt, window, owner) else {
            break;
        };
        running[admission.sequence] = Some(Progress {
            position: admission.reuse,
            request: RunningState {
                prompt: request.prompt,
                medium: MediumState::Raw,
                awaits_mask: false,
                rates_prompt: request.rates_prompt,
            },
        });
        admissions.push(admission);
    }
    admissions
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
    let demand = |progress: &Progress<'_>| match progress.demand() {
        Demand::Prompt(tokens) if progress.request.rates_prompt => {
            Demand::Prompt(tokens.min(rated))
        }
        demand => demand,
    };
    let demands: Vec<Demand> = running
        .iter()
        .map(|progress| progress.as_ref().map_or(Demand::Nothing, demand))
        .collect();
    let shares = share(&demands, limits.batch);
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
        if self.position < prompt.len() {
            match prompt.text_from(self.position) {
                0 => Demand::Nothing,
                tokens => Demand::Prompt(tokens),
            }
        } else if awaits_mask {
            Demand::Nothing
        } else {
            Demand::Decode
        }
    }

    /// The first `count` of the tokens that it demands.
    fn segment(&self, sequence: usize, count: usize) -> Segment {
        let (position, prompt) = (self.position, self.request.prompt.len());
        let tokens = if position < prompt {
            Tokens::Prompt(position..position + count)
        } else {
            Tokens::Sampled
        };
        let logits = match self.is_rated() {
            true => count,
            false => usize::from(position + count >= prompt),
        };
        Segment {
            sequence,
            tokens,
            logits,
        }
    }

    /// Tokens of its prompt come next whose logits are all wanted.
    fn is_rated(&self) -> bool {
        self.request.rates_prompt && self.position < self.request.prompt.len()
    }

    /// The medium at its position, if it is encoded: with the offset and the length of the piece,
    /// of `limit` tokens at most, that comes next.
    fn embeddings(&self, limit: usize) -> Option<(MediumSpan, usize, usize)> {
        if self.request.medium != MediumState::Encoded {
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
        self.request.medium == MediumState::Raw && self.has_medium()
    }

    fn awaits_message(&self) -> bool {
        self.has_medium() || self.request.awaits_mask
    }
}
