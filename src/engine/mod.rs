//! The backend of this machine: the only owner of change.
//!
//! Front doors hold it as a [`Backend`]; what they ask of a model goes as
//! one [`Command`] to the driver, the one task that owns the worker. `state` and `queue` decide,
//! `driver` and `child` act.

mod budget;
mod cache;
mod catalog_watch;
mod child;
mod choice;
pub mod cpus;
mod described;
mod devices;
mod driver;
mod estimates;
mod growth;
mod keep;
mod launch;
mod memory_guard;
mod memory_policy;
mod names;
mod offers;
pub(crate) mod one_shot;
mod pending;
mod plan;
mod prompt_cache;
mod prune;
mod pulls;
pub mod queue;
mod report;
mod setup;
pub mod state;
mod system_prompts;
mod thread;
mod unsound;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::{
    Answer, Backend, CacheReport, CatalogReport, DeviceReport, Failure, Found, Hashed, Import,
    KeptPrompt, LocalBackend, MemoryReport, ModelDetails, ModelInfo, PlanReport, Removed, Reply,
    Status, Unused, VerifiedFile, WorkerMemory,
};
use crate::chat::{ChatRequest, Modalities, PrincipalId, Retention, TextAnswer, TextTask};
use crate::memory;
pub use crate::store::Installers;
pub use cache::KnownSpace;
pub(crate) use described::{describe, describe_all, describe_rejected, rejected};
use devices::Devices;
pub(crate) use keep::StoreCommand;
pub use offers::PullBasis;
pub use prompt_cache::PromptCache;
pub use pulls::Pulls;
pub use setup::{Settings, Setup};
pub use unsound::UnsoundModels;

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
    prompts: PromptCache,
    pulls: Pulls,
    devices: Devices,
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
    /// Legal always: the installed model that a chat with this name and these modalities would get
    /// now.
    Find {
        name: String,
        modalities: Modalities,
        reply: oneshot::Sender<Result<Found, Failure>>,
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
        /// Only what no installed model has.
        unused: bool,
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
    /// Legal always. Something of the model directories, or of what could be in them.
    Store(StoreCommand),
    /// Take no more requests; answered when the last has ended or the grace time is over.
    Drain {
        grace: Duration,
        reply: oneshot::Sender<()>,
    },
}

impl Engine {
    /// Looks for models and starts the driver. Loads nothing. A model directory whose disk does not
    /// answer is looked through later.
    pub async fn start(mut setup: Setup) -> Self {
        setup.catalogs = offers::read(&setup.models);
        let prompts = setup.prompts.clone();
        let room = prompt_cache::Room::of(&setup.memory);
        prompts.recall(room, launch::identity(std::fs::metadata(&setup.worker)));
        let pulls = Pulls::new(
            setup.worker.clone(),
            setup.pull_socket.clone(),
            setup.pull.clone(),
            setup.models.directories.clone(),
        );
        let devices = Devices::new(setup.worker.clone(), setup.reserved.clone());
        let (reports, mut scans) = mpsc::unbounded_channel();
        let (directories, installers) =
            (setup.models.directories.clone(), setup.installers.clone());
        let mut catalog = catalog_watch::CatalogWatch::new(directories, installers, reports);
        catalog.settle(&mut scans).await;
        let (disk, opened) = mpsc::unbounded_channel();
        let (commands, command_box) = mpsc::channel(COMMANDS);
        let (hang_ups, hang_up_box) = mpsc::unbounded_channel();
        let (worker_events, worker_event_box) = mpsc::channel(driver::WORKER_EVENTS);
        let first = Status {
            rejected: rejected(&setup.catalogs, &catalog.rejected),
            ..Status::first(
                describe_all(&catalog.models),
                setup.models.directories.clone(),
                setup.default_model(&catalog.models),
            )
        };
        let (status_sender, status) = watch::channel(first);
        let driver =
            driver::Driver::new(setup, catalog, disk, hang_ups, worker_events, status_sender);
        tokio::spawn(driver.run(driver::Inbox {
            commands: command_box,
            scans,
            disk: opened,
            hang_ups: hang_up_box,
            worker_events: worker_event_box,
        }));
        Self {
            commands,
            status,
            prompts,
            pulls,
            devices,
        }
    }

    /// Goes by new settings from now on, and looks for models again. A loaded model stays as it is.
    pub async fn reconfigure(&self, settings: Settings) {
        let directories = settings.models.directories.clone();
        self.pulls.set(settings.pull.clone(), directories);
        // Without a driver the daemon is leaving, and nothing needs new settings.
        let _ = self
            .commands
            .send(Command::Reconfigure(Box::new(settings)))
            .await;
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

    /// Returns when the driver has ended, however it came to that: nothing is answered from then on.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// What the name of something that is to be fetched is resolved against.
    ///
    /// # Errors
    /// The disk does not answer, or the daemon is leaving.
    pub async fn pull_basis(&self) -> Result<PullBasis, Failure> {
        self.ask(|reply| Command::Store(StoreCommand::PullBasis { reply }))
            .await
    }

    /// Sends a command and waits for what the driver says.
    fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Command + Send + 'static,
    ) -> Reply<'static, T> {
        let commands = self.commands.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            commands
                .send(command(reply))
                .await
                .map_err(|_| Failure::ShuttingDown)?;
            answer.await.unwrap_or(Err(Failure::ShuttingDown))
        }
        .boxed()
    }

    /// An engine whose driver never comes to its commands.
    #[cfg(test)]
    pub(crate) fn wedged() -> (Self, impl Sized) {
        let (commands, unread) = mpsc::channel(COMMANDS);
        let (sender, status) = watch::channel(Status::first(vec![], vec![], None));
        let engine = Self {
            commands,
            status,
            prompts: PromptCache::default(),
            pulls: Pulls::new(
                Default::default(),
                Default::default(),
                Default::default(),
                vec![],
            ),
            devices: Devices::new(Default::default(), Default::default()),
        };
        (engine, (unread, sender))
    }
}

