//! The preparer thread: from a request to the tokens of its prompt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use super::inbox::{Inbox, Incoming, Turn};
use super::link::Writer;
use super::llama::{Token, Vocab};
use super::prompt::{Prompter, Segment, opens_thought};
use crate::chat::{ChatError, ChatRequest};
use crate::ipc::{FromWorker, RequestId};

/// A request that is ready for a slot.
pub struct Prepared {
    pub id: RequestId,
    /// Without messages and tools: they are in the prompt now.
    pub request: Box<ChatRequest>,
    /// Never empty, and shorter than the context.
    pub prompt: Vec<Token>,
    /// The prompt ends inside an open thinking channel.
    pub in_thought: bool,
    /// Functions were offered.
    pub may_call: bool,
    pub cancelled: Arc<AtomicBool>,
    pub received: Instant,
}

impl Prepared {
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Makes prompts for one model.
pub struct Preparer {
    pub prompter: Prompter,
    pub vocab: Vocab,
    /// Bytes of the longest token.
    pub longest: usize,
    /// Tokens of context that a request has.
    pub context: u32,
}

/// Starts the thread. It takes the inbox's two ends of its own, so it starts once.
pub fn spawn(preparer: Preparer, inbox: &mut Inbox, writer: Writer) {
    if let Some((incoming, ready)) = inbox.take_preparer_ends() {
        std::thread::spawn(move || preparer.run(incoming, &ready, &writer));
    }
}

impl Preparer {
    /// Prepares requests one after the other until there are no more senders.
    fn run(self, incoming: Receiver<Incoming>, ready: &SyncSender<Turn>, writer: &Writer) {
        for Incoming { id, mut request, cancelled, received } in incoming {
            if cancelled.load(Ordering::Relaxed) {
                continue;
            }
            let failed = match self.prompt(&request) {
                Ok((prompt, in_thought)) => {
                    let may_call = !request.tools.is_empty();
                    request.messages = vec![];
                    request.tools = vec![];
                    ready.send(Turn::Ready(Box::new(Prepared { id, request, prompt, in_thought, may_call, cancelled, received }))).is_err()
                }
                Err(error) => writer.send(&FromWorker::Failed { id, error }).is_err(),
            };
            if failed {
                return;
            }
        }
    }

    fn prompt(&self, request: &ChatRequest) -> Result<(Vec<Token>, bool), ChatError> {
        let vocabulary = self.vocab.len() as u32;
        if let Some(&(token, _)) = request.sampling.logit_bias.iter().find(|&&(token, _)| token >= vocabulary) {
            return Err(ChatError::UnknownToken { token, vocabulary });
        }
        let segments = self.prompter.render(request)?;
        // Tokenising costs time and memory by the byte. What is certainly too long is refused before, with
        // the least number of tokens that it can have.
        let bytes: usize = segments.iter().map(|segment| segment.text().len()).sum();
        self.fits(bytes.div_ceil(self.longest))?;

        let mut tokens: Vec<Token> = self.vocab.bos().into_iter().collect();
        for segment in &segments {
            let markup = matches!(segment, Segment::Markup(_));
            let too_long = || ChatError::Inference { reason: "the prompt is too long to be split into tokens".to_owned() };
            self.vocab.tokenize(segment.text(), markup, &mut tokens).ok_or_else(too_long)?;
        }
        self.fits(tokens.len())?;
        if tokens.is_empty() {
            return Err(ChatError::Template { reason: "the prompt is empty".to_owned() });
        }
        Ok((tokens, opens_thought(&segments)))
    }

    /// Whether a prompt of `tokens` leaves room for an answer.
    fn fits(&self, tokens: usize) -> Result<(), ChatError> {
        if tokens < self.context as usize {
            return Ok(());
        }
        Err(ChatError::PromptTooLong { prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX), context_tokens: self.context })
    }
}
