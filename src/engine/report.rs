//! Reports of what is in memory. However many clients ask, the worker makes one report at a time.

use tokio::sync::oneshot;

use super::child::Child;
use super::{Failure, MemoryPicture, Packing};
use crate::ipc::{Serve, ServeRequest};
use crate::memory::probe::Usage;

/// What the daemon has in memory, worker and all.
#[derive(Clone, Debug)]
pub struct MemoryReport {
    /// This process's.
    pub supervisor: Usage,
    /// Bytes that programs can have without swapping.
    pub available: u64,
    /// `None` when no model is loaded.
    pub worker: Result<Option<WorkerMemory>, Failure>,
}

/// What a worker has in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerMemory {
    pub model: String,
    pub pid: u32,
    /// Where its packed weights are.
    pub packing: Packing,
    pub picture: MemoryPicture,
}

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
        if !self.is_asked && !child.send(ServeRequest::Look) {
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
