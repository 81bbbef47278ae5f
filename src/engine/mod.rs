//! The only door to generation, and the only owner of change.
//!
//! Front doors hold an [`Engine`]; what they ask of a model goes as one [`Command`] to the driver,
//! the one task that owns the worker. `state` and `queue` decide, `driver` and `child` act.

mod budget;
mod cache;
mod catalog_watch;
mod child;
mod choice;
pub mod cpus;
mod driver;
mod failure;
mod launch;
mod live;
mod look;
mod memory_policy;
mod names;
pub(crate) mod one_shot;
mod plan;
pub mod queue;
mod relief;
#[cfg(test)]
pub(crate) mod scripted;
pub mod state;
mod status;

pub use cache::{CacheReport, CachedFile};
pub use failure::Failure;
pub use look::{MemoryReport, WorkerMemory};
pub use plan::{Estimate, PlanReport, PlannedModel};
pub use status::{Change, Level, MemoryState, ModelInfo, Phase, Rejected, Status};

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::chat::{ChatEvent, ChatRequest, Modalities, PrincipalId, TextAnswer, TextTask};
use crate::config::{Inference, Limits, Memory, Models};
pub use crate::gemma::layout::{Class, Kind};
pub use crate::ipc::{FileMemory, FileRole, MemoryPicture, Packing, Part};
use crate::memory;
pub use crate::memory::pressure::Triggers;
pub use crate::memory::probe::Usage;
use crate::memory::reserved::ReservedMemory;
pub use crate::sandbox::Support as Confinement;
pub use crate::store::Installers;
use crate::store::PackedCache;

/// Commands that wait for the driver; past this their senders wait.
const COMMANDS: usize = 256;
/// Events of one answer that wait for its client; past this the client is taken for stalled.
const EVENTS: usize = 1024;

/// How long a worker may take to say what it has in memory.
const LOOK_TIME: Duration = Duration::from_secs(5);

/// The door. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

/// What the engine is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub models: Models,
    pub inference: Inference,
    pub memory: Memory,
    pub limits: Limits,
    /// Whose model files are used.
    pub installers: Installers,
    /// What others than the model's worker are promised.
    pub reserved: ReservedMemory,
    /// The worker program.
    pub worker: PathBuf,
}

/// What of a [`Setup`] may change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub models: Models,
    pub inference: Inference,
    pub memory: Memory,
    pub limits: Limits,
    pub installers: Installers,
}

impl Setup {
    fn state_settings(&self) -> state::Settings {
        state::Settings {
            queue: self.limits.queue,
            queue_per_user: self.limits.queue_per_user,
            request_time: self.limits.request_time,
            load_time: self.limits.load_time,
            idle_unload: Some(self.models.idle_unload).filter(|time| !time.is_zero()),
            idle_release: Some(self.models.idle_release).filter(|time| !time.is_zero()),
        }
    }

    /// Where packed weights are kept, if anywhere.
    fn cache(&self) -> Option<PackedCache> {
        self.memory
            .cache_directory
            .clone()
            .map(|folder| PackedCache::new(folder, self.memory.cache_size))
    }

    /// What `auto` means while no model is loaded.
    fn default_model(&self, models: &[ModelInfo]) -> Option<String> {
        self.resolve(models, None, "auto", Modalities::default())
            .ok()
            .map(|model| model.id)
    }
}

