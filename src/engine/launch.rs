//! Everything that a worker is started with: its plan and its files.

use std::fs::{File, Metadata};
use std::io;
use std::time::Duration;

use super::Setup;
use super::cache::{CacheTurns, KnownSpace};
use super::choice::Placement;
use super::prompt_cache::{ModelKey, Room};
use super::system_prompts::SystemPrompts;
use super::thread;
use crate::chat::Speculation;
use crate::gemma::layout::{Kind, MOST_FILES};
use crate::gemma::model_shape::{Retention, Sizes};
use crate::ipc::prompts::PromptCachePlan;
use crate::ipc::{DrafterPlan, LoadPlan, MemoryPlan, PackedPlan, ProjectorPlan, Repack};
use crate::store::{
    self, BadFile, FileIdentity, Installers, Model, OpenModel, PackedCache, PackedName, Patience,
};
use crate::sys::socket::MAX_FDS;

/// Descriptors that a plan takes along beside those of the model's files: of the projector, of the drafter and of what
/// has its clusters, of packed weights and of a file for them, and the prompts' channel.
const OTHER_FILES: usize = 6;
const _: () = assert!(MOST_FILES + OTHER_FILES <= MAX_FDS);

/// Bytes that a worker may ask for beside what was reckoned: stacks, room of the allocator, a
/// template while it is compiled.
const DATA_BESIDE: u64 = 1 << 30;
/// The part of the memory that is free which may be filled with weights before a token needs them.
const READ_AHEAD: (u64, u64) = (3, 4);

/// How long the cache of packed weights may take to answer; a model is loaded without it then.
const CACHE_TIME: Duration = Duration::from_secs(10);

/// A worker about to be started.
pub(super) struct Launch {
    pub plan: LoadPlan,
    /// In the order in which the plan speaks of them.
    pub files: Vec<File>,
    pub packed: Option<PackedPlace>,
}

/// A model's files, open.
#[derive(Debug)]
pub(super) struct ModelFiles {
    model: OpenModel,
    projector: Option<(ProjectorPlan, File)>,
    drafter: Option<(DrafterPlan, Vec<File>)>,
    packed: Option<PackedFiles>,
    system_prompts: SystemPrompts,
}

/// The files of a model's packed weights.
#[derive(Debug)]
struct PackedFiles {
    /// The file that should have them.
    ready: Option<File>,
    /// A copy of the descriptor of [`PackedPlace::empty`].
    empty: Option<File>,
    place: PackedPlace,
}

/// Where the worker's packed weights come from and go to.
#[derive(Debug)]
pub(super) struct PackedPlace {
    cache: PackedCache,
    name: PackedName,
    /// The file that gets the name if the worker fills it.
    empty: Option<File>,
}

impl ModelFiles {
    /// Opens what `model` needs, on threads of its own: takes as long as the disk does. Dropping this
    /// leaves such a thread to itself.
    pub async fn open(model: Model, setup: Setup, turns: CacheTurns) -> Result<Self, BadFile> {
        let id = model.id.clone();
        let (cache, space) = (setup.cache(), setup.cache_space);
        let drafts = setup.inference.speculation != Speculation::Off;
        let (installers, texts) = (setup.installers, setup.inference.system_prompts);
        let open = move || {
            let system_prompts = SystemPrompts::read(&texts, &installers);
            let file = store::inspect(&model.paths(), &installers)?;
            let projector = model.projector.as_ref();
            let projector =
                projector.and_then(|projector| open_projector(&model.id, projector, &installers));
            let drafter = model.drafter.as_ref().filter(|_| drafts);
            let drafter = drafter.and_then(|drafter| open_drafter(&model, drafter, &installers));
            Ok::<_, BadFile>((file, projector, drafter, system_prompts))
        };
        let (file, projector, drafter, system_prompts) = thread::run(open).await??;
        setup.prompts.recalled().await;
        let packed = match cache {
            Some(cache) => Some(PackedFiles::open(cache, &id, &file, &space, &turns).await),
            None => None,
        };
        Ok(Self {
            model: file,
            projector,
            drafter,
            packed,
            system_prompts,
        })
    }

    /// Whether there is a file that has the packed weights, or one that can get them.
    pub fn has_packed_file(&self) -> bool {
        let packed = self.packed.as_ref();
        packed.is_some_and(|packed| packed.ready.is_some() || packed.empty.is_some())
    }
}

