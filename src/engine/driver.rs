//! The one task that performs what `state` decides, and the only one that touches the worker.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::budget::Budget;
use super::cache::CacheTurns;
use super::child::{self, Child, Notice};
use super::choice::{self, ModelRequest, Placement};
use super::launch::{Launch, PackedPlace};
use super::live::Live;
use super::look::Looks;
use super::memory_policy::Step;
use super::queue::Kind;
use super::relief::Relief;
use super::shelf::Shelf;
use super::state::{Action, Generation, Input, Life, State};
use super::status::template_note;
use super::{
    Answer, Command, EVENTS, Failure, HangUpGuard, ModelInfo, Phase, PlanReport, Settings, Setup,
    Status,
};
use crate::chat::{Modalities, PrincipalId, TextTask};
use crate::ipc::{LoadedModel, Packing, ToWorker};
use crate::store::BadFile;

mod notices;

/// Notices from the worker that wait for the driver; past this the worker's writes wait.
pub const NOTICES: usize = 256;

/// See the module's text.
pub(super) struct Driver {
    setup: Setup,
    state: State,
    live: HashMap<u64, Live>,
    /// The id of the last request.
    last_id: u64,
    child: Option<Child>,
    loaded: Option<LoadedModel>,
    shelf: Shelf,
    /// Where the worker's packed weights come from and go to.
    packed: Option<PackedPlace>,
    looks: Looks,
    relief: Relief,
    cache_turns: CacheTurns,
    unloads: Vec<oneshot::Sender<Result<(), Failure>>>,
    drains: Vec<oneshot::Sender<()>>,
    served: u64,
    crashes: u64,
    tokens_per_second: f64,
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
        shelf: Shelf,
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
            shelf,
            packed: None,
            looks: Looks::default(),
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
                    Some(command) => self.command(command).await,
                    None => return,
                },
                () = self.relief.due() => self.relieve(),
                () = self.shelf.changed() => self.rescan().await,
                () = sleep => self.step(Input::Tick),
            }
            self.publish();
            if self.drains.is_empty()
                && matches!(self.state.life(), Life::Draining)
                && self.child.is_none()
            {
                return;
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Chat {
                owner,
                model,
                request,
                reply,
            } => {
                let wish = match self.find(&model, request.modalities()).await {
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
                let wish = match self.find(&model, modalities).await {
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
                let (model, wish) = match self.find(&model, Modalities::default()).await {
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
                let found = self.find(&name, Modalities::default()).await;
                let _ = reply.send(found.map(|(model, _)| model));
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
                self.cache_turns
                    .ask(self.setup.cache(), self.packed_in_use(), clear, reply);
            }
            Command::Plan {
                context,
                ram,
                reply,
            } => {
                let _ = reply.send(Ok(PlanReport::new(
                    &self.setup,
                    &self.shelf.models,
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
                } = *settings;
                (self.setup.models, self.setup.inference) = (models, inference);
                (self.setup.memory, self.setup.limits) = (memory, limits);
                self.state.configure(self.setup.state_settings());
                self.rescan().await;
                self.status.send_modify(|status| {
                    status
                        .directories
                        .clone_from(&self.setup.models.directories);
                    status.default = self.setup.default_model(&self.shelf.models);
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
        let in_file = matches!(
            self.loaded.as_ref()?.packing,
            Packing::Reused | Packing::New { .. }
        );
        self.packed
            .as_ref()
            .filter(|_| in_file)
            .map(|place| place.name().as_str().to_owned())
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

    /// The installed model that a client means, after a second look at the directories if need be.
    async fn find(
        &mut self,
        name: &str,
        modalities: Modalities,
    ) -> Result<(ModelInfo, ModelRequest), Failure> {
        match self.resolve(name, modalities) {
            Err(Failure::UnknownModel { .. } | Failure::NoModels { .. })
                if self.shelf.may_have_more() => {}
            result => return result,
        }
        self.rescan().await;
        self.publish();
        self.resolve(name, modalities)
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
        let models = &self.shelf.models;
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
                .choose_less(&self.shelf.models, live.wish(), budget, failure)?;
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

    async fn rescan(&mut self) {
        self.shelf = Shelf::look(self.setup.models.directories.clone()).await;
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
        if let Some(child) = &self.child {
            self.tell(child, ToWorker::Ease);
        }
    }

    fn with_child(&mut self, generation: Generation, act: impl FnOnce(&mut Child)) {
        if let Some(child) = self
            .child
            .as_mut()
            .filter(|child| child.generation == generation)
        {
            act(child);
        }
    }

    fn tell(&self, child: &Child, message: ToWorker) {
        if !child.send(message) {
            tracing::error!(
                pid = child.pid,
                "the worker does not read its messages; killing it"
            );
            child.kill();
        }
    }

    /// Returns for whom this worker is none.
    fn spawn(&mut self, generation: Generation, model: &str, smaller: u32) -> Vec<Input> {
        // What goes wrong here reaches the state through the same door as what goes wrong later, so
        // that the state alone decides what follows.
        let Some(info) = self.shelf.models.iter().find(|m| m.id == model).cloned() else {
            let failure = Failure::BadModel {
                model: model.to_owned(),
                reason: "it is no longer installed".into(),
            };
            self.not_spawned(generation, Some(failure));
            return vec![];
        };
        let prepared = self.fit(&info, smaller).and_then(|(run, refused)| {
            let launch = Launch::prepare(&self.setup, &info, &run);
            let bad = |bad: BadFile| Failure::BadModel {
                model: model.to_owned(),
                reason: bad.to_string(),
            };
            launch.map(|launch| (launch, refused)).map_err(bad)
        });
        let (
            Launch {
                plan,
                files,
                packed,
            },
            refused,
        ) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                self.not_spawned(generation, Some(failure));
                return vec![];
            }
        };
        let files: Vec<&File> = files.iter().collect();
        self.packed = packed;
        tracing::info!(model, file = %info.path.display(), context = plan.context, slots = plan.slots, smaller, cpus = ?plan.cpus, "starting a worker");
        self.relief.started();
        match child::spawn(
            &self.setup.worker,
            generation,
            ToWorker::Load(Box::new(plan)),
            &files,
            self.notices.clone(),
        ) {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                tracing::error!(worker = %self.setup.worker.display(), %error, "the worker cannot be started");
                self.not_spawned(generation, None);
            }
        }
        refused
    }

    /// How a model is run for those that wait for it. Where there is no room for its projector it
    /// is run for those that can do without, and refused to the others.
    fn fit(&self, model: &ModelInfo, smaller: u32) -> Result<(Placement, Vec<Input>), Failure> {
        let waiting = || {
            self.live
                .iter()
                .filter(|(_, live)| live.wish().model == model.id)
        };
        let modalities = waiting().fold(Modalities::default(), |all, (_, live)| {
            all.with(live.wish().modalities)
        });
        let fit = |modalities| {
            self.setup
                .fit(model, &self.shelf.models, smaller, modalities)
        };
        fit(modalities).map(|run| (run, vec![])).or_else(|failure| {
            let (needy, others): (Vec<_>, Vec<_>) =
                waiting().partition(|(_, live)| live.wish().modalities.any());
            if needy.is_empty() || others.is_empty() {
                return Err(failure);
            }
            let refused = needy
                .iter()
                .map(|(id, _)| Input::Refused {
                    id: **id,
                    failure: failure.clone(),
                })
                .collect();
            fit(Modalities::default()).map(|run| (run, refused))
        })
    }

    /// A worker that never was: reported like one that came to its end.
    fn not_spawned(&mut self, generation: Generation, failure: Option<Failure>) {
        let notices = self.notices.clone();
        let cause = format!("{} cannot be started", self.setup.worker.display());
        // Not at once: the step that asked for the worker is still being performed.
        tokio::spawn(async move {
            if let Some(failure) = failure {
                let _ = notices
                    .send((generation, Notice::NotStarted(failure)))
                    .await;
            }
            let _ = notices
                .send((
                    generation,
                    Notice::Exited {
                        cause,
                        taken: false,
                    },
                ))
                .await;
        });
    }

    fn send(&mut self, id: u64) {
        if let (Some(message), Some(child)) = (
            self.live.get(&id).and_then(|live| live.message(id)),
            &self.child,
        ) {
            self.tell(child, message);
        }
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        self.served += 1;
        if let Some(live) = self.live.remove(&id) {
            live.fail(failure);
        }
    }

    fn publish(&mut self) {
        let phase = match self.state.life() {
            Life::None => Phase::Cold,
            Life::Starting(model) => Phase::Loading {
                model: model.into(),
            },
            Life::Ending(model) => Phase::Unloading {
                model: model.into(),
            },
            Life::BackingOff { cause, until } => Phase::BackingOff {
                cause: cause.into(),
                until,
            },
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
                _ => Phase::Loading {
                    model: model.into(),
                },
            },
        };
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
                || status.models != self.shelf.models;
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
                if status.models != self.shelf.models {
                    status.models.clone_from(&self.shelf.models);
                }
                status.default = self.setup.default_model(&status.models);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests;