/// What can be asked of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Legal always; refused when the queue is full, the model unknown or the daemon leaving.
    Chat {
        owner: PrincipalId,
        model: String,
        request: Box<ChatRequest>,
        reply: oneshot::Sender<Result<Answer, Failure>>,
    },
    /// Legal always; refused like a chat. Asked of the worker beside its slots.
    Text {
        owner: PrincipalId,
        model: String,
        task: TextTask,
        reply: oneshot::Sender<Result<TextAnswer, Failure>>,
    },
    /// Legal always; answered when the model is up.
    Load {
        owner: PrincipalId,
        model: String,
        reply: oneshot::Sender<Result<ModelInfo, Failure>>,
    },
    /// Legal always: the installed model that a chat with this name would get now.
    Find {
        name: String,
        reply: oneshot::Sender<Result<ModelInfo, Failure>>,
    },
    /// Legal always; requests in flight are finished first, waiting ones load the model again.
    Unload {
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// Look at the model directories again and go by new settings; a loaded model stays as it is.
    Reconfigure(Box<Settings>),
    /// Legal always; `None` when no model is loaded.
    Memory {
        reply: oneshot::Sender<Result<Option<WorkerMemory>, Failure>>,
    },
    /// Legal always; answered at once, unless the driver hangs.
    Beat {
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// Legal always. Says what packed weights are kept on the disk, and takes them away if told to.
    Cache {
        clear: bool,
        reply: oneshot::Sender<Result<CacheReport, Failure>>,
    },
    /// Legal always. Says what each model would take, in one context or several, of what is free or
    /// of `ram` bytes.
    Plan {
        context: Option<u32>,
        ram: Option<u64>,
        reply: oneshot::Sender<Result<PlanReport, Failure>>,
    },
    /// Take no more requests; answered when the last has ended or the grace time is over.
    Drain {
        grace: Duration,
        reply: oneshot::Sender<()>,
    },
}

/// An answer on its way. Dropping it stops the generation.
#[derive(Debug)]
pub struct Answer {
    model: watch::Receiver<String>,
    events: mpsc::Receiver<Result<ChatEvent, Failure>>,
    _guard: HangUpGuard,
}

#[derive(Debug)]
struct HangUpGuard {
    request: u64,
    hang_ups: mpsc::UnboundedSender<u64>,
}

impl Drop for HangUpGuard {
    fn drop(&mut self) {
        // Nobody to tell when the engine is gone already.
        let _ = self.hang_ups.send(self.request);
    }
}

impl Answer {
    /// The model that answers. While the request waits another may be chosen; with the first event
    /// this is settled.
    pub fn model(&self) -> String {
        self.model.borrow().clone()
    }

    /// The next event; `None` after `Done` or a failure.
    pub async fn next(&mut self) -> Option<Result<ChatEvent, Failure>> {
        self.events.recv().await
    }
}

impl Engine {
    /// Looks for models and starts the driver. Loads nothing. A model directory whose disk does not
    /// answer is looked through later.
    pub async fn start(setup: Setup) -> Self {
        let (reports, mut scans) = mpsc::unbounded_channel();
        let (directories, installers) =
            (setup.models.directories.clone(), setup.installers.clone());
        let mut catalog = catalog_watch::CatalogWatch::new(directories, installers, reports);
        catalog.settle(&mut scans).await;
        let (disk, opened) = mpsc::unbounded_channel();
        let (commands, command_box) = mpsc::channel(COMMANDS);
        let (hang_ups, hang_up_box) = mpsc::unbounded_channel();
        let (notices, notice_box) = mpsc::channel(driver::NOTICES);
        let mut first = Status::first(
            catalog.models.clone(),
            setup.models.directories.clone(),
            setup.default_model(&catalog.models),
        );
        first.rejected.clone_from(&catalog.rejected);
        let (status_sender, status) = watch::channel(first);
        let driver = driver::Driver::new(setup, catalog, disk, hang_ups, notices, status_sender);
        tokio::spawn(driver.run(driver::Inbox {
            commands: command_box,
            scans,
            disk: opened,
            hang_ups: hang_up_box,
            notices: notice_box,
        }));
        Self { commands, status }
    }

    /// Puts a request in the queue. The answer's first event may be long in coming: a model may
    /// have to be loaded first.
    pub async fn chat(
        &self,
        owner: PrincipalId,
        model: &str,
        request: ChatRequest,
    ) -> Result<Answer, Failure> {
        let (model, request) = (model.to_owned(), Box::new(request));
        self.ask(|reply| Command::Chat {
            owner,
            model,
            request,
            reply,
        })
        .await
    }

    /// Asks what the model's vocabulary and template alone can tell; a model may have to be loaded
    /// first.
    pub async fn text(
        &self,
        owner: PrincipalId,
        model: &str,
        task: TextTask,
    ) -> Result<TextAnswer, Failure> {
        let model = model.to_owned();
        self.ask(|reply| Command::Text {
            owner,
            model,
            task,
            reply,
        })
        .await
    }

    /// Loads a model, ending the one that is loaded; returns when it is up.
    pub async fn load(&self, owner: PrincipalId, model: &str) -> Result<ModelInfo, Failure> {
        let model = model.to_owned();
        self.ask(|reply| Command::Load {
            owner,
            model,
            reply,
        })
        .await
    }

    /// Ends the worker once it is idle; every byte it had is back when this returns.
    pub async fn unload(&self) -> Result<(), Failure> {
        self.ask(|reply| Command::Unload { reply }).await
    }

    /// Goes by new settings from now on, and looks for models again. A loaded model stays as it is.
    pub async fn reconfigure(&self, settings: Settings) {
        // Without a driver the daemon is leaving, and nothing needs new settings.
        let _ = self
            .commands
            .send(Command::Reconfigure(Box::new(settings)))
            .await;
    }

    /// What is in memory. Loads nothing; those who ask while the worker is looking get one picture
    /// together.
    pub async fn memory(&self) -> MemoryReport {
        let look =
            tokio::time::timeout(LOOK_TIME, self.ask(|reply| Command::Memory { reply })).await;
        let worker = look.unwrap_or(Err(Failure::TimedOut { limit: LOOK_TIME }));
        MemoryReport {
            supervisor: memory::probe::own(),
            available: memory::probe::available(),
            worker,
        }
    }

    /// What each model would take: of what is free now or of `ram` bytes, in several contexts or in
    /// one.
    pub async fn plan(
        &self,
        context: Option<u32>,
        ram: Option<u64>,
    ) -> Result<PlanReport, Failure> {
        self.ask(|reply| Command::Plan {
            context,
            ram,
            reply,
        })
        .await
    }

    /// What packed weights are kept on the disk.
    pub async fn cache(&self) -> Result<CacheReport, Failure> {
        self.ask(|reply| Command::Cache {
            clear: false,
            reply,
        })
        .await
    }

    /// Takes all packed weights from the disk; says which. A worker keeps those that it uses until
    /// it ends.
    pub async fn clear_cache(&self) -> Result<CacheReport, Failure> {
        self.ask(|reply| Command::Cache { clear: true, reply })
            .await
    }

    /// Refuses new requests, lets running ones finish for `grace`, ends the worker.
    pub async fn drain(&self, grace: Duration) {
        let (reply, answer) = oneshot::channel();
        if self
            .commands
            .send(Command::Drain { grace, reply })
            .await
            .is_ok()
        {
            let _ = answer.await;
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Command,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| Failure::ShuttingDown)?;
        answer.await.unwrap_or(Err(Failure::ShuttingDown))
    }

    /// Returns once the driver has come to it: that it is alive.
    pub async fn beat(&self) -> Result<(), Failure> {
        self.ask(|reply| Command::Beat { reply }).await
    }

    /// An engine whose driver never comes to its commands.
    #[cfg(test)]
    pub(crate) fn wedged() -> (Self, impl Sized) {
        let (commands, unread) = mpsc::channel(COMMANDS);
        let (sender, status) = watch::channel(Status::first(vec![], vec![], None));
        (Self { commands, status }, (unread, sender))
    }

    /// What is known, and each change of it.
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What is known right now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The installed model that a client means by `name`, as a chat with this name would get it
    /// now; fails as that would.
    pub async fn find(&self, name: &str) -> Result<ModelInfo, Failure> {
        let name = name.to_owned();
        self.ask(|reply| Command::Find { name, reply }).await
    }
}