impl PackedFiles {
    /// Without files if the cache has none or its disk does not answer.
    async fn open(
        cache: PackedCache,
        id: &str,
        file: &OpenModel,
        space: &KnownSpace,
        turns: &CacheTurns,
    ) -> Self {
        let name = PackedName::new(id, &file.fingerprint);
        let bytes = file.layout.sum(Kind::Layers) + file.layout.sum(Kind::Experts);
        let place = PackedPlace {
            cache: cache.clone(),
            name: name.clone(),
            empty: None,
        };
        let space = space.clone();
        let open = turns.run(move || {
            let ready = cache.open(&name);
            let created = cache.create(bytes, &name).and_then(|file| match ready {
                // Another file is needed only if this one is not good.
                Some(_) => Ok(file),
                None => cache.set_aside(&file, bytes).map(|()| file),
            });
            space.set(Some(cache.space()));
            (ready, created)
        });
        let (ready, created) = match tokio::time::timeout(CACHE_TIME, open).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => (None, Err(error.to_string())),
            Err(_) => {
                let folder = place.cache.folder().display();
                (None, Err(format!("the disk of {folder} does not answer")))
            }
        };
        let empty = match created {
            Ok(file) => file.try_clone().ok().map(|copy| (file, copy)),
            Err(reason) => {
                if ready.is_none() {
                    tracing::warn!(
                        model = id,
                        reason,
                        "packed weights cannot be kept in a file"
                    );
                }
                None
            }
        };
        let (empty, copy) = empty.unzip();
        Self {
            ready,
            empty: copy,
            place: PackedPlace { empty, ..place },
        }
    }
}

impl Launch {
    /// How the model of these files is run like this.
    pub fn new(setup: &Setup, model: &Model, run: &Placement, opened: ModelFiles) -> Self {
        let repack = repack(run, &opened);
        let opened_model = opened.model;
        let sizes = opened_model.model.sizes();
        let mut files = opened_model.files;
        let projector = opened.projector.filter(|_| run.with_projector);
        let (projector, projector_file) = projector.unzip();
        let of_projector = projector_file.as_ref();
        let projector_identity = of_projector.and_then(|file| identity(file.metadata()));
        let (drafter, drafter_files) = opened.drafter.filter(|_| run.with_drafter).unzip();
        files.extend(projector_file);
        files.extend(drafter_files.into_iter().flatten());
        let packed = opened.packed.map(|packed| {
            let plan = PackedPlan {
                model: opened_model.fingerprint,
                ready: packed.ready.is_some(),
                empty: packed.empty.is_some(),
            };
            files.extend(packed.ready.into_iter().chain(packed.empty));
            (plan, packed.place)
        });
        let (packed, place) = packed.unzip();
        let key = ModelKey {
            model: model.id.clone(),
            fingerprint: opened_model.fingerprint,
            projector: projector_identity,
            slots: run.sizes.slots,
            small_kv: run.sizes.small_kv,
            worker: identity(std::fs::metadata(&setup.worker)),
        };
        let system_prompts = opened.system_prompts;
        let shared = system_prompts.digests();
        let prompts = open_prompts(setup, key, run.unevictable, shared).map(|(plan, channel)| {
            files.push(channel);
            plan
        });
        let memory = MemoryPlan {
            layout: opened_model.layout,
            packed,
            repack,
            read_ahead: read_ahead(setup, run),
            per_layer: setup.memory.per_layer,
            small_kv: run.sizes.small_kv,
            lock: setup.memory.lock_weights,
            data_limit: data_limit(model, run),
        };
        let plan = LoadPlan {
            name: model.id.clone(),
            files: sizes,
            context: run.sizes.ceiling,
            floor: run.growth.floor,
            slots: run.sizes.slots,
            batch: run.sizes.batch,
            step_time_ms: setup.inference.step_time.as_millis() as u32,
            speculation: setup.inference.speculation,
            cpus: super::cpus::choose(&crate::sys::topology::probe(), setup.inference.threads),
            max_output: setup.limits.output_tokens,
            projector,
            drafter,
            memory,
            vocabulary: opened_model.vocabulary,
            prompts,
            system_prompts: system_prompts.texts,
        };
        Self {
            plan,
            files,
            packed: place,
        }
    }
}

/// Where the weights may be packed.
fn repack(run: &Placement, opened: &ModelFiles) -> Repack {
    match (run.fits_in_memory, opened.has_packed_file()) {
        (true, _) => Repack::Anywhere,
        (false, true) => Repack::IntoFile,
        (false, false) => Repack::Never,
    }
}

/// Bytes that are read ahead while a model is loaded: a part of what it leaves free.
fn read_ahead(setup: &Setup, run: &Placement) -> u64 {
    let free = setup.budget().room.free;
    free.saturating_sub(run.unevictable) / READ_AHEAD.1 * READ_AHEAD.0
}

