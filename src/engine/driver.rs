//! The one task that performs what `state` decides, and the only one that touches the worker.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::budget::Budget;
use super::cache::CacheTurns;
use super::catalog_watch::{CatalogWatch, ScanReport};
use super::child::{Child, Notice};
use super::choice::{self, ModelRequest, Placement};
use super::launch::{ModelFiles, PackedPlace};
use super::live::Live;
use super::look::Looks;
use super::memory_policy::Step;
use super::queue::Kind;
use super::relief::Relief;
use super::state::{Action, Generation, Input, Life, State};
use super::status::template_note;
use super::{
    Answer, Command, EVENTS, Failure, HangUpGuard, ModelInfo, Phase, PlanReport, Settings, Setup,
    Status,
};
use crate::chat::{Modalities, PrincipalId, TextTask};
use crate::ipc::{LoadedModel, Packing, Serve, ServeEvent, ServeRequest};
use crate::store::BadFile;

mod notices;
mod spawn;

/// Notices from the worker that wait for the driver; past this the worker's writes wait.
pub const NOTICES: usize = 256;

/// See the module's text.
pub(super) struct Driver {
    setup: Setup,
    state: State,
    live: HashMap<u64, Live>,
    /// The id of the last request.
    last_id: u64,
    worker: Option<RunningWorker>,
    catalog: CatalogWatch,
    /// Commands for a model that nobody knows, until the directories have been scanned again.
    unresolved: Vec<Command>,
    /// The worker that waits for its model's files.
    starting: Option<Start>,
    /// The models whose files are being opened, for a worker or for one that was given up since:
    /// one thread for each, however long their disks take.
    opening: BTreeSet<String>,
    disk: mpsc::UnboundedSender<OpenedFiles>,
    relief: Relief,
    cache_turns: CacheTurns,
    unloads: Vec<oneshot::Sender<Result<(), Failure>>>,
    drains: Vec<oneshot::Sender<()>>,
    served: u64,
    crashes: u64,
    tokens_per_second: f64,
    hang_ups: mpsc::UnboundedSender<u64>,
    notices: mpsc::Sender<(Generation, Notice<ServeEvent>)>,
    status: watch::Sender<Status>,
}

/// A worker process, and what is known of it.
struct RunningWorker {
    child: Child<Serve>,
    /// `None` until its model is loaded.
    loaded: Option<LoadedModel>,
    /// Where its packed weights come from and go to.
    packed: Option<PackedPlace>,
    looks: Looks,
}

/// A worker that waits for its model's files.
struct Start {
    generation: Generation,
    model: ModelInfo,
    run: Placement,
    /// Steps that it is smaller by than it could be.
    smaller: u32,
}

/// A model's files, or why they cannot be opened.
#[derive(Debug)]
pub(super) struct OpenedFiles {
    model: String,
    files: Result<ModelFiles, BadFile>,
}

/// What the driver listens to.
pub(super) struct Inbox {
    pub commands: mpsc::Receiver<Command>,
    /// One message at most for each model directory and each change in it.
    pub scans: mpsc::UnboundedReceiver<ScanReport>,
    /// One message at most for each model.
    pub disk: mpsc::UnboundedReceiver<OpenedFiles>,
    /// One message at most for each answer that exists, and those are limited.
    pub hang_ups: mpsc::UnboundedReceiver<u64>,
    pub notices: mpsc::Receiver<(Generation, Notice<ServeEvent>)>,
}

impl Driver {
    pub(super) fn new(
        setup: Setup,
        catalog: CatalogWatch,
        disk: mpsc::UnboundedSender<OpenedFiles>,
        hang_ups: mpsc::UnboundedSender<u64>,
        notices: mpsc::Sender<(Generation, Notice<ServeEvent>)>,
        status: watch::Sender<Status>,
    ) -> Self {
        let state = State::new(setup.state_settings());
        Self {
            setup,
            state,
            live: HashMap::new(),
            last_id: 0,
            worker: None,
            catalog,
            unresolved: vec![],
            starting: None,
            opening: BTreeSet::new(),
            disk,
            relief: Relief::default(),
            cache_turns: CacheTurns::default(),
            unloads: vec![],
            drains: vec![],
            served: 0,
            crashes: 0,
            tokens_per_second: 0.0,
            hang_ups,
            notices,
            status,
        }
    }

