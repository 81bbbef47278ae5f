//! The one task that performs what `state` decides, and the only one that touches the worker.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::cache::CacheTurns;
use super::child::{self, Child, Notice};
use super::launch::{Launch, PackedPlace};
use super::live::Live;
use super::look::Looks;
use super::queue::Kind;
use super::state::{Action, Generation, Input, Life, State};
use super::{Answer, Command, EVENTS, Failure, HangUpGuard, ModelInfo, Phase, PlanReport, Settings, Setup, Status, WorkerMemory};
use crate::chat::{ChatError, ChatEvent, ChatRequest};
use crate::ipc::{self, FromWorker, LoadedModel, Packing, TemplateSource, ToWorker};
use crate::store;

/// Notices from the worker that wait for the driver; past this the worker's writes wait.
pub const NOTICES: usize = 256;
/// The model directories are looked at again for an unknown name, but not more often than this.
const RESCAN_PAUSE: Duration = Duration::from_secs(1);

/// See the module's text.
pub(super) struct Driver {
    setup: Setup,
    state: State,
    live: HashMap<u64, Live>,
    /// The id of the last request.
    last_id: u64,
    child: Option<Child>,
    loaded: Option<LoadedModel>,
    models: Vec<ModelInfo>,
    scanned: Instant,
    /// Where the worker's packed weights come from and go to.
    packed: Option<PackedPlace>,
    looks: Looks,
    cache_turns: CacheTurns,
    unloads: Vec<oneshot::Sender<Result<(), Failure>>>,
    drains: Vec<oneshot::Sender<()>>,
    served: u64,
    crashes: u64,
    hang_ups: mpsc::UnboundedSender<u64>,
    notices: mpsc::Sender<(Generation, Notice)>,
    status: watch::Sender<Status>,
}

/// The driver's ears.
pub(super) struct Inbox {
    pub commands: mpsc::Receiver<Command>,
    /// One message at most for each answer that exists, and those are limited.
    pub hang_ups: mpsc::UnboundedReceiver<u64>,
    pub notices: mpsc::Receiver<(Generation, Notice)>,
}

impl Driver {
    pub(super) fn new(
        setup: Setup,
        models: Vec<ModelInfo>,
        hang_ups: mpsc::UnboundedSender<u64>,
        notices: mpsc::Sender<(Generation, Notice)>,
        status: watch::Sender<Status>,
    ) -> Self {
        let state = State::new(setup.state_settings());
        Self {
            setup,
            state,
            live: HashMap::new(),
            last_id: 0,
            child: None,
            loaded: None,
            models,
            scanned: Instant::now(),
            packed: None,
            looks: Looks::default(),
            cache_turns: CacheTurns::default(),
            unloads: vec![],
            drains: vec![],
            served: 0,
            crashes: 0,
            hang_ups,
            notices,
            status,
        }
    }

