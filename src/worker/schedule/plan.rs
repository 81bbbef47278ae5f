//! What a step does. Pure.

use std::ops::Range;

use super::room::RoomPlan;
use crate::worker::sequence::MediumSpan;

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
    /// Before all else.
    pub room: RoomPlan,
}

impl StepPlan {
    /// The tokens of its only segment, if that is an answer's and nothing else is computed.
    pub fn lone_answer(&self) -> Option<usize> {
        match (&self.segments[..], self.embeddings) {
            ([segment], None) if matches!(segment.tokens, Tokens::Sampled { .. }) => {
                Some(segment.tokens.count())
            }
            _ => None,
        }
    }

    /// Tokens of prompts and of a medium, and answers that get a token.
    pub fn counts(&self) -> (usize, usize) {
        let (mut prompt, mut answers) = (self.embeddings.map_or(0, |piece| piece.count), 0);
        for segment in &self.segments {
            match &segment.tokens {
                Tokens::Prompt(range) => prompt += range.len(),
                Tokens::Sampled { .. } => answers += 1,
            }
        }
        (prompt, answers)
    }
}

/// A request that waited gets a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its place among those that wait. Who comes later comes before it only where it has no room.
    pub place: usize,
    pub sequence: usize,
    /// Tokens that the sequence may hold then.
    pub reserved: usize,
    /// Tokens of the prompt that are there already.
    pub reuse: usize,
    pub from: From,
}

/// Where the tokens of a prompt are that need not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// In the sequence; all that follow are truncated.
    Sequence,
    /// In the sequence, once its sliding layers are brought back to the checkpoint.
    Checkpoint,
    /// In the state that was fetched, in the place of what the sequence holds.
    Fetched,
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
    /// What is known of the answer and not in the cache, and tokens behind it that are tried.
    Sampled { fresh: usize, draft: usize },
}

impl Tokens {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Prompt(range) => range.len(),
            Self::Sampled { fresh, draft } => fresh + draft,
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
