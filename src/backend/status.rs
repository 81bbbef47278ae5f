//! What a backend says of itself. Pure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Failure, ModelPart};
use crate::chat::{Drafted, Modalities, PrincipalId};
use crate::gemma::variant::Variant;
use crate::memory::pressure::Triggers;

/// A model that answers here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// What clients call it.
    pub id: String,
    /// Its file's own name.
    pub file: String,
    pub variant: Variant,
    /// Bytes of its file.
    pub size: u64,
    /// Unix seconds of the file's last change.
    pub created: u64,
    /// Tokens the model was made for; the context it is run with is in [`Phase::Ready`].
    pub context_limit: u32,
    /// Weights' type as the file names it: `Q4_0`, `Q8_0`, …
    pub quantization: String,
    /// What a message may hold besides text.
    pub modalities: Modalities,
    /// Whether a drafter of it lies beside it.
    pub drafter: bool,
    /// Its file, and those that belong to it.
    pub parts: Vec<ModelPart>,
}

/// The model that a request would get now, and what it could have of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub model: ModelInfo,
    /// Tokens of context.
    pub context: u32,
    /// Tokens of one picture.
    pub picture: u32,
}

#[cfg(test)]
impl Found {
    /// A model of this id.
    pub(crate) fn example(id: &str) -> Self {
        let model = ModelInfo::example(id);
        Self {
            context: model.context_limit,
            picture: 1120,
            model,
        }
    }
}

#[cfg(test)]
impl ModelInfo {
    /// Some model of this id.
    pub(crate) fn example(id: &str) -> Self {
        Self {
            id: id.into(),
            file: format!("{id}.gguf"),
            variant: Variant::E2b,
            size: 1,
            created: 0,
            context_limit: 4096,
            quantization: "Q8_0".into(),
            modalities: Modalities::default(),
            drafter: false,
            parts: vec![],
        }
    }
}

/// A file that looks like a model and is not served, or a directory that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub path: PathBuf,
    /// Ready to be shown behind the path.
    pub reason: String,
    /// A directory in which there may be models that were not looked at.
    pub hides: bool,
}

/// A snapshot, published on every change.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub phase: Phase,
    /// Installed models, by id.
    pub models: Vec<ModelInfo>,
    /// What lies beside them and is not used.
    pub rejected: Vec<Rejected>,
    /// Where models are looked for.
    pub directories: Vec<PathBuf>,
    /// What `auto` stands for while nothing is loaded.
    pub default: Option<String>,
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// Whose they are; who is next comes first.
    pub queue: Vec<WaitingUser>,
    /// Requests being answered.
    pub running: u32,
    /// Requests ended since the start, however they ended.
    pub served: u64,
    /// Workers that died since the start.
    pub crashes: u64,
    /// Tokens per second of the answer that ended last; 0 before the first.
    pub tokens_per_second: f64,
    /// Tokens that were tried ahead since the start.
    pub drafted: Drafted,
    /// When the model is unloaded if nothing is asked meanwhile; `None` while it answers, without
    /// one, and where idle models stay.
    pub unload_at: Option<Instant>,
    pub memory: MemoryState,
}

/// The requests of one account that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingUser {
    pub account: PrincipalId,
    /// How many; at least one.
    pub waiting: u32,
    /// Since when the first of them has.
    pub since: Instant,
}

/// How far a backend has given way to other programs' need of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Calm,
    /// The worker was told to give back what it can.
    Trimmed,
    /// The worker ends as soon as it is idle.
    Draining,
}

impl Level {
    /// Its name in reports, which is part of the interface and older than the levels' own.
    pub fn id(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Trimmed => "eased",
            Self::Draining => "shrinking",
        }
    }
}

/// What was done about memory that ran short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    pub level: Level,
    /// `None`: nothing ever was.
    pub last: Option<Change>,
    /// Times that a worker was told to give back what it can.
    pub eases: u64,
    /// Workers that were ended.
    pub ends: u64,
    /// Workers that the system killed.
    pub kills: u64,
    /// What wakes the daemon while a model is loaded.
    pub triggers: Triggers,
}

/// What was done last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Instant,
    pub reason: String,
    pub action: &'static str,
}

impl Status {
    /// Before anything was asked.
    pub fn first(
        models: Vec<ModelInfo>,
        directories: Vec<PathBuf>,
        default: Option<String>,
    ) -> Self {
        let memory = MemoryState::default();
        Self {
            phase: Phase::Cold,
            models,
            rejected: vec![],
            directories,
            default,
            waiting: 0,
            queue: vec![],
            running: 0,
            served: 0,
            crashes: 0,
            tokens_per_second: 0.0,
            drafted: Drafted::default(),
            unload_at: None,
            memory,
        }
    }

    /// The failure that every request meets if no model is installed.
    pub fn check_installed(&self) -> Result<(), Failure> {
        if self.models.is_empty() {
            return Err(Failure::no_models(&self.directories, &self.rejected));
        }
        Ok(())
    }

    /// The model that is up or coming up.
    pub fn loaded(&self) -> Option<&str> {
        match &self.phase {
            Phase::Ready { model, .. } | Phase::Loading { model } => Some(model),
            _ => None,
        }
    }
}

/// Where the worker's life stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No worker; the next request starts one.
    Cold,
    Loading {
        model: String,
    },
    Ready {
        model: String,
        /// Tokens of context that one request could have when the model was loaded.
        context: u32,
        /// Those that each slot has in any case.
        floor: u32,
        /// Those that all slots together may hold now.
        granted: u64,
        slots: u32,
        threads: u32,
        pid: u32,
        load_time: Duration,
        /// What to know about the chat template, if it is not the file's own.
        template: Option<String>,
        /// ggml's kernels for this CPU, as the worker names them; `None` where they are built in.
        cpu_variant: Option<String>,
    },
    /// The worker is finishing what it has and will exit.
    Unloading {
        model: String,
    },
    /// Workers died; none is started for a while.
    BackingOff {
        cause: String,
        until: Instant,
    },
    /// No more requests are taken.
    Draining,
}

impl Phase {
    /// Its name for clients, the same at both doors.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Loading { .. } => "loading",
            Self::Ready { .. } => "ready",
            Self::Unloading { .. } => "unloading",
            Self::BackingOff { .. } => "backing_off",
            Self::Draining => "draining",
        }
    }
}