    /// Runs until the drain is over.
    pub(super) async fn run(mut self, mut inbox: Inbox) {
        loop {
            let tick = self.state.next_tick();
            let sleep = tokio::time::sleep_until(
                tick.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
                    .into(),
            );
            tokio::select! {
                Some(id) = inbox.hang_ups.recv() => self.hang_up(id),
                Some((generation, notice)) = inbox.notices.recv() => self.notice(generation, notice),
                command = inbox.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.relief.due() => self.relieve(),
                Some(report) = inbox.scans.recv() => {
                    self.catalog.add(report);
                    self.scanned();
                }
                () = self.catalog.is_late() => {
                    self.catalog.go_on_without();
                    self.scanned();
                }
                Some(opened) = inbox.disk.recv() => self.opened(opened),
                () = sleep => self.step(Input::Tick),
            }
            self.publish();
            if self.drains.is_empty()
                && matches!(self.state.life(), Life::Draining)
                && self.worker.is_none()
            {
                return;
            }
        }
    }

    fn command(&mut self, command: Command) {
        let Some(command) = self.resolvable(command) else {
            return;
        };
        match command {
            Command::Chat {
                owner,
                model,
                request,
                reply,
            } => {
                let wish = match self.resolve(&model, request.modalities()) {
                    Ok((_, wish)) => wish,
                    Err(failure) => return drop(reply.send(Err(failure))),
                };
                let id = self.new_id();
                let guard = HangUpGuard {
                    request: id,
                    hang_ups: self.hang_ups.clone(),
                };
                let (sender, events) = mpsc::channel(EVENTS);
                let (told, model) = watch::channel(wish.model.clone());
                self.submit(
                    id,
                    owner,
                    Kind::Chat,
                    Live::Chat {
                        wish,
                        model: told,
                        request: Some(request),
                        events: sender,
                        started: false,
                    },
                );
                // A refusal lies in the channel already: hand it over as what it is.
                let mut answer = Answer {
                    model,
                    events,
                    _guard: guard,
                };
                let result = match answer.events.try_recv() {
                    Ok(Err(failure)) => Err(failure),
                    _ => Ok(answer),
                };
                let _ = reply.send(result);
            }
            Command::Text {
                owner,
                model,
                task,
                reply,
            } => {
                let modalities = if let TextTask::Count(request) = &task {
                    request.modalities()
                } else {
                    Modalities::default()
                };
                let wish = match self.resolve(&model, modalities) {
                    Ok((_, wish)) => wish,
                    Err(failure) => return drop(reply.send(Err(failure))),
                };
                let id = self.new_id();
                self.submit(id, owner, Kind::Text, Live::Text { wish, task, reply });
            }
            Command::Load {
                owner,
                model,
                reply,
            } => {
                let (model, wish) = match self.resolve(&model, Modalities::default()) {
                    Ok(found) => found,
                    Err(failure) => return drop(reply.send(Err(failure))),
                };
                let id = self.new_id();
                self.submit(
                    id,
                    owner,
                    Kind::Load,
                    Live::Load {
                        wish,
                        model: Box::new(model),
                        reply,
                    },
                );
            }
            Command::Find { name, reply } => {
                let found = self.resolve(&name, Modalities::default());
                let _ = reply.send(found.map(|(model, _)| model));
            }
            Command::Unload { reply } => {
                self.unloads.push(reply);
                self.step(Input::Unload);
            }
            Command::Beat { reply } => drop(reply.send(Ok(()))),
            Command::Memory { reply } => match (&mut self.worker, self.state.life()) {
                (Some(worker), Life::Ready(_)) => worker.looks.ask(reply, &worker.child),
                _ => drop(reply.send(Ok(None))),
            },
            Command::Cache { clear, reply } => {
                self.cache_turns
                    .report(self.setup.cache(), self.packed_in_use(), clear, reply);
            }
            Command::Plan {
                context,
                ram,
                reply,
            } => {
                let _ = reply.send(Ok(PlanReport::new(
                    &self.setup,
                    &self.catalog.models,
                    context,
                    ram,
                )));
            }
            Command::Reconfigure(settings) => {
                let Settings {
                    models,
                    inference,
                    memory,
                    limits,
                    installers,
                } = *settings;
                self.setup.installers = installers;
                (self.setup.models, self.setup.inference) = (models, inference);
                (self.setup.memory, self.setup.limits) = (memory, limits);
                self.state.configure(self.setup.state_settings());
                self.catalog.set_directories(
                    self.setup.models.directories.clone(),
                    self.setup.installers.clone(),
                );
                self.status.send_modify(|status| {
                    status
                        .directories
                        .clone_from(&self.setup.models.directories);
                    status.default = self.setup.default_model(&self.catalog.models);
                });
            }
            Command::Drain { grace, reply } => {
                self.drains.push(reply);
                self.step(Input::Drain {
                    deadline: Instant::now() + grace,
                });
            }
        }
    }

