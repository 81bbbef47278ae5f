//! What the worker's threads send each other:
//!
//! ```text
//!   reader ── [`Incoming`] ──▶ preparer ── [`Prepared`] ──▶ compiler ── [`Prepared`] ──▶ server
//!                                                            encoder ── [`Encoded`] ───▶
//!                                                       mask threads ── [`MaskReady`] ─▶
//!                                                             keeper ── [`KeeperDone`] ▶
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::constraint::{Constraints, Masks};
use super::link::{Outbox, Writer};
use super::llama::Token;
use super::media::{Form, Medium};
use super::prompt_cache::{KeeperDone, Places};
use super::sequence::Sequence;
use crate::chat::{ChatError, ChatEvent, ChatRequest, PrincipalId, TextTask};
use crate::ipc::{RequestId, ServeEvent};

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
    /// See [`ServeRequest::Chat`](crate::ipc::ServeRequest::Chat).
    pub sent: u64,
    pub request: Box<ChatRequest>,
    pub cancelled: Arc<AtomicBool>,
    pub received: Instant,
}

/// A request that is ready for a slot.
pub struct Prepared {
    pub id: RequestId,
    pub owner: PrincipalId,
    /// As in [`Chat`].
    pub sent: u64,
    /// Without messages and tools: they are in the prompt now.
    pub request: Box<ChatRequest>,
    /// Never empty, shorter than the context, and no medium at its end.
    pub prompt: Sequence,
    /// Places in the prompt from which others go on; `None` where it has no turns.
    pub places: Option<Places>,
    /// The prompt's media, in their order.
    pub media: Vec<Arc<Medium>>,
    /// The prompt ends inside an open thinking channel.
    pub in_thought: bool,
    /// The prompt is a text, and so is the answer.
    pub raw: bool,
    /// Its first token is the vocabulary's, and stands before what the client sent.
    pub adds_bos: bool,
    pub constraints: Constraints,
    /// What the client expects of the answer.
    pub prediction: Vec<Token>,
    /// It needs no more room than every slot has.
    pub has_room: bool,
    pub cancelled: Arc<AtomicBool>,
    pub received: Instant,
}

impl Prepared {
    /// Of the prompt's tokens, those of sounds.
    pub fn sound_tokens(&self) -> usize {
        let sounds = self
            .media
            .iter()
            .filter(|medium| matches!(medium.form, Form::Sound));
        sounds.map(|medium| medium.tokens).sum()
    }

    /// Tells the supervisor that nothing is wrong with it, unless that was said: it has room now.
    pub fn accept(&self, out: &mut Outbox) {
        if !self.has_room {
            out.push(&self.accepted());
        }
    }

    fn accepted(&self) -> ServeEvent {
        ServeEvent::Event {
            id: self.id,
            event: ChatEvent::Accepted {
                relaxed: self.constraints.left_out(),
            },
        }
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Hands it to the server. Before that the supervisor is told that nothing is wrong with it, if it
    /// has room for certain. Fails when either has ended.
    pub fn hand_over(
        self: Box<Self>,
        ready: &SyncSender<ServerMessage>,
        writer: &Writer,
    ) -> Result<(), ()> {
        if self.has_room {
            writer.send(&self.accepted()).map_err(drop)?;
        }
        ready.send(ServerMessage::Prepared(self)).map_err(drop)
    }
}

/// What the server waits for when it has nothing to do.
pub enum ServerMessage {
    Prepared(Box<Prepared>),
    Encoded(Box<Encoded>),
    MaskReady(Box<MaskReady>),
    Kept(Box<KeeperDone>),
    /// More context was granted, or not: [`super::inbox::Inbox::granted`].
    Granted,
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
    pub masks: Result<Masks, String>,
}
