//! The only door to generation, and the only owner of change.
//!
//! Front doors hold an [`Engine`]; everything they ask goes as one [`Command`] to the driver, the one task
//! that owns the worker. `state` and `queue` decide, `driver` and `child` act.

mod failure;
#[cfg(test)]
pub(crate) mod scripted;
mod status;

pub use failure::Failure;
pub use status::{ModelInfo, Phase, Status};

use tokio::sync::{mpsc, oneshot, watch};

use crate::chat::{ChatEvent, ChatRequest};

/// Commands that wait for the driver.
const COMMANDS: usize = 256;

/// A user id.
pub type Uid = u32;

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

/// What can be asked of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Legal always; refused when the queue is full, the model unknown or the daemon leaving.
    Chat { uid: Uid, model: String, request: Box<ChatRequest>, reply: oneshot::Sender<Result<Answer, Failure>> },
    /// Legal always; answered when the model is up.
    Load { model: String, reply: oneshot::Sender<Result<ModelInfo, Failure>> },
    /// Legal always; requests in flight are finished first, waiting ones load the model again.
    Unload { reply: oneshot::Sender<Result<(), Failure>> },
    /// An answer was dropped by its reader.
    HangUp { request: u64 },
    /// Look at the model directories again.
    Rescan,
    /// Take no more requests; answered when the last has ended or the grace time is over.
    Drain { reply: oneshot::Sender<()> },
}

/// An answer on its way. Dropping it stops the generation.
#[derive(Debug)]
pub struct Answer {
    /// The model that answers.
    pub model: String,
    events: mpsc::Receiver<Result<ChatEvent, Failure>>,
    _guard: HangUpGuard,
}

#[derive(Debug)]
struct HangUpGuard {
    request: u64,
    commands: mpsc::UnboundedSender<u64>,
}

impl Answer {
    /// The next event; `None` after `Done` or a failure.
    pub async fn next(&mut self) -> Option<Result<ChatEvent, Failure>> {
        self.events.recv().await
    }
}

impl Engine {
    /// Puts a request in the queue. The answer's first event may be long in coming: a model may have to be
    /// loaded first.
    pub async fn chat(&self, uid: Uid, model: &str, request: ChatRequest) -> Result<Answer, Failure> {
        self.ask(|reply| Command::Chat { uid, model: model.to_owned(), request: Box::new(request), reply }).await
    }

    /// Loads a model, ending the one that is loaded; returns when it is up.
    pub async fn load(&self, model: &str) -> Result<ModelInfo, Failure> {
        self.ask(|reply| Command::Load { model: model.to_owned(), reply }).await
    }

    /// Ends the worker once it is idle; every byte it had is back when this returns.
    pub async fn unload(&self) -> Result<(), Failure> {
        self.ask(|reply| Command::Unload { reply }).await
    }

    /// Sends a command and waits for its answer. A driver that is gone has left with the daemon.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(Failure::ShuttingDown);
        }
        answer.await.unwrap_or(Err(Failure::ShuttingDown))
    }

    /// What is known right now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Resolves a model's name as clients spell it: `auto`, or an id in any case.
    pub fn find(&self, name: &str) -> Result<ModelInfo, Failure> {
        let status = self.status.borrow();
        let wanted = match &status.default {
            Some(default) if name.eq_ignore_ascii_case("auto") => default,
            _ => name,
        };
        let found = status.models.iter().find(|model| model.id.eq_ignore_ascii_case(wanted));
        found.cloned().ok_or_else(|| Failure::UnknownModel {
            asked: name.to_owned(),
            known: status.models.iter().map(|model| model.id.clone()).collect(),
        })
    }
}
