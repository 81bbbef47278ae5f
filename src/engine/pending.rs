//! What the driver knows of a job beyond its place in the state: the message for the worker, and
//! the channel of the client that waits for the result.

use tokio::sync::{mpsc, oneshot, watch};

use super::choice::ModelRequest;
use crate::backend::{Failure, ModelInfo};
use crate::chat::{ChatEvent, ChatRequest, PrincipalId, TextAnswer, TextTask};
use crate::ipc::ServeRequest;
use crate::store::Model;

pub(super) enum Pending {
    Chat {
        owner: PrincipalId,
        wanted: ModelRequest,
        /// Tells the client which model answers.
        model: watch::Sender<String>,
        /// Kept for the one silent retry: until the answer has begun, or to its end if it is whole.
        request: Option<Box<ChatRequest>>,
        events: mpsc::Sender<Result<ChatEvent, Failure>>,
        started: bool,
        /// Something of the answer was handed to the client since the request was sent last.
        begun: bool,
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

impl Pending {
    /// What the job asks of its model.
    pub fn wanted(&self) -> &ModelRequest {
        match self {
            Self::Chat { wanted, .. } | Self::Text { wanted, .. } | Self::Load { wanted, .. } => {
                wanted
            }
        }
    }

    /// Whether the client knows already which model answers.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Chat { started: true, .. })
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
        let Self::Chat { begun, events, .. } = self else {
            return true;
        };
        !std::mem::take(begun) || events.try_send(Ok(ChatEvent::Restarted)).is_ok()
    }

    /// The message for the worker, if it can still be sent.
    pub fn message(&self, id: u64) -> Option<ServeRequest> {
        match self {
            Self::Chat { owner, request, .. } => Some(ServeRequest::Chat {
                id,
                owner: *owner,
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
