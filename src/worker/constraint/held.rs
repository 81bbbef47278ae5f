//! The thread that computes the masks of one answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::prototype::{Mask, Prototype};
use crate::ipc::RequestId;
use crate::worker::inbox::Turn;
use crate::worker::llama::Token;

/// What may come next in a slot's answer.
pub struct Masked {
    pub slot: usize,
    pub id: RequestId,
    /// The error continues "the grammar …".
    pub mask: Result<Mask, String>,
}

/// The llama thread's hold on the thread, which ends with it.
pub struct Held {
    tokens: SyncSender<Token>,
}

impl Held {
    /// Starts at a grammar's beginning.
    pub fn spawn(
        prototype: Arc<Prototype>,
        slot: usize,
        id: RequestId,
        ready: SyncSender<Turn>,
    ) -> Self {
        let (tokens, taken) = sync_channel(1);
        std::thread::spawn(move || compute(&prototype, &taken, slot, id, &ready));
        Self { tokens }
    }

    /// Goes on with a token; answered by a [`Turn::Masked`].
    pub fn take(&self, token: Token) {
        // There is room: the mask after the last token has come. A thread that panicked was
        // answered for.
        let _ = self.tokens.try_send(token);
    }
}

fn compute(
    prototype: &Prototype,
    tokens: &Receiver<Token>,
    slot: usize,
    id: RequestId,
    ready: &SyncSender<Turn>,
) {
    let mut running = prototype.run();
    for token in tokens {
        let mask = running.take(token);
        let failed = mask.is_err();
        if ready
            .send(Turn::Masked(Box::new(Masked { slot, id, mask })))
            .is_err()
            || failed
        {
            return;
        }
    }
}
