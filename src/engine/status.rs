//! What the engine tells the world about itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Failure;
use crate::gemma::variant::Variant;
pub use crate::store::Model as ModelInfo;

/// A snapshot, published on every change.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub phase: Phase,
    /// Installed models, by id.
    pub models: Vec<ModelInfo>,
    /// Where models are looked for.
    pub directories: Vec<PathBuf>,
    /// What `auto` stands for while nothing is loaded.
    pub default: Option<String>,
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// Requests being answered.
    pub running: u32,
    /// Requests ended since the start, however they ended.
    pub served: u64,
    /// Workers that died since the start.
    pub crashes: u64,
}

impl Status {
    /// The installed model that a client means by `name`: `auto` (the loaded model, else the default one), an id in any
    /// case, or a variant in any usual spelling (the loaded one of several). What a request gets is decided when it
    /// comes, by what is free then.
    pub fn find(&self, name: &str) -> Result<ModelInfo, Failure> {
        if self.models.is_empty() {
            return Err(Failure::NoModels { directories: self.directories.iter().map(|d| d.display().to_string()).collect() });
        }
        let wanted = if name.eq_ignore_ascii_case("auto") { self.loaded().or(self.default.as_deref()).unwrap_or(name) } else { name };
        let by_id = self.models.iter().find(|m| m.id.eq_ignore_ascii_case(wanted));
        let mut alike = self.models.iter().filter(|m| Variant::named(wanted) == Some(m.variant));
        let loaded = alike.clone().find(|m| Some(m.id.as_str()) == self.loaded());
        by_id
            .or(loaded)
            .or_else(|| alike.next())
            .cloned()
            .ok_or_else(|| Failure::UnknownModel { asked: wanted.to_owned(), known: self.models.iter().map(|m| m.id.clone()).collect() })
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
        context: u32,
        slots: u32,
        threads: u32,
        pid: u32,
        load_time: Duration,
        /// What to know about the chat template, if it is not the file's own.
        template: Option<String>,
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
