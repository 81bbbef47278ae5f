//! What the worker's threads send each other:
//!
//! ```text
//!   reader ── [`Incoming`] ──▶ preparer ── [`Prepared`] ──▶ compiler ── [`Prepared`] ──▶ server
//!                                                            encoder ── [`Encoded`] ───▶
//!                                                       mask threads ── [`MaskReady`] ─▶
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::constraint::{Constraints, Mask};
use super::media::Medium;
use super::sequence::Sequence;
use crate::chat::{ChatError, ChatRequest, PrincipalId, TextTask};
use crate::ipc::RequestId;

/// Requests that wait for each of the threads before a slot. The supervisor sends no more than
/// there are slots, and a few texts; whatever is above this is refused.
pub const MAX_WAITING: usize = 64;

/// What the preparer is to do, in the order in which it came.
pub enum Incoming {
    Chat(Chat),
    /// Answered without a slot.
    Text {
        id: RequestId,
        task: TextTask,
    },
}

/// A request as it came.
pub struct Chat {
    pub id: RequestId,
    pub owner: PrincipalId,
    pub request: Box<ChatRequest>,
    pub cancelled: Arc<AtomicBool>,
    pub received: Instant,
}

/// A request that is ready for a slot.
pub struct Prepared {
    pub id: RequestId,
    pub owner: PrincipalId,
    /// Without messages and tools: they are in the prompt now.
    pub request: Box<ChatRequest>,
    /// Never empty, shorter than the context, and no medium at its end.
    pub prompt: Sequence,
    /// The prompt's media, in their order.
    pub media: Vec<Arc<Medium>>,
    /// The prompt ends inside an open thinking channel.
    pub in_thought: bool,
    /// The prompt is a text, and so is the answer.
    pub raw: bool,
    /// Its first token is the vocabulary's, and stands before what the client sent.
    pub adds_bos: bool,
    pub constraints: Constraints,
    pub cancelled: Arc<AtomicBool>,
    pub received: Instant,
}

impl Prepared {
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// What the server waits for when it has nothing to do.
pub enum ServerMessage {
    Prepared(Box<Prepared>),
    Encoded(Box<Encoded>),
    MaskReady(Box<MaskReady>),
    /// Memory is to be released: [`super::inbox::Inbox::must_trim`].
    Trim,
    End,
}

/// What a picture or a sound that a slot waits for has become.
pub struct Encoded {
    pub slot: usize,
    pub id: RequestId,
    /// A row for each of its tokens.
    pub rows: Result<Vec<f32>, ChatError>,
}

/// Which tokens may come next in a slot's answer.
pub struct MaskReady {
    pub slot: usize,
    pub id: RequestId,
    /// The error continues "the grammar …".
    pub mask: Result<Mask, String>,
}
