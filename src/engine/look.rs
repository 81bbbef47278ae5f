//! What is in memory, and who waits to hear it.

use tokio::sync::oneshot;

use super::child::Child;
use crate::backend::{Failure, WorkerMemory};
use crate::ipc::{Serve, ServeRequest};

type Reply = oneshot::Sender<Result<Option<WorkerMemory>, Failure>>;

/// Who waits for the worker to say what it has in memory.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: Vec<Reply>,
    /// Whether the worker was told to look and has not answered.
    looking: bool,
}

impl Looks {
    /// Has the worker look, unless it is looking already: however many ask, it has one look to
    /// take.
    pub fn ask(&mut self, reply: Reply, child: &Child<Serve>) {
        self.waiting.retain(|reply| !reply.is_closed());
        self.waiting.push(reply);
        if !self.looking && !child.send(ServeRequest::ReportMemory) {
            return self.answer(None);
        }
        self.looking = true;
    }

    pub fn answer(&mut self, memory: Option<WorkerMemory>) {
        self.looking = false;
        self.waiting
            .drain(..)
            .for_each(|reply| drop(reply.send(Ok(memory.clone()))));
    }
}
