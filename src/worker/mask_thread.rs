//! The thread that computes the masks of one answer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::constraint::{CompiledGrammar, Masks};
use super::llama::Token;
use super::messages::{MaskReady, ServerMessage};
use super::vocab::Vocab;
use crate::ipc::RequestId;

/// Whose masks they are, and where they are delivered.
#[derive(Clone)]
pub struct MaskReceiver {
    pub slot: usize,
    pub id: RequestId,
    pub ready: SyncSender<ServerMessage>,
    pub vocab: Vocab,
}

impl MaskReceiver {
    pub fn new(slot: usize, id: RequestId, ready: SyncSender<ServerMessage>, vocab: Vocab) -> Self {
        Self {
            slot,
            id,
            ready,
            vocab,
        }
    }
}

/// What was sampled, and what may follow.
pub struct Taken {
    pub tokens: Vec<Token>,
    /// Tokens behind each of which a mask is of use.
    pub guesses: Vec<Token>,
    /// So many masks are of use beyond the first; those along what the grammar leaves no choice about
    /// come before the guesses.
    pub ahead: usize,
}

/// A handle of the thread, which ends when this is dropped.
pub struct MaskThread {
    taken: SyncSender<Taken>,
}

impl MaskThread {
    /// Starts at a grammar's beginning.
    pub fn spawn(grammar: Arc<CompiledGrammar>, receiver: &MaskReceiver) -> Self {
        let (sender, taken) = sync_channel(1);
        let receiver = receiver.clone();
        super::thread::start(move || compute(&grammar, &taken, &receiver));
        Self { taken: sender }
    }

    /// Goes on with what was sampled; answered by a [`ServerMessage::MaskReady`].
    pub fn take(&self, taken: Taken) {
        // There is room: the masks after the last token have come. A thread that panicked was
        // answered for.
        let _ = self.taken.try_send(taken);
    }
}

fn compute(grammar: &CompiledGrammar, taken: &Receiver<Taken>, receiver: &MaskReceiver) {
    let MaskReceiver {
        slot,
        id,
        ready,
        vocab,
    } = receiver;
    let mut state = grammar.start();
    let mut all = vec![];
    for Taken {
        tokens,
        guesses,
        ahead,
    } in taken
    {
        all.extend_from_slice(&tokens);
        let masks = state.take(&tokens).map(|mask| {
            let Some(&last) = tokens.last().filter(|_| ahead > 0) else {
                return Masks::from(mask);
            };
            let from = (last, mask.clone());
            let looked = state.look_ahead(from, &guesses, ahead, |bytes| spell(vocab, bytes));
            looked.unwrap_or_else(|_| {
                // What lies ahead takes too much work, and may never be written.
                state = grammar.start();
                // Where this fails, so does the next token.
                let _ = state.take(&all);
                Masks::from(mask)
            })
        });
        let failed = masks.is_err();
        let message = MaskReady {
            slot: *slot,
            id: *id,
            masks,
        };
        let sent = ready.send(ServerMessage::MaskReady(Box::new(message)));
        if sent.is_err() || failed {
            return;
        }
    }
}

/// The tokens of forced bytes, which may end within a character.
pub fn spell(vocab: Vocab, bytes: &[u8]) -> Vec<Token> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut tokens = vec![];
    vocab.tokenize(text, false, &mut tokens);
    tokens
}
