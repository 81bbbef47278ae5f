//! What the driver knows of a job beyond its place in the state: what to send, and who waits for
//! what comes of it.

use tokio::sync::{mpsc, oneshot, watch};

use super::choice::ModelRequest;
use crate::backend::{Failure, ModelInfo};
use crate::chat::{ChatEvent, ChatRequest, PrincipalId, TextAnswer, TextTask};
use crate::ipc::ServeRequest;
use crate::store::Model;

pub(super) enum Live {
    Chat {
        owner: PrincipalId,
        wish: ModelRequest,
        /// Tells its client which model answers.
        model: watch::Sender<String>,
        /// Kept until the answer has begun, for the one silent retry.
        request: Option<Box<ChatRequest>>,
        events: mpsc::Sender<Result<ChatEvent, Failure>>,
        started: bool,
    },
    Text {
        wish: ModelRequest,
        task: TextTask,
        reply: oneshot::Sender<Result<TextAnswer, Failure>>,
    },
    Load {
        wish: ModelRequest,
        model: Box<Model>,
        reply: oneshot::Sender<Result<ModelInfo, Failure>>,
    },
}

impl Live {
    /// What it asks of its model.
    pub fn wish(&self) -> &ModelRequest {
        match self {
            Self::Chat { wish, .. } | Self::Text { wish, .. } | Self::Load { wish, .. } => wish,
        }
    }

    /// Whether its client knows already which model answers.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Chat { started: true, .. })
    }

    /// Another model was chosen for it.
    pub fn moved(&mut self, to: Model, wished: ModelRequest) {
        match self {
            Self::Chat { wish, model, .. } => {
                model.send_replace(to.id);
                *wish = wished;
            }
            Self::Text { wish, .. } => *wish = wished,
            Self::Load { wish, model, .. } => (**model, *wish) = (to, wished),
        }
    }

    /// What the worker is to be told, if it can still be told.
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

    /// Tells whoever waits, if they still do.
    pub fn fail(self, failure: Failure) {
        match self {
            // A full channel belongs to a client that does not read; it finds the channel closed.
            Self::Chat { events, .. } => drop(events.try_send(Err(failure))),
            Self::Text { reply, .. } => drop(reply.send(Err(failure))),
            Self::Load { reply, .. } => drop(reply.send(Err(failure))),
        }
    }
}
