//! What is in memory, and who waits to hear it.

use tokio::sync::oneshot;

use super::child::Child;
use super::{Failure, MemorySnapshot, Packing};
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
    pub picture: MemorySnapshot,
}

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
