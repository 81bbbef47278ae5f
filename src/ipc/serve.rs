//! The protocol of a worker that serves a model.
//!
//! ```text
//!   supervisor                                   worker
//!       │   ──── Load (+ descriptors) ───────────▶    │
//!       │   ◀────────────── Loading… ────────────────  │   as long as weights are on their way
//!       │   ◀────────── Loaded | LoadFailed ────────  │
//!       │   ◀────────── Packed | PackedCorrupt ─────  │   once at most, some time later
//!       │   ──────────────── Chat(id) ──────────────▶ │
//!       │   ◀─────────────── Reading(id)… ──────────  │
//!       │   ◀─── Event(id)… , Event(id, Done) | Failed(id)
//!       │   ─────────────── Cancel(id) ─────────────▶ │   answered by Failed or Done, or by nothing
//!       │   ──────────────── Text(id) ──────────────▶ │
//!       │   ◀────────── Text(id) | Failed(id) ──────  │
//!       │   ───────────── ReportMemory ─────────────▶ │
//!       │   ◀──────────────── Memory ───────────────  │
//!       │   ───────────────── Beat ─────────────────▶ │
//!       │   ◀──────────────── Beat ─────────────────  │
//!       │   ───────────────── Trim ─────────────────▶ │
//!       │   ◀─────────────── Trimmed ───────────────  │
//!       │   ◀─────────────── Context ───────────────  │   as requests need more, or no longer
//!       │   ───────────── GrantContext ─────────────▶ │
//!       │   ──── end of file: finish and exit ──────▶ │
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::prompts::PromptCachePlan;
use super::{MemoryPlan, MemorySnapshot, Packing, Protocol, WorkerKind};
use crate::chat::{
    ChatError, ChatEvent, ChatRequest, PrincipalId, Reading, Speculation, TextAnswer, TextTask,
    bounded,
};
use crate::gemma::clusters::Clusters;
use crate::gemma::layout::MOST_FILES;
use crate::gemma::sound::Hearing;
use crate::gemma::vocabulary;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Serve {}

impl Protocol for Serve {
    const KIND: WorkerKind = WorkerKind::Serve;
    type Request = ServeRequest;
    type Event = ServeEvent;
    // A megabyte of text may be a million tokens, and 262144 tokens a text of 25 MB.
    const LARGEST_EVENT: usize = 32 << 20;

    fn descriptors(request: &ServeRequest) -> Vec<BorrowedFd<'_>> {
        let media = request.chat().and_then(ChatRequest::media_file);
        media.map(AsFd::as_fd).into_iter().collect()
    }
}

/// System prompts that are shared, at most.
pub const MAX_SYSTEM_PROMPTS: usize = 16;
/// Bytes of one of them at most.
pub const MAX_SYSTEM_PROMPT_BYTES: usize = 128 << 10;

/// Names a request for as long as its worker lives.
pub type RequestId = u64;

/// From the supervisor to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ServeRequest {
    /// First and once. Carries the descriptors of the model's files and, where the plan speaks of
    /// them, of its projector, of its drafter (one or two), of its packed weights, of an empty file for packed weights, and the
    /// channel to the cache of prompts.
    Load(Box<LoadPlan>),
    /// Answer this request. What the cache holds of others than its `owner` is not for it. Carries
    /// the descriptor of its decoded media, if it has any, as a request to be counted does.
    Chat {
        id: RequestId,
        owner: PrincipalId,
        /// See [`PromptRequest::Keep`](super::prompts::PromptRequest::Keep).
        sent: u64,
        request: Box<ChatRequest>,
    },
    /// Say this of a text, without a slot; answered by `Text` or `Failed`.
    Text { id: RequestId, task: TextTask },
    /// Stop before the next decode; an unknown id is one that has just ended.
    Cancel { id: RequestId },
    /// Say what is in memory; answered by `Memory` once the model is loaded.
    ReportMemory,
    /// Say how far the computations are; answered by `Beat`, whatever the other threads do.
    Beat,
    /// Release memory: cold pages, and while nothing is answered everything that can be made again.
    /// Answered by `Trimmed`.
    Trim,
    /// All slots together may hold so many tokens; answers a `Context` that wants more.
    GrantContext { tokens: u64 },
}

impl ServeRequest {
    /// The conversation that it is about.
    fn chat(&self) -> Option<&ChatRequest> {
        match self {
            Self::Chat { request, .. } => Some(request),
            Self::Text {
                task: TextTask::Count(request),
                ..
            } => Some(request),
            _ => None,
        }
    }

