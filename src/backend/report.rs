//! What a local backend says of its memory and its disk. Pure.

use std::path::PathBuf;
use std::time::SystemTime;

use super::{Failure, MemorySnapshot, Packing};
use crate::gemma::model_shape::{Cost, PackedWeights};
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

impl WorkerMemory {
    /// Bytes of the worker that are in memory, of files and otherwise.
    pub fn resident(&self) -> u64 {
        self.picture.anonymous + self.picture.file_backed
    }
}

/// What each model would take, held against what it may take. All sizes are bytes.
#[derive(Clone, Debug)]
pub struct PlanReport {
    pub free: u64,
    /// What sets the bound, as words behind the free bytes.
    pub bound: String,
    /// Left to other programs.
    pub reserve: u64,
    /// What a model may take.
    pub budget: u64,
    /// Why no file can hold packed weights, if none can.
    pub no_packed_file: Option<String>,
    /// The installed models, then the variants that are not installed.
    pub models: Vec<PlannedModel>,
}

/// One model in several contexts.
#[derive(Clone, Debug)]
pub struct PlannedModel {
    /// A model's id, or a variant's.
    pub id: String,
    pub variant: &'static str,
    pub installed: bool,
    pub quantization: String,
    pub context_limit: u32,
    /// Bytes of its projector, which is left out where it does not fit.
    pub projector: u64,
    pub contexts: Vec<PlannedContext>,
}

/// One context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedContext {
    /// Tokens.
    pub context: u32,
    pub packed: PackedWeights,
    /// Without the projector.
    pub cost: Cost,
    pub fits: bool,
}

/// The packed weights that there are, or that there were before they were deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// `None`: nothing is kept.
    pub directory: Option<PathBuf>,
    /// Bytes that all files together may have.
    pub limit: u64,
    /// By name.
    pub files: Vec<CachedFile>,
}

/// One model's packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// The model's id, then digits that stand for its contents.
    pub name: String,
    pub bytes: u64,
    pub used: SystemTime,
    /// Whether the worker has it mapped, so that its bytes stay until the model is unloaded.
    pub in_use: bool,
}
