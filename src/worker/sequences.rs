//! The sequences of the KV cache: the one owner of what each of them holds.
//!
//! llama.cpp's cache knows positions and forgets tokens; [`Sequences`] keeps the tokens. Both change
//! together, here alone: what a batch had is noted when it was decoded, and truncated on both sides
//! when it was not.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::llama::{Batch, DecodeError, DraftStart, Extent, Guess, Rows, Token};
use super::sequence::{MediumSpan, Sequence};
use crate::chat::PrincipalId;

/// llama.cpp's side: keys and values by sequence and position.
pub trait KvCache {
    /// Sees to it that there is a cache. The error is llama.cpp's reason.
    fn reserve(&mut self) -> Result<(), String>;
    /// Frees the cache; all sequences are empty.
    fn release(&mut self);
    /// Removes all from position `from` on.
    fn truncate(&mut self, sequence: u32, from: u32);
    /// The first position that the sliding layers still have; `None` when the sequence is empty.
    fn first_position(&self, sequence: u32) -> Option<u32>;
    /// Decodes tokens; stops when all of `cancelled` are set.
    fn decode(
        &mut self,
        batch: &mut Batch,
        cancelled: impl Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<(), DecodeError>;
    /// Decodes embeddings in the place of tokens.
    fn decode_embeddings(
        &mut self,
        rows: Rows<'_>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<(), DecodeError>;
    /// Has the drafter, if there is one, guess what comes behind `start`, until it is told not to go on.
    fn draft(
        &mut self,
        start: DraftStart,
        cancelled: Arc<AtomicBool>,
        goes_on: &mut dyn FnMut(Guess) -> bool,
    );
    /// Bytes of what [`KvCache::save`] makes.
    fn state_bytes(&mut self, sequence: u32, extent: Extent) -> usize;
    /// What the cache holds of `sequence`.
    fn save(&mut self, sequence: u32, extent: Extent) -> Option<Vec<u8>>;
    /// Puts what was saved in the place of what `sequence` holds; `false` where that cannot be done,
    /// after which the sequence is in doubt.
    fn restore(&mut self, sequence: u32, state: &[u8], extent: Extent) -> bool;
    /// The logits behind the token at `row` of the last batch.
    fn logits(&mut self, row: usize) -> Option<&[f32]>;
}

/// A place to which the sliding layers can be brought back, after they have forgotten it.
struct Checkpoint {
    /// Tokens before it.
    tokens: usize,
    state: Vec<u8>,
}

/// What brings a sequence to a place in a prompt.
#[derive(Debug)]
pub struct SavedState {
    /// Tokens before it.
    pub tokens: usize,
    pub bytes: Vec<u8>,
}

/// A piece of a medium's embeddings.
pub struct Piece<'a> {
    pub span: MediumSpan,
    /// The tokens that stand for the piece in the prompt.
    pub tokens: &'a [Token],
    /// The embeddings of those tokens, one row after the other.
    pub rows: &'a [f32],
    pub is_picture: bool,
}

/// What the cache holds of one sequence.
#[derive(Default)]
struct Cached {
    tokens: Sequence,
    /// Tokens for which the cache has memory: the most that it held since it was empty.
    most: usize,
    /// Tokens in the batch.
    batched: usize,
    /// Whose request filled it.
    owner: Option<PrincipalId>,
    last_used: u64,
    /// Within `tokens`.
    checkpoint: Option<Checkpoint>,
}

/// All sequences, and the batch that is decoded next.
pub struct Sequences<C> {
    cache: C,
    cached: Vec<Cached>,
    batch: Batch,
}

impl<C: KvCache> Sequences<C> {
    /// `count` empty sequences, and room for `batch` tokens.
    pub fn new(cache: C, count: usize, batch: usize) -> Self {
        Self {
            cache,
            cached: (0..count).map(|_| Cached::default()).collect(),
            batch: Batch::new(batch),
        }
    }

    pub fn count(&self) -> usize {
        self.cached.len()
    }

    /// What the cache holds of `sequence`.
    pub fn cached(&self, sequence: usize) -> &Sequence {
        &self.cached[sequence].tokens
    }

    /// Whose request filled `sequence`; `None` before the first.
    pub fn owner(&self, sequence: usize) -> Option<PrincipalId> {
        self.cached[sequence].owner
    }

    /// When [`Sequences::begin`] was last called for it.
    pub fn last_used(&self, sequence: usize) -> u64 {
        self.cached[sequence].last_used
    }

