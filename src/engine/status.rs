//! What the engine tells the world about itself.

use std::time::Duration;

pub use crate::store::Model as ModelInfo;

/// A snapshot, published on every change.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub phase: Phase,
    /// Installed models, by id.
    pub models: Vec<ModelInfo>,
    /// What `auto` stands for now.
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
    },
    /// The worker is finishing what it has and will exit.
    Unloading {
        model: String,
    },
    /// Workers died; none is started for a while.
    BackingOff {
        cause: String,
        retry_in: Duration,
    },
    /// No more requests are taken.
    Draining,
}