/// What the worker may ask for: twice what was reckoned, and weights that are packed in memory.
fn data_limit(model: &Model, run: &Placement) -> u64 {
    let projector = model
        .projector
        .as_ref()
        .map_or(0, |projector| projector.size);
    // What a context may grow by is set aside from the start, though it takes no memory.
    let grown = Sizes {
        context: run.sizes.ceiling,
        ..run.sizes
    };
    let grown = model
        .figures
        .cost(&grown, &Retention::default())
        .unevictable();
    2 * (run.unevictable.max(grown) + projector) + model.size() + DATA_BESIDE
}

/// A worker's channel to the cache of prompts. Without one it forgets them.
fn open_prompts(
    setup: &Setup,
    key: ModelKey,
    unevictable: u64,
    shared: Vec<[u8; 32]>,
) -> Option<(PromptCachePlan, File)> {
    let room = Room::of(&setup.memory).filter(|room| room.most > 0)?;
    let free = setup.budget().room.free.saturating_sub(unevictable);
    let opened = setup.prompts.open_channel(key, room, free, shared);
    opened
        .inspect_err(|error| tracing::warn!(%error, "prompts are not kept beyond their worker"))
        .ok()
}

pub(super) fn identity(metadata: io::Result<Metadata>) -> Option<FileIdentity> {
    metadata.ok().as_ref().map(FileIdentity::from)
}

impl PackedPlace {
    pub fn name(&self) -> &PackedName {
        &self.name
    }

    /// The worker has no use for the empty file: what is set aside for it goes back.
    pub fn close_empty(&mut self) {
        self.empty = None;
    }

    /// The worker has filled the empty file, and the disk has all of it.
    pub fn publish(&mut self, turns: &CacheTurns) {
        let Some(file) = self.empty.take() else {
            return;
        };
        let (cache, name) = (self.cache.clone(), self.name.clone());
        turns.spawn(move || {
            if let Err(error) = cache.publish(&file, &name) {
                tracing::warn!(file = name.as_str(), folder = %cache.folder().display(), %error, "packed weights cannot be kept");
            }
        });
    }

    /// The file that should have had the packed weights has something else.
    pub fn discard(&self, turns: &CacheTurns) {
        let (cache, name) = (self.cache.clone(), self.name.clone());
        turns.spawn(move || {
            cache.discard(&name);
        });
    }
}

/// The projector's plan and its file. Without it the model is as good for everything else.
fn open_projector(
    model: &str,
    projector: &store::Projector,
    installers: &Installers,
) -> Option<(ProjectorPlan, File)> {
    let trusted = store::check_trust(&projector.path, installers);
    match trusted.and_then(|()| store::read_projector(&projector.path, Patience::default())) {
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
            tracing::warn!(model, file = %projector.path.display(), reason = %bad, "the model is loaded without its projector");
            None
        }
    }
}

/// The drafter's plan and its files. Without it the model is as good, and says as much in more time.
fn open_drafter(
    model: &Model,
    drafter: &store::Drafter,
    installers: &Installers,
) -> Option<(DrafterPlan, Vec<File>)> {
    let trusted = store::check_trust(&drafter.path, installers);
    match trusted.and_then(|()| store::read_drafter(&drafter.path, Patience::default())) {
        Ok((drafter, file)) => {
            if drafter.is_of_other_training(model) {
                tracing::warn!(
                    model = model.id,
                    drafter = %drafter.path.display(),
                    "of the model and its drafter one was made for quantization (QAT) and the other was not, as their names have it; the drafter will be right less often than the one that belongs to the model"
                );
            }
            let name = drafter.path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            let opened = plan_drafter(name, &drafter, file);
            let left = |error| tracing::warn!(model = model.id, file = %drafter.path.display(), reason = %error, "the model is loaded without its drafter");
            opened.map_err(left).ok()
        }
        Err(bad) => {
            tracing::warn!(model = model.id, file = %drafter.path.display(), reason = %bad, "the model is loaded without its drafter");
            None
        }
    }
}

/// Of a drafter with clusters the worker gets two files.
fn plan_drafter(
    name: String,
    drafter: &store::Drafter,
    file: File,
) -> std::io::Result<(DrafterPlan, Vec<File>)> {
    let Some(clustered) = &drafter.clustered else {
        let (bytes, clusters) = (drafter.size, None);
        let plan = DrafterPlan {
            name,
            bytes,
            clusters,
        };
        return Ok((plan, vec![file]));
    };
    let (bytes, clusters) = (clustered.bytes(), clustered.clusters);
    let mut files = vec![clustered.write(&file)?];
    files.extend(clusters.map(|_| file));
    let plan = DrafterPlan {
        name,
        bytes,
        clusters,
    };
    Ok((plan, files))
}