    /// Tokens for which the cache has memory of `sequence`.
    pub fn reserved(&self, sequence: usize) -> usize {
        self.cached[sequence].most
    }

    /// See [`KvCache::first_position`].
    pub fn first_position(&self, sequence: usize) -> Option<u32> {
        self.cache.first_position(sequence as u32)
    }

    /// See [`KvCache::reserve`].
    pub fn reserve(&mut self) -> Result<(), String> {
        self.cache.reserve()
    }

    /// Frees the cache.
    pub fn release(&mut self) {
        self.batch.clear();
        for cached in &mut self.cached {
            cached.tokens.truncate(0);
            cached.most = 0;
            cached.batched = 0;
            cached.checkpoint = None;
        }
        self.cache.release();
    }

    /// Keeps the first `len` tokens of `sequence`.
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        self.cache.truncate(sequence as u32, len as u32);
        let cached = &mut self.cached[sequence];
        cached.tokens.truncate(len);
        if len == 0 {
            cached.most = 0;
        }
        cached
            .checkpoint
            .take_if(|checkpoint| checkpoint.tokens > len);
    }

    /// To which the sliding layers of `sequence` can be brought back: the tokens before it.
    pub fn checkpoint(&self, sequence: usize) -> Option<usize> {
        let checkpoint = self.cached[sequence].checkpoint.as_ref()?;
        Some(checkpoint.tokens)
    }

    /// Notes the state of the sliding layers, if that has no more than `most` bytes. It takes the place
    /// of the one that was noted before. Returns whether it is noted.
    pub fn take_checkpoint(&mut self, sequence: usize, most: usize) -> bool {
        let tokens = self.cached[sequence].tokens.len();
        let bytes = self.cache.state_bytes(sequence as u32, Extent::Sliding);
        if bytes > most {
            return false;
        }
        let state = self.cache.save(sequence as u32, Extent::Sliding);
        self.cached[sequence].checkpoint = state.map(|state| Checkpoint { tokens, state });
        self.cached[sequence].checkpoint.is_some()
    }

    /// Brings `sequence` back to its checkpoint. `false`: it is empty now.
    pub fn go_back(&mut self, sequence: usize) -> bool {
        let Some(Checkpoint { tokens, state }) = self.cached[sequence].checkpoint.take() else {
            self.clear(sequence);
            return false;
        };
        if !self.cache.restore(sequence as u32, &state, Extent::Sliding) {
            self.clear(sequence);
            return false;
        }
        self.truncate(sequence, tokens);
        self.cached[sequence].checkpoint = Some(Checkpoint { tokens, state });
        true
    }

    /// Bytes of what [`Sequences::save`] makes.
    pub fn state_bytes(&mut self, sequence: usize) -> usize {
        let checkpoint = self.cached[sequence].checkpoint.as_ref();
        let noted = checkpoint.map_or(0, |checkpoint| checkpoint.state.len());
        self.cache.state_bytes(sequence as u32, Extent::Whole) + noted
    }

    /// What brings another sequence, or a later cache, to where `sequence` is; and then what brings it
    /// back to the checkpoint.
    pub fn save(&mut self, sequence: usize) -> Option<Vec<SavedState>> {
        let whole = SavedState {
            tokens: self.cached[sequence].tokens.len(),
            bytes: self.cache.save(sequence as u32, Extent::Whole)?,
        };
        let checkpoint = self.cached[sequence].checkpoint.as_ref();
        let checkpoint = checkpoint
            .filter(|checkpoint| checkpoint.tokens < whole.tokens)
            .map(|checkpoint| SavedState {
                tokens: checkpoint.tokens,
                bytes: checkpoint.state.clone(),
            });
        Some([whole].into_iter().chain(checkpoint).collect())
    }

    /// Puts the first `tokens` of `prompt`, which one of `states` brings it to, in the place of what
    /// `sequence` holds. `false`: it is empty now.
    pub fn restore(
        &mut self,
        sequence: usize,
        prompt: &Sequence,
        states: Vec<SavedState>,
        tokens: usize,
    ) -> bool {
        self.clear(sequence);
        let whole_tokens = states.first().map_or(0, |whole| whole.tokens);
        let mut states = states.into_iter();
        let restored = states.next().is_some_and(|whole| {
            let is_whole = whole.tokens >= tokens;
            is_whole
                && self
                    .cache
                    .restore(sequence as u32, &whole.bytes, Extent::Whole)
                && (whole.tokens == tokens || {
                    let earlier = states.find(|state| state.tokens == tokens);
                    earlier.is_some_and(|state| {
                        self.cache
                            .restore(sequence as u32, &state.bytes, Extent::Sliding)
                    })
                })
        });
        if !restored {
            self.clear(sequence);
            return false;
        }
        self.cache.truncate(sequence as u32, tokens as u32);
        let cached = &mut self.cached[sequence];
        cached.tokens = prompt.first(tokens);
        cached.most = whole_tokens;
        true
    }

