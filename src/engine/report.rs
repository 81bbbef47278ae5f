//! Reports of what is in memory. However many clients ask, the worker makes one report at a time.

use tokio::sync::oneshot;

use super::child::Child;
use crate::backend::{Failure, WorkerMemory};
use crate::ipc::{Serve, ServeRequest};

type Reply = oneshot::Sender<Result<Option<WorkerMemory>, Failure>>;

/// Asks the worker for reports, and gives each to all who asked meanwhile.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    waiting: Vec<Reply>,
    /// Whether the worker was asked and has not answered.
    is_asked: bool,
}

impl Reporter {
    /// Asks the worker for a report, unless it is making one already.
    pub fn ask(&mut self, reply: Reply, child: &Child<Serve>) {
        self.waiting.retain(|reply| !reply.is_closed());
        self.waiting.push(reply);
        if !self.is_asked && !child.send(ServeRequest::ReportMemory) {
            return self.answer(None);
        }
        self.is_asked = true;
    }

    /// Answers all who wait; clients may be gone.
    pub fn answer(&mut self, memory: Option<WorkerMemory>) {
        self.is_asked = false;
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Ok(memory.clone()));
        }
    }
}