    /// Runs until the drain is over.
    pub(super) async fn run(mut self, mut inbox: Inbox) {
        loop {
            let tick = self.state.next_tick();
            let sleep = tokio::time::sleep_until(tick.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)).into());
            tokio::select! {
                Some(id) = inbox.hang_ups.recv() => self.hang_up(id),
                Some((generation, notice)) = inbox.notices.recv() => self.notice(generation, notice),
                command = inbox.commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                () = sleep => self.step(Input::Tick),
            }
            self.publish();
            if self.drains.is_empty() && matches!(self.state.life(), Life::Draining) && self.child.is_none() {
                return;
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Chat { uid, model, request, reply } => {
                let model = match self.find(&model).await.and_then(|model| sees_enough(model, &request)) {
                    Ok(model) => model.id,
                    Err(failure) => return drop(reply.send(Err(failure))),
                };
                let id = self.new_id();
                let guard = HangUpGuard { request: id, hang_ups: self.hang_ups.clone() };
                let (sender, events) = mpsc::channel(EVENTS);
                self.live.insert(id, Live::Chat { request: Some(request), events: sender, started: false });
                self.step(Input::Submit { id, uid, model: model.clone(), kind: Kind::Chat });
                // A refusal lies in the channel already: hand it over as what it is.
                let mut answer = Answer { model, events, _guard: guard };
                let result = match answer.events.try_recv() {
                    Ok(Err(failure)) => Err(failure),
                    _ => Ok(answer),
                };
                let _ = reply.send(result);
            }
            Command::Text { uid, model, task, reply } => {
                let model = match self.find(&model).await {
                    Ok(model) => model.id,
                    Err(failure) => return drop(reply.send(Err(failure))),
                };
                let id = self.new_id();
                self.live.insert(id, Live::Text { task, reply });
                self.step(Input::Submit { id, uid, model, kind: Kind::Text });
            }
            Command::Load { uid, model, reply } => {
                let model = match self.find(&model).await {
                    Ok(model) => model,
                    Err(failure) => return drop(reply.send(Err(failure))),
                };
                let (id, name) = (self.new_id(), model.id.clone());
                self.live.insert(id, Live::Load { model: Box::new(model), reply });
                self.step(Input::Submit { id, uid, model: name, kind: Kind::Load });
            }
            Command::Unload { reply } => {
                self.unloads.push(reply);
                self.step(Input::Unload);
            }
            Command::Beat { reply } => drop(reply.send(Ok(()))),
            Command::Memory { reply } => match (&self.child, self.state.life()) {
                (Some(child), Life::Ready(_)) => self.looks.ask(reply, child),
                _ => drop(reply.send(Ok(None))),
            },
            Command::Cache { clear, reply } => {
                self.cache_turns.ask(self.setup.cache(), self.packed_in_use(), clear, reply);
            }
            Command::Plan { context, ram, reply } => {
                let _ = reply.send(Ok(PlanReport::new(&self.setup, &self.models, context, ram)));
            }
            Command::Reconfigure(settings) => {
                let Settings { models, inference, memory, limits } = *settings;
                (self.setup.models, self.setup.inference) = (models, inference);
                (self.setup.memory, self.setup.limits) = (memory, limits);
                self.state.configure(self.setup.state_settings());
                self.rescan().await;
                self.status.send_modify(|status| {
                    status.directories.clone_from(&self.setup.models.directories);
                    status.default = self.setup.default_model(&self.models);
                });
            }
            Command::Drain { grace, reply } => {
                self.drains.push(reply);
                self.step(Input::Drain { deadline: Instant::now() + grace });
            }
        }
    }

    /// The name of the file that the worker's packed weights are in.
    fn packed_in_use(&self) -> Option<String> {
        let in_file = matches!(self.loaded.as_ref()?.packing, Packing::Reused | Packing::New { .. });
        self.packed.as_ref().filter(|_| in_file).map(|place| place.name().as_str().to_owned())
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The installed model that a client means, after a second look at the directories if need be.
    async fn find(&mut self, name: &str) -> Result<ModelInfo, Failure> {
        match self.resolve(name) {
            Err(Failure::UnknownModel { .. } | Failure::NoModels { .. }) if self.scanned.elapsed() >= RESCAN_PAUSE => {}
            result => return result,
        }
        self.rescan().await;
        self.publish();
        self.resolve(name)
    }

    fn resolve(&self, name: &str) -> Result<ModelInfo, Failure> {
        let loaded = match self.state.life() {
            Life::Starting(model) | Life::Ready(model) => Some(model),
            _ => None,
        };
        self.setup.resolve(&self.models, loaded, name)
    }

    async fn rescan(&mut self) {
        self.models = scan(self.setup.models.directories.clone()).await;
        self.scanned = Instant::now();
    }

    fn hang_up(&mut self, id: u64) {
        if self.live.remove(&id).is_some() {
            self.step(Input::HangUp { id });
        }
    }

    fn step(&mut self, input: Input) {
        for action in self.state.step(Instant::now(), input) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { generation, model } => self.spawn(generation, &model),
            Action::End { generation } => self.with_child(generation, Child::end),
            Action::Kill { generation } => self.with_child(generation, |child| child.kill()),
            Action::Send { id } => self.send(id),
            Action::Cancel { id } => {
                if let Some(child) = &self.child {
                    self.tell(child, ToWorker::Cancel { id });
                }
            }
            Action::Fail { id, failure } => self.fail(id, failure),
            Action::LoadDone { id } => {
                if let Some(Live::Load { model, reply }) = self.live.remove(&id) {
                    let _ = reply.send(Ok(*model));
                }
            }
            Action::Unloaded => self.unloads.drain(..).for_each(|reply| drop(reply.send(Ok(())))),
            Action::Drained => self.drains.drain(..).for_each(|reply| reply.send(()).unwrap_or_default()),
        }
    }

    fn with_child(&mut self, generation: Generation, act: impl FnOnce(&mut Child)) {
        if let Some(child) = self.child.as_mut().filter(|child| child.generation == generation) {
            act(child);
        }
    }

    fn tell(&self, child: &Child, message: ToWorker) {
        if !child.send(message) {
            tracing::error!(pid = child.pid, "the worker does not read its messages; killing it");
            child.kill();
        }
    }

    fn spawn(&mut self, generation: Generation, model: &str) {
        // What goes wrong here reaches the state through the same door as what goes wrong later, so that
        // the state alone decides what follows.
        let Some(info) = self.models.iter().find(|m| m.id == model).cloned() else {
            let failure = Failure::BadModel { model: model.to_owned(), reason: "it is no longer installed".into() };
            return self.not_spawned(generation, Some(failure));
        };
        let prepared = self.setup.fit(&info, &self.models, 0).and_then(|run| {
            Launch::prepare(&self.setup, &info, &run).map_err(|bad| Failure::BadModel { model: model.to_owned(), reason: bad.to_string() })
        });
        let Launch { plan, files, packed } = match prepared {
            Ok(launch) => launch,
            Err(failure) => return self.not_spawned(generation, Some(failure)),
        };
        let files: Vec<&File> = files.iter().collect();
        self.packed = packed;
        tracing::info!(model, file = %info.path.display(), context = plan.context, slots = plan.slots, cpus = ?plan.cpus, "starting a worker");
        match child::spawn(&self.setup.worker, generation, plan, &files, self.notices.clone()) {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                tracing::error!(worker = %self.setup.worker.display(), %error, "the worker cannot be started");
                self.not_spawned(generation, None);
            }
        }
    }

    /// A worker that never was: reported like one that came to its end.
    fn not_spawned(&mut self, generation: Generation, failure: Option<Failure>) {
        let notices = self.notices.clone();
        let cause = format!("{} cannot be started", self.setup.worker.display());
        // Not at once: the step that asked for the worker is still being performed.
        tokio::spawn(async move {
            if let Some(failure) = failure {
                let _ = notices.send((generation, Notice::NotStarted(failure))).await;
            }
            let _ = notices.send((generation, Notice::Exited(cause))).await;
        });
    }

    fn load_failed(&mut self, generation: Generation, reason: String) {
        let Life::Starting(model) = self.state.life() else { return };
        let failure = Failure::BadModel { model: model.to_owned(), reason };
        self.step(Input::LoadFailed { generation, failure });
    }

    fn send(&mut self, id: u64) {
        if let (Some(message), Some(child)) = (self.live.get(&id).and_then(|live| live.message(id)), &self.child) {
            self.tell(child, message);
        }
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        self.served += 1;
        if let Some(live) = self.live.remove(&id) {
            live.fail(failure);
        }
    }

    fn notice(&mut self, generation: Generation, notice: Notice) {
        match notice {
            Notice::Message(FromWorker::Hello { version }) => {
                if version != ipc::VERSION {
                    let reason = format!(
                        "gemmad-worker speaks version {version} and gemmad version {}: install both from one release",
                        ipc::VERSION
                    );
                    self.load_failed(generation, reason);
                    self.with_child(generation, |child| child.kill());
                }
            }
            Notice::Message(FromWorker::Loaded(loaded)) => {
                tracing::info!(load_ms = loaded.load_us / 1000, "the model is loaded");
                if let Some(note) = template_note(&loaded.template) {
                    tracing::warn!("the model's chat template: {note}");
                }
                match &loaded.packing {
                    Packing::New { instead: Some(why) } => tracing::info!("the weights were packed anew: the file that had them {why}"),
                    Packing::InMemory { why } => tracing::warn!(why, "packed weights stay in memory"),
                    Packing::New { instead: None } | Packing::Reused | Packing::Nothing => {}
                }
                let slots = loaded.slots;
                self.loaded = Some(loaded);
                self.step(Input::Loaded { generation, slots });
            }
            Notice::Message(FromWorker::LoadFailed { reason }) => {
                tracing::error!(reason, "the model cannot be loaded");
                self.load_failed(generation, reason);
            }
            Notice::NotStarted(failure) => {
                tracing::error!(reason = %failure, "no worker is started");
                self.step(Input::LoadFailed { generation, failure });
            }
            Notice::Message(FromWorker::Packed) => self.packed.iter_mut().for_each(PackedPlace::publish),
            Notice::Message(FromWorker::Spoilt { reason }) => {
                tracing::error!(reason, "the file of packed weights is discarded");
                self.packed.iter().for_each(PackedPlace::discard);
            }
            Notice::Message(FromWorker::Memory(picture)) => {
                let memory = match (self.state.life(), &self.child, &self.loaded) {
                    (Life::Ready(model), Some(child), Some(loaded)) => {
                        Some(WorkerMemory { model: model.into(), pid: child.pid, packing: loaded.packing.clone(), picture })
                    }
                    _ => None,
                };
                self.looks.answer(memory);
            }
            Notice::Message(FromWorker::Event { id, event }) => self.event(id, event),
            Notice::Message(FromWorker::Text { id, answer }) => {
                if let Some(Live::Text { reply, .. }) = self.live.remove(&id) {
                    self.served += 1;
                    // Whoever asked may be gone.
                    let _ = reply.send(Ok(answer));
                    self.step(Input::Ended { id });
                }
            }
            Notice::Message(FromWorker::Failed { id, error }) => {
                if self.live.contains_key(&id) {
                    self.fail(id, Failure::Chat(error));
                    self.step(Input::Ended { id });
                }
            }
            Notice::Exited(cause) => {
                self.child = None;
                self.loaded = None;
                self.packed = None;
                self.looks.answer(None);
                if !matches!(self.state.life(), Life::Ending(_) | Life::Draining) {
                    self.crashes += 1;
                    tracing::error!(cause, "the worker died");
                }
                self.step(Input::Exited { generation, cause });
            }
        }
    }

    /// Passes an event on to its client.
    fn event(&mut self, id: u64, event: ChatEvent) {
        let Some(Live::Chat { request, events, started }) = self.live.get_mut(&id) else { return };
        if matches!(event, ChatEvent::Started { .. }) && std::mem::replace(started, true) {
            // A retried request starts twice; its client need not know.
            return;
        }
        let begun = !matches!(event, ChatEvent::Started { .. }) && request.take().is_some();
        let done = matches!(event, ChatEvent::Done(_));
        if events.is_closed() {
            return self.hang_up(id);
        }
        if events.try_send(Ok(event)).is_err() {
            tracing::info!(request = id, "the client does not read its answer");
            self.fail(id, Failure::ClientStalled { unread: EVENTS });
            return self.step(Input::HangUp { id });
        }
        if begun {
            self.step(Input::Begun { id });
        }
        if done {
            self.served += 1;
            self.live.remove(&id);
            self.step(Input::Ended { id });
        }
    }

    fn publish(&mut self) {
        let phase = match self.state.life() {
            Life::None => Phase::Cold,
            Life::Starting(model) => Phase::Loading { model: model.into() },
            Life::Ending(model) => Phase::Unloading { model: model.into() },
            Life::BackingOff { cause, until } => Phase::BackingOff { cause: cause.into(), until },
            Life::Draining => Phase::Draining,
            Life::Ready(model) => match (&self.loaded, &self.child) {
                (Some(loaded), Some(child)) => Phase::Ready {
                    model: model.into(),
                    context: loaded.context,
                    slots: loaded.slots,
                    threads: loaded.threads,
                    pid: child.pid,
                    load_time: Duration::from_micros(loaded.load_us),
                    template: template_note(&loaded.template),
                },
                _ => Phase::Loading { model: model.into() },
            },
        };
        let (waiting, running) = (self.state.waiting() as u32, self.state.running() as u32);
        let (served, crashes) = (self.served, self.crashes);
        self.status.send_if_modified(|status| {
            let changed = status.phase != phase
                || (status.waiting, status.running, status.served, status.crashes) != (waiting, running, served, crashes)
                || status.models != self.models;
            if changed {
                status.phase = phase;
                (status.waiting, status.running, status.served, status.crashes) = (waiting, running, served, crashes);
                if status.models != self.models {
                    status.models.clone_from(&self.models);
                }
                status.default = self.setup.default_model(&status.models);
            }
            changed
        });
    }
}