    /// Empties `sequence`.
    pub fn clear(&mut self, sequence: usize) {
        self.truncate(sequence, 0);
    }

    /// Begins a request of `owner` at time `now` that goes on from what `sequence` holds.
    pub fn begin(&mut self, sequence: usize, owner: PrincipalId, now: u64) {
        self.cached[sequence].owner = Some(owner);
        self.cached[sequence].last_used = now;
    }

    /// Begins a batch.
    pub fn clear_batch(&mut self) {
        self.batch.clear();
        self.cached.iter_mut().for_each(|cached| cached.batched = 0);
    }

    /// Adds the next tokens of `sequence` to the batch. The logits behind the last `logits` of them
    /// are computed. Returns the row of the last.
    pub fn push(&mut self, sequence: usize, tokens: &[Token], logits: usize) -> usize {
        let cached = &mut self.cached[sequence];
        let mut row = 0;
        for (i, &token) in tokens.iter().enumerate() {
            let position = (cached.tokens.len() + cached.batched) as u32;
            let is_wanted = i + logits >= tokens.len();
            row = self.batch.push(token, position, sequence as u32, is_wanted);
            cached.batched += 1;
        }
        row
    }

    /// The tokens of the batch.
    pub fn batch(&self) -> &[Token] {
        self.batch.tokens()
    }

    /// Decodes the batch. After [`DecodeError::Aborted`] its sequences are as before; after another
    /// error they are empty.
    pub fn decode(
        &mut self,
        cancelled: impl Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<(), DecodeError> {
        for cached in &mut self.cached {
            cached.most = cached.most.max(cached.tokens.len() + cached.batched);
        }
        let decoded = self.cache.decode(&mut self.batch, cancelled);
        if decoded.is_ok() {
            for (sequence, token) in self.batch.entries() {
                self.cached[sequence as usize].tokens.tokens.push(token);
            }
        }
        for sequence in 0..self.cached.len() {
            let batched = std::mem::take(&mut self.cached[sequence].batched);
            if let (Err(error), 1..) = (&decoded, batched) {
                self.undo(sequence, *error);
            }
        }
        decoded
    }

    /// Decodes a piece of a medium, which comes next in `sequence`. For errors see
    /// [`Sequences::decode`].
    pub fn decode_embeddings(
        &mut self,
        sequence: usize,
        piece: &Piece<'_>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<(), DecodeError> {
        let position = self.cached[sequence].tokens.len();
        let rows = Rows {
            numbers: piece.rows,
            count: piece.tokens.len(),
            position: position as u32,
            sequence: sequence as u32,
            picture: piece.is_picture,
        };
        let cached = &mut self.cached[sequence];
        cached.most = cached.most.max(position + piece.tokens.len());
        let decoded = self.cache.decode_embeddings(rows, cancelled);
        match decoded {
            Ok(()) => {
                let cached = &mut self.cached[sequence].tokens;
                if position == piece.span.at {
                    cached.media.push(piece.span);
                }
                cached.tokens.extend_from_slice(piece.tokens);
            }
            Err(error) => self.undo(sequence, error),
        }
        decoded
    }

    /// Removes what a failed decode may have left.
    fn undo(&mut self, sequence: usize, error: DecodeError) {
        match error {
            DecodeError::Aborted => self.truncate(sequence, self.cached[sequence].tokens.len()),
            _ => self.clear(sequence),
        }
    }

    /// Has the drafter guess what comes behind `token`, which was drawn from the logits of the token at `row`
    /// of the batch: the last one that `sequence` holds.
    pub fn draft(
        &mut self,
        sequence: usize,
        (row, token): (usize, Token),
        cancelled: Arc<AtomicBool>,
        goes_on: &mut dyn FnMut(Guess) -> bool,
    ) {
        let start = DraftStart {
            sequence: sequence as u32,
            row,
            token,
            position: self.cached[sequence].tokens.len() as u32,
        };
        self.cache.draft(start, cancelled, goes_on);
    }

    /// The logits behind the token at `row` of the batch.
    pub fn logits(&mut self, row: usize) -> Option<&[f32]> {
        self.cache.logits(row)
    }
}

#[cfg(test)]
pub mod tests;
