//! What became of the packed weights of the model that this thread is loading.

use std::cell::RefCell;
use std::sync::Arc;

use crate::sys::mapping::Mapping;
use crate::worker::packed::Packed;

thread_local! {
    static OUTCOME: RefCell<Option<Outcome>> = const { RefCell::new(None) };
}

/// What became of them.
#[derive(Debug)]
pub enum Outcome {
    /// ggml packed nothing: the CPU or the file's types have no use for it.
    Nothing,
    /// They were there.
    Reused,
    /// They are in the file now, which is not yet safe on the disk; the space is its map.
    Packed { packed: Packed, space: Arc<Mapping> },
    /// They are in memory, all or the last of them; says why.
    InMemory { why: String },
    /// The file does not hold this model's weights: the model was not loaded.
    Wrong { why: String },
    /// No file could take them, and memory may not: the model was not loaded.
    NoFile { why: String },
}

impl Outcome {
    /// What there is instead of packed weights in a file.
    pub(super) fn without_file(why: String, may_use_memory: bool) -> Self {
        match may_use_memory {
            true => Self::InMemory { why },
            false => Self::NoFile { why },
        }
    }
}

/// Notes what is known so far; `None` at the start.
pub(super) fn set(outcome: Option<Outcome>) {
    OUTCOME.set(outcome);
}

/// What was noted last.
pub(super) fn take() -> Option<Outcome> {
    OUTCOME.take()
}

/// Whether loading is to stop because the packed weights cannot be where they were to be.
pub fn has_failed() -> bool {
    OUTCOME.with_borrow(|outcome| {
        matches!(
            outcome,
            Some(Outcome::Wrong { .. } | Outcome::NoFile { .. })
        )
    })
}