/// Refuses pictures to a model that has nothing to see them with.
fn sees_enough(model: ModelInfo, request: &ChatRequest) -> Result<ModelInfo, Failure> {
    if model.projector.is_some() || request.pictures().next().is_none() {
        return Ok(model);
    }
    let folder = model.path.parent().unwrap_or(&model.path).display();
    let reason = format!(
        "`{}` has no projector beside it; put the model's mmproj file (GGUF, architecture `clip`, {} wide) into {folder}",
        model.id, model.width
    );
    Err(Failure::Chat(ChatError::CannotSee { reason }))
}

/// What an administrator should know about the chat template in use, if anything.
fn template_note(source: &TemplateSource) -> Option<String> {
    match source {
        TemplateSource::Embedded => None,
        TemplateSource::Missing => Some("the file has none; the family's is used".into()),
        TemplateSource::Replaced { why } => Some(format!("the file's is not used, because {why}; the family's is")),
    }
}

/// Looks at the model directories, off the daemon's one thread: a slow disk must not keep clients waiting.
pub(super) async fn scan(directories: Vec<PathBuf>) -> Vec<ModelInfo> {
    let catalog = match tokio::task::spawn_blocking(move || store::scan(&directories)).await {
        Ok(catalog) => catalog,
        Err(error) => {
            tracing::error!(%error, "the model directories could not be looked at");
            return vec![];
        }
    };
    for rejected in &catalog.rejected {
        tracing::warn!(file = %rejected.path.display(), reason = %rejected.reason, "not a model");
    }
    catalog.models
}
