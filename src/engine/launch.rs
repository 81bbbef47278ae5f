//! Everything that a worker is started with: its plan and its files.

use std::fs::File;

use super::choice::Placement;
use super::{ModelInfo, Setup};
use crate::gemma::layout::Kind;
use crate::ipc::{LoadPlan, MemoryPlan, PackedPlan, ProjectorPlan};
use crate::memory::probe;
use crate::store::{self, BadFile, PackedCache, PackedName};

/// The part of the memory that is free which may be filled with weights before a token needs them.
const READ_AHEAD: (u64, u64) = (3, 4);

/// A worker about to be started.
pub(super) struct Launch {
    pub plan: LoadPlan,
    /// In the order in which the plan speaks of them.
    pub files: Vec<File>,
    pub packed: Option<PackedPlace>,
}

/// Where the worker's packed weights come from and go to.
#[derive(Debug)]
pub(super) struct PackedPlace {
    cache: PackedCache,
    name: PackedName,
    /// The file that gets the name if the worker fills it.
    empty: Option<File>,
}

impl Launch {
    /// Opens what the model needs to be run like this. Blocks on the disk.
    pub fn prepare(setup: &Setup, model: &ModelInfo, run: &Placement) -> Result<Self, BadFile> {
        let (_, file, anatomy) = store::dissect(&model.path)?;
        let mut files = vec![file];
        let projector = model
            .projector
            .as_ref()
            .filter(|_| run.sees)
            .and_then(open_projector);
        let projector = projector.map(|(plan, file)| {
            files.push(file);
            plan
        });
        let (packed, place) = match setup.cache() {
            Some(cache) => {
                let name = PackedName::new(&model.id, &anatomy.fingerprint);
                let ready = cache.open(&name);
                let bytes = anatomy.layout.sum(Kind::Layers) + anatomy.layout.sum(Kind::Experts);
                let empty = match cache.create(bytes, &name) {
                    Ok(file) => file.try_clone().ok().map(|copy| (file, copy)),
                    Err(reason) => {
                        if ready.is_none() {
                            tracing::warn!(reason, "packed weights stay in memory");
                        }
                        None
                    }
                };
                let (empty, copy) = empty.unzip();
                let plan = PackedPlan {
                    model: anatomy.fingerprint,
                    ready: ready.is_some(),
                    empty: copy.is_some(),
                };
                files.extend(ready.into_iter().chain(copy));
                (Some(plan), Some(PackedPlace { cache, name, empty }))
            }
            None => (None, None),
        };
        let plan = LoadPlan {
            name: model.id.clone(),
            context: run.sizes.context,
            slots: run.sizes.slots,
            batch: run.sizes.batch,
            cpus: super::cpus::choose(&crate::sys::topology::probe(), setup.inference.threads),
            max_output: setup.limits.output_tokens,
            projector,
            memory: MemoryPlan {
                layout: anatomy.layout,
                packed,
                read_ahead: probe::room().free.saturating_sub(run.unevictable) / READ_AHEAD.1
                    * READ_AHEAD.0,
                per_layer: setup.memory.per_layer,
                small_kv: run.sizes.small_kv,
                lock: setup.memory.lock_weights,
            },
            vocabulary: anatomy.vocabulary,
        };
        Ok(Self {
            plan,
            files,
            packed: place,
        })
    }
}

impl PackedPlace {
    pub fn name(&self) -> &PackedName {
        &self.name
    }

    /// The worker has filled the empty file, and the disk has all of it.
    pub fn publish(&mut self) {
        let Some(file) = self.empty.take() else {
            return;
        };
        if let Err(error) = self.cache.publish(&file, &self.name) {
            tracing::warn!(folder = %self.cache.folder().display(), %error, "packed weights cannot be kept");
        }
    }

    /// The file that should have had the packed weights has something else.
    pub fn discard(&self) {
        self.cache.discard(&self.name);
    }
}

/// The projector's plan and its file. Without it the model is as good for everything else.
fn open_projector(projector: &store::Projector) -> Option<(ProjectorPlan, File)> {
    match store::read_projector(&projector.path) {
        Ok((projector, file)) => {
            let name = projector
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Some((
                ProjectorPlan {
                    name,
                    longest_side: projector.longest_side,
                    hearing: projector.hearing,
                },
                file,
            ))
        }
        Err(bad) => {
            tracing::warn!(file = %projector.path.display(), reason = %bad, "the model is loaded without its projector");
            None
        }
    }
}
