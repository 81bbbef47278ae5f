//! What a local backend says of its memory and its disk. Pure.

use std::path::PathBuf;
use std::time::SystemTime;

use super::{Device, Failure, MemorySnapshot, ModelInfo, Packing};
use crate::chat::{Modalities, PrincipalId};
use crate::gemma::model_shape::{Cost, PackedWeights};
use crate::gemma::variant::Variant;
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

/// What ggml could compute on beside the CPU, module by module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceReport {
    /// Where modules are looked for; `None` if this build loads none.
    pub directory: Option<String>,
    pub modules: Vec<DeviceModule>,
}

/// An installed module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceModule {
    /// The name of its file.
    pub file: String,
    /// What it has, or why it cannot be used: that continues the file's name.
    pub found: Result<FoundBackend, String>,
}

/// What a module has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBackend {
    /// As ggml calls it, such as `Vulkan`.
    pub name: String,
    pub devices: Vec<FoundDevice>,
}

/// A device, and what `models/devices.toml` says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDevice {
    pub device: Device,
    /// The published variants; `None`: nothing is known.
    pub variants: Option<Vec<VariantThere>>,
    /// What has to hold while one runs on it.
    pub conditions: Vec<String>,
}

/// Whether a device takes a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantThere {
    pub variant: Variant,
    /// Why it does not run there; `None` if it does.
    pub refused: Option<String>,
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
    /// Of the experts, the part that is counted, in percent.
    pub experts: u64,
    /// Why no file can hold packed weights, if none can.
    pub no_packed_file: Option<String>,
    /// The installed models, then the published ones that are not among them.
    pub models: Vec<PlannedModel>,
}

/// One model in several contexts.
#[derive(Clone, Debug)]
pub struct PlannedModel {
    /// A model's id, or a variant's.
    pub id: String,
    pub variant: &'static str,
    pub installed: bool,
    /// Bytes of its file; of one that is not installed, about so many.
    pub size: u64,
    pub quantization: String,
    pub context_limit: u32,
    /// Bytes of its projector, which is left out where it does not fit.
    pub projector: u64,
    /// Bytes that its drafter takes, which is left out first; 0 where none is used.
    pub drafter: u64,
    pub contexts: Vec<PlannedContext>,
    /// How it would be loaded; `None` where it does not fit.
    pub span: Option<ContextSpan>,
}

/// Tokens of context that a request can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextSpan {
    /// In any case.
    pub floor: u32,
    /// As long as nobody else needs more than that.
    pub ceiling: u32,
}

/// One context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedContext {
    /// Tokens.
    pub context: u32,
    pub packed: PackedWeights,
    /// Without the projector and the drafter.
    pub cost: Cost,
    pub fits: bool,
}

/// What could be had, held against this machine.
#[derive(Clone, Debug)]
pub struct CatalogReport {
    /// Bytes of memory that are free, and what a model may take of them.
    pub free: u64,
    pub budget: u64,
    /// Where models are put.
    pub directory: Option<PathBuf>,
    /// Bytes that it has room for.
    pub disk: Option<u64>,
    /// The id of what `auto` would fetch.
    pub automatic: Option<String>,
    pub entries: Vec<CatalogEntry>,
    /// Members of the family that cannot be run.
    pub refused: Vec<Member>,
    /// Catalogs that are passed over, by their paths.
    pub passed_over: Vec<Member>,
}

/// All that there is to know of an installed model.
#[derive(Clone, Debug)]
pub struct ModelDetails {
    pub model: ModelInfo,
    pub path: PathBuf,
    /// Where it was fetched from, or who publishes such a file, if that is known.
    pub source: Option<String>,
    /// What its file says, or its variant's catalog.
    pub licence: Option<String>,
    /// How its tokens are best chosen: temperature, top-k, top-p and min-p.
    pub sampling: Option<(f32, u32, f32, f32)>,
    /// Bytes of the chat template in the file.
    pub template: Option<u64>,
    /// The keys of its header, in the file's order.
    pub metadata: Vec<(String, String)>,
}

/// Something that is not there, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub reason: String,
}

/// A model that could be had.
#[derive(Clone, Debug)]
pub struct CatalogEntry {
    /// What it is called once it is installed.
    pub id: String,
    pub variant: &'static str,
    pub repository: String,
    pub revision: Option<String>,
    /// Its path in the repository.
    pub file: String,
    pub quantization: String,
    pub context_limit: u32,
    /// What a message may hold besides text, with the projector that belongs to it.
    pub modalities: Modalities,
    /// Whether a drafter belongs to it.
    pub drafter: bool,
    /// An SPDX identifier.
    pub licence: Option<String>,
    /// Bytes of its file, if they are known.
    pub size: Option<u64>,
    /// Bytes with all that belongs to it.
    pub download: Option<u64>,
    pub memory: Option<CatalogMemory>,
    pub installed: bool,
}

/// What a model that could be had would take here, about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogMemory {
    pub fits: bool,
    /// Tokens of the largest context that fits, or of the smallest that does not.
    pub context: u32,
    /// Bytes, with the projector if that fits.
    pub total: u64,
    pub unevictable: u64,
    pub with_projector: bool,
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

/// A prompt that was read and is kept beyond its worker. What it says is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPrompt {
    /// The model's id.
    pub model: String,
    /// `None`: it is a system prompt of the configuration's, and everybody's.
    pub owner: Option<PrincipalId>,
    pub tokens: u32,
    /// Bytes on the disk.
    pub bytes: u64,
    pub used: SystemTime,
    pub kept_for: KeptFor,
}

/// How long a prompt is kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFor {
    DaemonsLife,
    /// 24 hours, restarts of the daemon included.
    Day,
    /// For as long as the configuration has it.
    Configuration,
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
