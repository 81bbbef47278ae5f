//! What the two say to each other about memory.

use serde::{Deserialize, Serialize};

use crate::chat::bounded;
use crate::gemma::layout::{Class, Kind, Layout};

/// Files that a worker has mapped, and parts of one, at most, whatever it says.
const MAX_FILES: usize = 8;
const MAX_PARTS: usize = 1 << 16;

/// What to keep in memory, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// That of the model's files.
    pub layout: Layout,
    /// The files for packed weights, if there are any.
    pub packed: Option<PackedPlan>,
    pub repack: Repack,
    /// Bytes of weights that may be read before a token needs them.
    pub read_ahead: u64,
    /// Bytes of Per-Layer Embeddings that may stay.
    pub per_layer: u64,
    /// Whether the KV cache has numbers of 8 bits (`q8_0`) in place of 16.
    pub small_kv: bool,
    /// Whether the packed weights of an earlier start that every token needs are locked in memory.
    pub lock: bool,
    /// Bytes of memory that the worker may ask for (RLIMIT_DATA), files that it maps not counted: a
    /// template or a vocabulary that wants more ends it. 0: no limit.
    pub data_limit: u64,
}

/// Where weights may be packed for the CPU's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repack {
    /// Nowhere: the model file's own are computed with.
    Never,
    /// In the files that come along; nowhere if that fails.
    IntoFile,
    /// In the files that come along, or else in memory that cannot be evicted.
    #[default]
    Anywhere,
}

/// Where packed weights are kept. The descriptors come behind the model's and its projector's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedPlan {
    /// Stands for the contents of the model's files.
    pub model: [u8; 32],
    /// A file that should have them comes along.
    pub ready: bool,
    /// An empty file that can be written comes along.
    pub empty: bool,
}

/// Where packed weights are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// Nothing was packed: the CPU has no use for it.
    Nothing,
    /// In the file that had them.
    Reused,
    /// In the file that was empty; says why the other was not used, if there was one.
    New { instead: Option<String> },
    /// In memory that cannot be evicted; says why.
    InMemory { why: String },
    /// They were not packed, for want of a file and of memory; says why there is no file.
    Left { why: String },
}

/// What a worker has in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySnapshot {
    #[serde(deserialize_with = "bounded::list::<MAX_FILES, _, _>")]
    pub files: Vec<FileMemory>,
    /// Bytes of the worker's anonymous memory: `RssAnon` of proc(5).
    pub anonymous: u64,
    /// Bytes of files that are mapped and present: `RssFile`.
    pub file_backed: u64,
    /// The most that both ever were together: `VmHWM`.
    pub peak: u64,
    /// Bytes that cannot be evicted because they are locked: `VmLck`.
    pub locked: u64,
}

/// One mapped file, or all of a drafter that is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMemory {
    pub role: FileRole,
    /// From the file's start to its end, without gaps.
    #[serde(deserialize_with = "bounded::list::<MAX_PARTS, _, _>")]
    pub parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileRole {
    Model,
    Packed,
    Drafter,
}

/// Neighbouring bytes of a file that are for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub class: Class,
    pub bytes: u64,
    /// How many of them are in the worker's memory.
    pub resident: u64,
}

impl FileRole {
    /// Its name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Packed => "packed",
            Self::Drafter => "drafter",
        }
    }
}

impl FileMemory {
    /// Bytes of one kind, and how many of them are resident.
    pub fn sum(&self, kind: Kind) -> (u64, u64) {
        let parts = self.parts.iter().filter(|part| part.class.kind() == kind);
        parts.fold((0, 0), |(bytes, resident), part| {
            (bytes + part.bytes, resident + part.resident)
        })
    }
}