    /// [`ServeRequest::chat`] whose decoded media came with it, and are to be put there.
    pub fn chat_with_media(&mut self) -> Option<&mut ChatRequest> {
        let request = match self {
            Self::Chat { request, .. } => request,
            Self::Text {
                task: TextTask::Count(request),
                ..
            } => request,
            _ => return None,
        };
        request.has_decoded_media().then_some(request)
    }
}

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ServeEvent {
    /// How much of the weights is where it should be: by bytes, from 0 to 1. Some of it may be on its
    /// way still when the model is loaded; the first token waits for it.
    Loading {
        share: f32,
    },
    Loaded(LoadedModel),
    /// The worker exits after this.
    LoadFailed {
        reason: String,
        /// A smaller plan may do.
        out_of_memory: bool,
    },
    /// The empty file holds the packed weights now, and the disk has all of it.
    Packed,
    /// The file of packed weights does not hold what was written to it. Nothing was computed with
    /// it, and the worker exits after this.
    PackedCorrupt {
        reason: String,
    },
    Memory(MemorySnapshot),
    Beat {
        /// Of the model: a step is a node of llama.cpp's graph.
        decoder: Progress,
        /// Of pictures and sounds: a step is some nodes of the projector's graph, or a tensor of it
        /// that was read.
        encoder: Progress,
    },
    Text {
        id: RequestId,
        answer: TextAnswer,
    },
    /// What the slots hold together, and what they may. Where they want more than that, it is answered by
    /// `GrantContext`; else it is said because it has become less.
    Context(ContextUse),
    /// Bytes that the worker had in memory before and after it released what it could.
    Trimmed {
        before: u64,
        after: u64,
    },
    /// How far the prompt of a request is read, a few times a second at most.
    Reading {
        id: RequestId,
        reading: Reading,
    },
    Event {
        id: RequestId,
        event: ChatEvent,
    },
    /// The request's end, instead of `Done`.
    Failed {
        id: RequestId,
        error: ChatError,
    },
}

/// Tokens of an answer that a request has room for when it begins.
pub const ANSWER_ROOM: u32 = 512;

/// Tokens of context of all slots together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextUse {
    /// For which memory has been taken.
    pub held: u64,
    /// That they may hold.
    pub granted: u64,
    /// That they want to hold.
    pub wanted: u64,
}

/// How far one of the worker's computations is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps since the start.
    pub steps: u64,
    /// Whether there is something to compute, so that steps must follow.
    pub computing: bool,
}

/// How to load the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadPlan {
    /// For messages only.
    pub name: String,
    /// Bytes of each of the model's files, in their order; the layout and the places of the vocabulary count on from one to the next.
    #[serde(deserialize_with = "bounded::list::<MOST_FILES, _, _>")]
    pub files: Vec<u64>,
    /// Tokens of context that a slot may come to have.
    pub context: u32,
    /// Tokens that each slot has in any case, of those; what it needs beyond them is asked for.
    pub floor: u32,
    /// Sequences that are answered at the same time.
    pub slots: u32,
    /// Tokens computed in one step, and so the grain of cancelling.
    pub batch: u32,
    /// Milliseconds that a running answer waits for its next token while prompts of others are read.
    pub step_time_ms: u32,
    /// Whether tokens of answers are tried ahead where a request does not say.
    pub speculation: Speculation,
    /// The CPUs to run on, one thread each.
    pub cpus: Vec<u32>,
    /// Tokens of answer at most, whatever a request asks.
    pub max_output: u32,
    /// What turns pictures and sounds into embeddings. Without one the model takes text only.
    pub projector: Option<ProjectorPlan>,
    /// What guesses the model's next tokens.
    pub drafter: Option<DrafterPlan>,
    pub memory: MemoryPlan,
    /// Where the first of the model's files has its vocabulary.
    pub vocabulary: vocabulary::Place,
    /// How prompts that were read are kept beyond the KV cache. Without one they are not.
    pub prompts: Option<PromptCachePlan>,
    /// System prompts that all may go on from, whoever asked first.
    #[serde(deserialize_with = "bounded::list::<MAX_SYSTEM_PROMPTS, _, _>")]
    pub system_prompts: Vec<String>,
}

/// How to use the projector, whose descriptor comes behind the model's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectorPlan {
    /// For messages only.
    pub name: String,
    /// Pixels of the longest side that it can place; a picture that would be shown longer is
    /// refused.
    pub longest_side: u32,
    /// How it turns sound into tokens, if it does.
    pub hearing: Option<Hearing>,
}

/// How to use the drafter, whose descriptor comes behind the projector's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrafterPlan {
    /// For messages only.
    pub name: String,
    /// Bytes of the file that llama.cpp gets.
    pub bytes: u64,
    /// Another descriptor follows, of the file that has them.
    pub clusters: Option<Clusters>,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Tokens of context that a slot may come to have.
    pub context: u32,
    /// Tokens that each slot has in any case.
    pub floor: u32,
    pub slots: u32,
    pub threads: u32,
    /// Microseconds from the receipt of `Load`.
    pub load_us: u64,
    pub template: TemplateSource,
    pub packing: Packing,
    /// ggml's kernels that were loaded for this CPU; `None` where they are built in.
    pub cpu_variant: Option<String>,
}

/// Which chat template the worker uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateSource {
    /// The file's own.
    Embedded,
    /// The family's, because the file has none.
    Missing,
    /// The family's, because the file's is an outdated one or does not compile; says which.
    Replaced { why: String },
}
