//! What the driver knows of a job beyond its place in the state: the message for the worker, and
//! the channel of the client that waits for the result.

use tokio::sync::{mpsc, oneshot, watch};

use super::choice::ModelRequest;
use crate::backend::{Failure, ModelInfo};
use crate::chat::{
    ChatEvent, ChatRequest, PrincipalId, PromptToken, ServiceTier, Stage, TextAnswer, TextTask,
    Waiting,
};
use crate::ipc::ServeRequest;
use crate::store::Model;

pub(super) enum Pending {
    Chat {
        owner: PrincipalId,
        wanted: ModelRequest,
        /// Tells the client which model answers.
        model: watch::Sender<String>,
        /// Tells the client how far its request is.
        waiting: watch::Sender<Option<Waiting>>,
        /// Kept for the one silent retry: until the answer has begun, or to its end if it is whole.
        request: Option<Box<ChatRequest>>,
        events: mpsc::Sender<Result<ChatEvent, Failure>>,
        started: bool,
        /// Something of the answer was handed to the client since the request was sent last.
        begun: bool,
        /// Bytes of events that one worker may send for it, and that the present one may still
        /// send; see [`allowance`].
        allowed: u64,
        left: u64,
    },
    Text {
        wanted: ModelRequest,
        task: TextTask,
        reply: oneshot::Sender<Result<TextAnswer, Failure>>,
    },
    Load {
        wanted: ModelRequest,
        model: Box<Model>,
        reply: oneshot::Sender<Result<ModelInfo, Failure>>,
    },
}

/// Bytes of a token's text at most, generously: the longest have about a hundred, and escapes of
/// JSON make more of them.
const TOKEN_BYTES: u64 = 1 << 10;
/// Bytes of events besides those of tokens.
const EVENT_BYTES: u64 = 64 << 10;

/// Bytes of events that a worker may send for a request whose answer has `most_tokens` at most. A
/// worker that was taken over would send more.
pub fn allowance(request: &ChatRequest, most_tokens: u32) -> u64 {
    let tokens = request
        .output
        .max_tokens
        .map_or(most_tokens, |tokens| tokens.min(most_tokens));
    let rivals = request.logprobs.map_or(0, |top| 1 + u64::from(top));
    let rated = request.prompt.as_ref().filter(|_| request.prompt_logprobs);
    let rated = rated.map_or(0, |prompt| prompt.most_tokens() as u64);
    EVENT_BYTES + (u64::from(tokens) + rated) * TOKEN_BYTES * (1 + rivals)
}

/// Bytes of memory that an event takes.
pub fn event_bytes(event: &ChatEvent) -> u64 {
    let (text, logprobs) = match event {
        ChatEvent::Thought { text, logprobs } | ChatEvent::Text { text, logprobs } => {
            (text.len(), &logprobs[..])
        }
        ChatEvent::CallStarted { name } => (name.len(), &[][..]),
        ChatEvent::CallArguments { json } => (json.len(), &[][..]),
        ChatEvent::Accepted { .. }
        | ChatEvent::Started { .. }
        | ChatEvent::Prompt { .. }
        | ChatEvent::CallEnded
        | ChatEvent::Done(_)
        | ChatEvent::Restarted => (0, &[][..]),
    };
    let token = |bytes: &[u8], top: &[(Vec<u8>, f32)]| {
        let rivals = top.iter().map(|(bytes, _)| bytes.len());
        size_of::<PromptToken>() + bytes.len() + rivals.sum::<usize>() + size_of_val(top)
    };
    let rated = match event {
        ChatEvent::Prompt { tokens } => {
            let tokens = tokens.iter().map(|rated| token(&rated.bytes, &rated.top));
            tokens.sum()
        }
        _ => 0,
    };
    let drawn: usize = logprobs
        .iter()
        .map(|drawn| token(&drawn.bytes, &drawn.top))
        .sum();
    (size_of::<ChatEvent>() + text + rated + drawn) as u64
}

impl Pending {
    /// What the job asks of its model.
    pub fn wanted(&self) -> &ModelRequest {
        match self {
            Self::Chat { wanted, .. } | Self::Text { wanted, .. } | Self::Load { wanted, .. } => {
                wanted
            }
        }
    }