    /// The name of the file that the worker's packed weights are in.
    fn packed_in_use(&self) -> Option<String> {
        let worker = self.worker.as_ref()?;
        let in_file = matches!(
            worker.loaded.as_ref()?.packing,
            Packing::Reused | Packing::New { .. }
        );
        let packed = worker.packed.as_ref().filter(|_| in_file);
        packed.map(|place| place.name().as_str().to_owned())
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Puts a job in the queue.
    fn submit(&mut self, id: u64, owner: PrincipalId, kind: Kind, live: Live) {
        let ModelRequest {
            model, flexible, ..
        } = live.wish().clone();
        self.live.insert(id, live);
        self.step(Input::Submit {
            id,
            owner,
            model,
            flexible,
            kind,
        });
    }

    /// The command, unless it is kept because it is for a model that nobody knows and the model
    /// directories are scanned first.
    fn resolvable(&mut self, command: Command) -> Option<Command> {
        let name = match &command {
            Command::Chat { model, .. }
            | Command::Text { model, .. }
            | Command::Load { model, .. }
            | Command::Find { name: model, .. } => model,
            _ => return Some(command),
        };
        match self.resolve(name, Modalities::default()) {
            Err(Failure::UnknownModel { .. } | Failure::NoModels { .. })
                if self.catalog.may_have_more() =>
            {
                self.unresolved.push(command);
                None
            }
            _ => Some(command),
        }
    }

    /// The model directories may have been scanned.
    fn scanned(&mut self) {
        if !self.catalog.is_scanning() && !self.unresolved.is_empty() {
            self.publish();
            for command in std::mem::take(&mut self.unresolved) {
                self.command(command);
            }
        }
    }

    fn resolve(
        &self,
        name: &str,
        modalities: Modalities,
    ) -> Result<(ModelInfo, ModelRequest), Failure> {
        let loaded = match self.state.life() {
            Life::Starting(model) | Life::Ready(model) => Some(model),
            _ => None,
        };
        let models = &self.catalog.models;
        let model = self
            .setup
            .resolve(models, loaded, name, modalities)
            .and_then(|model| choice::check(model, modalities))?;
        let wish = self.setup.wish(models, name, modalities, &model);
        Ok((model, wish))
    }

    /// Another model for a job whose own cannot be had, or why there is none.
    fn choose(&mut self, id: u64, failure: Failure, budget: &Budget) -> Result<String, Failure> {
        // Who was told which model answers keeps it.
        let Some(live) = self.live.get_mut(&id).filter(|live| !live.is_settled()) else {
            return Err(failure);
        };
        let reason = failure.to_string();
        let (model, wish) =
            self.setup
                .choose_less(&self.catalog.models, live.wish(), budget, failure)?;
        tracing::info!(
            request = id,
            model = live.wish().model,
            instead = model.id,
            reason,
            "another model is chosen"
        );
        let chosen = model.id.clone();
        live.moved(model, wish);
        Ok(chosen)
    }

    fn hang_up(&mut self, id: u64) {
        if self.live.remove(&id).is_some() {
            self.step(Input::HangUp { id });
        }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        // One look at the memory, so that those who waited for one model are answered by one model.
        let mut budget = None;
        while let Some(input) = inputs.pop_front() {
            for action in self.state.step(Instant::now(), input) {
                inputs.extend(self.perform(action, &mut budget));
            }
        }
    }

    /// Returns what the state has to know at once.
    fn perform(&mut self, action: Action, budget: &mut Option<Budget>) -> Vec<Input> {
        match action {
            Action::Spawn {
                generation,
                model,
                smaller,
            } => return self.spawn(generation, &model, smaller),
            Action::Choose { id, failure } => {
                let budget = budget.get_or_insert_with(|| self.setup.budget());
                return vec![Input::Chosen {
                    id,
                    model: self.choose(id, failure, budget),
                }];
            }
            Action::Trim => {
                tracing::info!("memory: the worker has nothing to do and gives back what it can");
                self.ease();
            }
            Action::End { generation } => self.end(generation, Child::end),
            Action::Kill { generation } => self.end(generation, |child| child.kill()),
            Action::Send { id } => self.send(id),
            Action::Cancel { id } => {
                self.tell(ServeRequest::Cancel { id });
            }
            Action::Fail { id, failure } => self.fail(id, failure),
            Action::LoadDone { id } => {
                if let Some(Live::Load { model, reply, .. }) = self.live.remove(&id) {
                    let _ = reply.send(Ok(*model));
                }
            }
            // Whoever asked may be gone.
            Action::Unloaded => {
                for reply in self.unloads.drain(..) {
                    let _ = reply.send(Ok(()));
                }
            }
            Action::Drained => {
                for reply in self.drains.drain(..) {
                    let _ = reply.send(());
                }
            }
        }
        vec![]
    }

    /// Looks how much memory there is, and does what that calls for.
    fn relieve(&mut self) {
        let idle = self.state.running() + self.state.waiting() == 0;
        match self.relief.look(idle) {
            Some((Step::Trim, _)) => self.ease(),
            Some((Step::EndWhenIdle, _)) => self.step(Input::EndWhenIdle(true)),
            Some((Step::EndNow, cause)) => self.step(Input::GiveUp { cause }),
            Some((Step::GoOn, _)) => self.step(Input::EndWhenIdle(false)),
            None => {}
        }
    }

    fn ease(&mut self) {
        self.tell(ServeRequest::Ease);
    }

    /// Ends a worker. One that waits for its model's files is given up.
    fn end(&mut self, generation: Generation, how: impl FnOnce(&mut Child<Serve>)) {
        if self
            .starting
            .take_if(|start| start.generation == generation)
            .is_some()
        {
            self.not_spawned(generation, None);
        }
        self.with_child(generation, how);
    }

    fn with_child(&mut self, generation: Generation, act: impl FnOnce(&mut Child<Serve>)) {
        if let Some(worker) = &mut self.worker
            && worker.child.generation == generation
        {
            act(&mut worker.child);
        }
    }

    /// Hands a request to the worker, if there is one.
    fn tell(&self, request: ServeRequest) {
        if let Some(RunningWorker { child, .. }) = &self.worker
            && !child.send(request)
        {
            tracing::error!(
                pid = child.pid,
                "the worker does not read its messages; killing it"
            );
            child.kill();
        }
    }

    fn send(&mut self, id: u64) {
        if let Some(request) = self.live.get(&id).and_then(|live| live.message(id)) {
            self.tell(request);
        }
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        self.served += 1;
        if let Some(live) = self.live.remove(&id) {
            live.fail(failure);
        }
    }

    fn phase(&self) -> Phase {
        let loaded = self.worker.as_ref().and_then(|worker| {
            let loaded = worker.loaded.as_ref()?;
            Some((loaded, worker.child.pid))
        });
        match (self.state.life(), loaded) {
            (Life::None, _) => Phase::Cold,
            (Life::Ready(model), Some((loaded, pid))) => Phase::Ready {
                model: model.into(),
                context: loaded.context,
                slots: loaded.slots,
                threads: loaded.threads,
                pid,
                load_time: Duration::from_micros(loaded.load_us),
                template: template_note(&loaded.template),
            },
            (Life::Starting(model) | Life::Ready(model), _) => Phase::Loading {
                model: model.into(),
            },
            (Life::Ending(model), _) => Phase::Unloading {
                model: model.into(),
            },
            (Life::BackingOff { cause, until }, _) => Phase::BackingOff {
                cause: cause.into(),
                until,
            },
            (Life::Draining, _) => Phase::Draining,
        }
    }

    fn publish(&mut self) {
        let phase = self.phase();
        let (waiting, running) = (self.state.waiting() as u32, self.state.running() as u32);
        let (served, crashes) = (self.served, self.crashes);
        self.status.send_if_modified(|status| {
            let changed = status.phase != phase
                || (
                    status.waiting,
                    status.running,
                    status.served,
                    status.crashes,
                ) != (waiting, running, served, crashes)
                || status.memory != *self.relief.state()
                || status.models != self.catalog.models
                || status.rejected != self.catalog.rejected;
            if changed {
                status.phase = phase;
                status.memory.clone_from(self.relief.state());
                (
                    status.waiting,
                    status.running,
                    status.served,
                    status.crashes,
                ) = (waiting, running, served, crashes);
                // It changes with `served` only.
                status.tokens_per_second = self.tokens_per_second;
                if status.models != self.catalog.models {
                    status.models.clone_from(&self.catalog.models);
                }
                if status.rejected != self.catalog.rejected {
                    status.rejected.clone_from(&self.catalog.rejected);
                }
                status.default = self.setup.default_model(&status.models);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests;