impl Backend for Engine {
    fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    fn changes(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    fn find<'a>(&'a self, name: &'a str, modalities: Modalities) -> Reply<'a, Found> {
        let name = name.to_owned();
        self.ask(move |reply| Command::Find {
            name,
            modalities,
            reply,
        })
    }

    fn chat<'a>(
        &'a self,
        owner: PrincipalId,
        model: &'a str,
        request: ChatRequest,
    ) -> Reply<'a, Answer> {
        let (model, request) = (model.to_owned(), Box::new(request));
        if request.retention == Retention::Day {
            self.prompts.ask(owner);
        }
        self.ask(move |reply| Command::Chat {
            owner,
            model,
            request,
            reply,
        })
    }

    fn text<'a>(
        &'a self,
        owner: PrincipalId,
        model: &'a str,
        task: TextTask,
    ) -> Reply<'a, TextAnswer> {
        let model = model.to_owned();
        self.ask(move |reply| Command::Text {
            owner,
            model,
            task,
            reply,
        })
    }
}

impl LocalBackend for Engine {
    fn load<'a>(&'a self, owner: PrincipalId, model: &'a str) -> Reply<'a, ModelInfo> {
        let model = model.to_owned();
        self.ask(move |reply| Command::Load {
            owner,
            model,
            reply,
        })
    }

    fn unload(&self) -> Reply<'_, ()> {
        self.ask(|reply| Command::Unload { reply })
    }

    /// Those who ask while the worker is looking get one picture together.
    fn memory(&self) -> BoxFuture<'_, MemoryReport> {
        let look = self.ask(|reply| Command::Memory { reply });
        async {
            let worker = tokio::time::timeout(LOOK_TIME, look).await;
            MemoryReport {
                supervisor: memory::probe::own(),
                available: memory::probe::available(),
                worker: worker.unwrap_or(Err(Failure::TimedOut { limit: LOOK_TIME })),
            }
        }
        .boxed()
    }

    fn plan(&self, context: Option<u32>, ram: Option<u64>) -> Reply<'_, PlanReport> {
        self.ask(move |reply| Command::Plan {
            context,
            ram,
            reply,
        })
    }

    fn details<'a>(&'a self, name: &'a str) -> Reply<'a, ModelDetails> {
        let name = name.to_owned();
        self.ask(move |reply| Command::Store(StoreCommand::Details { name, reply }))
    }

    fn remove<'a>(&'a self, id: &'a str) -> Reply<'a, Removed> {
        let id = id.to_owned();
        self.ask(move |reply| Command::Store(StoreCommand::Remove { id, reply }))
    }

    fn verify<'a>(
        &'a self,
        name: &'a str,
        told: watch::Sender<Hashed>,
    ) -> Reply<'a, (String, Vec<VerifiedFile>)> {
        let name = name.to_owned();
        self.ask(move |reply| Command::Store(StoreCommand::Verify { name, told, reply }))
    }

    fn import<'a>(
        &'a self,
        folder: Option<&'a str>,
        name: &'a str,
        bytes: u64,
    ) -> Reply<'a, Import> {
        let (folder, name) = (folder.map(str::to_owned), name.to_owned());
        self.ask(move |reply| {
            Command::Store(StoreCommand::Import {
                folder,
                name,
                bytes,
                reply,
            })
        })
    }

    fn catalog(&self) -> Reply<'_, CatalogReport> {
        self.ask(|reply| Command::Store(StoreCommand::Catalog { reply }))
    }

    fn devices(&self) -> Reply<'_, DeviceReport> {
        self.devices.list().boxed()
    }

    fn cache(&self) -> Reply<'_, CacheReport> {
        self.ask(|reply| Command::Cache {
            unused: false,
            clear: false,
            reply,
        })
    }

    fn prune(&self, remove: bool) -> Reply<'_, Vec<Unused>> {
        prune::prune(self, remove).boxed()
    }

    fn beat(&self) -> Reply<'_, ()> {
        self.ask(|reply| Command::Beat { reply })
    }

    fn clear_cache(&self) -> Reply<'_, CacheReport> {
        self.ask(|reply| Command::Cache {
            unused: false,
            clear: true,
            reply,
        })
    }

    fn prompts(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt> {
        self.prompts.list(owner)
    }

    fn clear_prompts(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt> {
        self.prompts.clear(owner)
    }
}