    /// Whose turn comes first.
    pub fn tier(&self) -> ServiceTier {
        match self {
            Self::Chat {
                request: Some(request),
                ..
            } => request.tier,
            _ => ServiceTier::Default,
        }
    }

    /// Whether the client knows already which model answers. Who waits for the whole is told at its
    /// end.
    pub fn is_settled(&self) -> bool {
        let Self::Chat {
            started, request, ..
        } = self
        else {
            return false;
        };
        *started && !request.as_ref().is_some_and(|request| request.whole)
    }

    /// What its client was told last, as long as its answer has not begun.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::Chat {
                started: false,
                waiting,
                ..
            } => Some((*waiting.borrow())?.stage),
            _ => None,
        }
    }

    /// Tells the client how far its request is, unless it knows or its answer has begun.
    pub fn tell(&self, now: Waiting) {
        let Self::Chat {
            started: false,
            waiting,
            ..
        } = self
        else {
            return;
        };
        waiting.send_if_modified(|told| {
            let is_new = told.is_none_or(|told| told.stage != now.stage);
            if is_new {
                *told = Some(now);
            }
            is_new
        });
    }

    /// Another model was chosen for the job.
    pub fn reassign(&mut self, to: Model, request: ModelRequest) {
        match self {
            Self::Chat { wanted, model, .. } => {
                model.send_replace(to.id);
                *wanted = request;
            }
            Self::Text { wanted, .. } => *wanted = request,
            Self::Load { wanted, model, .. } => {
                **model = to;
                *wanted = request;
            }
        }
    }

    /// Has the client forget what a worker said that is gone. `false` if it does not read.
    pub fn restart(&mut self) -> bool {
        let Self::Chat {
            begun,
            events,
            allowed,
            left,
            ..
        } = self
        else {
            return true;
        };
        *left = *allowed;
        !std::mem::take(begun) || events.try_send(Ok(ChatEvent::Restarted)).is_ok()
    }

    /// The message for the worker, if it can still be sent, which it is `now` in the time of the cache of
    /// prompts.
    pub fn message(&self, id: u64, now: u64) -> Option<ServeRequest> {
        match self {
            Self::Chat { owner, request, .. } => Some(ServeRequest::Chat {
                id,
                owner: *owner,
                sent: now,
                request: request.clone()?,
            }),
            Self::Text { task, .. } => Some(ServeRequest::Text {
                id,
                task: task.clone(),
            }),
            Self::Load { .. } => None,
        }
    }

    /// Tells the client why there is no answer. The client may be gone. A full channel of events
    /// belongs to a client that does not read; it finds the channel closed.
    pub fn fail(self, failure: Failure) {
        match self {
            Self::Chat { events, .. } => {
                let _ = events.try_send(Err(failure));
            }
            Self::Text { reply, .. } => {
                let _ = reply.send(Err(failure));
            }
            Self::Load { reply, .. } => {
                let _ = reply.send(Err(failure));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::TokenLogprob;

    #[test]
    fn what_a_request_allows_holds_the_largest_answer_and_no_flood() {
        let mut request = ChatRequest::new(vec![]);
        let text = |bytes: usize| ChatEvent::Text {
            text: "a".repeat(bytes),
            logprobs: vec![],
        };
        request.output.max_tokens = Some(10);
        assert_eq!(
            allowance(&request, 8),
            allowance(&request, 8192) - 2 * TOKEN_BYTES
        );
        assert!(10 * event_bytes(&text(600)) < allowance(&request, 8192));
        assert!(event_bytes(&text(1 << 20)) > allowance(&request, 8192));
        request.logprobs = Some(20);
        let token = TokenLogprob {
            bytes: vec![0; 100],
            logprob: 0.0,
            top: vec![(vec![0; 100], 0.0); 20],
        };
        let event = ChatEvent::Text {
            text: String::new(),
            logprobs: vec![token; 10],
        };
        assert!(event_bytes(&event) > 10 * 21 * 100);
        assert!(event_bytes(&event) < allowance(&request, 8192));
        // Events that say nothing count as well.
        let none = 2 * allowance(&request, 8192) / event_bytes(&ChatEvent::CallEnded);
        assert!(none < 100_000, "{none}");
    }
}
