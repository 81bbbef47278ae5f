//! What the engine is told, at its start and later.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Installers, KnownSpace, PromptCache, UnsoundModels, state};
use crate::chat::Modalities;
use crate::config::{Inference, Limits, Memory, Models, Pull};
use crate::memory::reserved::ReservedMemory;
use crate::store::catalog::Catalogs;
use crate::store::{Model, PackedCache};

/// What the engine is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub models: Models,
    pub inference: Inference,
    pub memory: Memory,
    pub limits: Limits,
    /// Whose model files are used.
    pub installers: Installers,
    /// What could be had; read when the engine starts.
    pub catalogs: Arc<Catalogs>,
    /// What others than the model's worker are promised.
    pub reserved: ReservedMemory,
    /// What the cache of packed weights can hold.
    pub cache_space: KnownSpace,
    /// Prompts that were read.
    pub prompts: PromptCache,
    /// Those that `auto` means last.
    pub unsound: UnsoundModels,
    /// The worker program.
    pub worker: PathBuf,
    /// From where models are fetched, and how.
    pub pull: Pull,
    /// Where systemd starts workers that may use the network, if it does.
    pub pull_socket: PathBuf,
}

/// What of a [`Setup`] may change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub models: Models,
    pub inference: Inference,
    pub memory: Memory,
    pub limits: Limits,
    pub installers: Installers,
    pub pull: Pull,
}

impl Setup {
    pub(super) fn state_settings(&self) -> state::Settings {
        state::Settings {
            queue: self.limits.queue,
            queue_per_user: self.limits.queue_per_user,
            request_time: self.limits.request_time,
            load_time: self.limits.load_time,
            idle_unload: Some(self.models.idle_unload).filter(|time| !time.is_zero()),
            idle_release: Some(self.models.idle_release).filter(|time| !time.is_zero()),
            worker_silence: self.limits.worker_silence,
        }
    }

    /// Where packed weights are kept, if anywhere.
    pub(super) fn cache(&self) -> Option<PackedCache> {
        self.memory
            .cache_directory
            .clone()
            .map(|folder| PackedCache::new(folder, self.memory.cache_size))
    }

    /// What `auto` means while no model is loaded.
    pub(super) fn default_model(&self, models: &[Model]) -> Option<String> {
        self.resolve(models, None, "auto", Modalities::default())
            .ok()
            .map(|model| model.id)
    }
}
