//! The thread that computes the masks of one answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::constraint::CompiledGrammar;
use super::llama::Token;
use super::messages::{MaskReady, ServerMessage};
use crate::ipc::RequestId;

/// Whose masks they are, and where they are delivered.
pub struct MaskReceiver {
    pub slot: usize,
    pub id: RequestId,
    pub ready: SyncSender<ServerMessage>,
}

/// A handle of the thread, which ends when this is dropped.
pub struct MaskThread {
    tokens: SyncSender<Token>,
}

impl MaskThread {
    /// Starts at a grammar's beginning.
    pub fn spawn(grammar: Arc<CompiledGrammar>, receiver: &MaskReceiver) -> Self {
        let (tokens, taken) = sync_channel(1);
        let (slot, id, ready) = (receiver.slot, receiver.id, receiver.ready.clone());
        super::thread::start(move || compute(&grammar, &taken, slot, id, &ready));
        Self { tokens }
    }

    /// Goes on with a token; answered by a [`ServerMessage::MaskReady`].
    pub fn take(&self, token: Token) {
        // There is room: the mask after the last token has come. A thread that panicked was
        // answered for.
        let _ = self.tokens.try_send(token);
    }
}

fn compute(
    grammar: &CompiledGrammar,
    tokens: &Receiver<Token>,
    slot: usize,
    id: RequestId,
    ready: &SyncSender<ServerMessage>,
) {
    let mut state = grammar.start();
    for token in tokens {
        let mask = state.take(token);
        let failed = mask.is_err();
        let message = MaskReady { slot, id, mask };
        let sent = ready.send(ServerMessage::MaskReady(Box::new(message)));
        if sent.is_err() || failed {
            return;
        }
    }
}
