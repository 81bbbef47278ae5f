//! The one task that performs what `state` decides, and the only one that touches the worker.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::budget::Budget;
use super::cache::CacheTurns;
use super::catalog_watch::{CatalogWatch, ScanReport};
use super::child::{Child, WorkerEvent};
use super::choice::Placement;
use super::estimates::Estimates;
use super::growth::Growth;
use super::launch::{ModelFiles, PackedPlace};
use super::memory_guard::MemoryGuard;
use super::memory_policy::Step;
use super::pending::Pending;
use super::report::Reporter;
use super::state::{Action, Generation, Input, Life, State};
use super::{Command, EVENTS, Setup, describe};
use crate::backend::{Failure, Status};
use crate::chat::Drafted;
use crate::ipc::{LoadedModel, Serve, ServeEvent, ServeRequest};
use crate::store::{BadFile, Model};
use waiting::Load;

mod commands;
mod events;
mod keep;
mod publish;
mod spawn;
mod waiting;

/// Events of the worker that wait for the driver; past this the worker's writes wait.
pub const WORKER_EVENTS: usize = 256;

/// See the module's text.
pub(super) struct Driver {
    setup: Setup,
    state: State,
    pending: HashMap<u64, Pending>,
    /// The id of the last request.
    last_id: u64,
    worker: Option<RunningWorker>,
    catalog: CatalogWatch,
    /// Commands that name an unknown model, until the directories have been scanned again.
    unresolved: Vec<Command>,
    /// The worker that waits for its model's files.
    starting: Option<Start>,
    /// The models whose files are being opened, for a worker or for one that was given up since:
    /// one thread for each, however long their disks take.
    opening: BTreeSet<String>,
    disk: mpsc::UnboundedSender<OpenedFiles>,
    memory_guard: MemoryGuard,
    cache_turns: CacheTurns,
    unloads: Vec<oneshot::Sender<Result<(), Failure>>>,
    drains: Vec<oneshot::Sender<()>>,
    served: u64,
    crashes: u64,
    tokens_per_second: f64,
    drafted: Drafted,
    load: Load,
    estimates: Estimates,
    hang_ups: mpsc::UnboundedSender<u64>,
    worker_events: mpsc::Sender<(Generation, WorkerEvent<ServeEvent>)>,
    status: watch::Sender<Status>,
}

/// A worker process, and what is known of it.
struct RunningWorker {
    /// Its model as it was when its files were opened.
    model: Model,
    /// The model's file has changed: the worker ends once it is idle.
    is_outdated: bool,
    child: Child<Serve>,
    /// `None` until its model is loaded.
    loaded: Option<LoadedModel>,
    /// Where its packed weights come from and go to.
    packed: Option<PackedPlace>,
    reporter: Reporter,
    growth: Growth,
    /// Tokens of context that all its slots may hold together.
    granted: u64,
}

/// A worker that waits for its model's files.
struct Start {
    generation: Generation,
    model: Model,
    run: Placement,
    /// Steps that it is smaller by than it could be.
    downsized: u32,
    /// How often the system had nothing left for it.
    shortages: u32,
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
    pub worker_events: mpsc::Receiver<(Generation, WorkerEvent<ServeEvent>)>,
}

impl Driver {
    pub(super) fn new(
        setup: Setup,
        catalog: CatalogWatch,
        disk: mpsc::UnboundedSender<OpenedFiles>,
        hang_ups: mpsc::UnboundedSender<u64>,
        worker_events: mpsc::Sender<(Generation, WorkerEvent<ServeEvent>)>,
        status: watch::Sender<Status>,
    ) -> Self {
        let state = State::new(setup.state_settings());
        let memory_guard = MemoryGuard::new(setup.reserved.clone());
        Self {
            setup,
            state,
            pending: HashMap::new(),
            last_id: 0,
            worker: None,
            catalog,
            unresolved: vec![],
            starting: None,
            opening: BTreeSet::new(),
            disk,
            memory_guard,
            cache_turns: CacheTurns::default(),
            unloads: vec![],
            drains: vec![],
            served: 0,
            crashes: 0,
            tokens_per_second: 0.0,
            drafted: Drafted::default(),
            load: Load::begin(),
            estimates: Estimates::default(),
            hang_ups,
            worker_events,
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
                Some((generation, event)) = inbox.worker_events.recv() => self.worker_event(generation, event),
                command = inbox.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.memory_guard.due() => self.check_memory(),
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
            self.tell_waiting();
            if self.drains.is_empty()
                && matches!(self.state.life(), Life::Draining)
                && self.worker.is_none()
            {
                return;
            }
        }
    }

    /// Another model for a job whose own cannot be had, or why there is none.
    fn choose(&mut self, id: u64, failure: Failure, budget: &Budget) -> Result<String, Failure> {
        // A client that was told which model answers keeps that model.
        let Some(pending) = self
            .pending
            .get_mut(&id)
            .filter(|pending| !pending.is_settled())
        else {
            return Err(failure);
        };
        // No other model's worker would be started either.
        if matches!(failure, Failure::NotNow { .. }) {
            return Err(failure);
        }
        let reason = failure.to_string();
        let (model, request) =
            self.setup
                .choose_another(&self.catalog.models, pending.wanted(), budget, failure)?;
        tracing::info!(
            request = id,
            model = pending.wanted().model,
            instead = model.id,
            reason,
            "another model is chosen"
        );
        let chosen = model.id.clone();
        pending.reassign(model, request);
        Ok(chosen)
    }

    fn hang_up(&mut self, id: u64) {
        if self.pending.remove(&id).is_some() {
            self.step(Input::HangUp { id });
        }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        // One reading of the free memory, so that all jobs that waited for one model get the same
        // other one.
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
                downsized,
            } => {
                self.load = Load::begin();
                return self.spawn(generation, &model, downsized);
            }
            Action::Choose { id, failure } => {
                let budget = budget.get_or_insert_with(|| self.setup.budget());
                return vec![Input::Chosen {
                    id,
                    model: self.choose(id, failure, budget),
                }];
            }
            Action::Trim => {
                tracing::info!("memory: the worker has nothing to do and gives back what it can");
                self.trim();
            }
            Action::End { generation } => self.end(generation, Child::end),
            Action::Kill { generation } => self.end(generation, |child| child.kill()),
            Action::AskBeat => self.tell(ServeRequest::Beat),
            Action::KillSilent {
                generation,
                what,
                silence,
            } => {
                let worker = self.worker.as_ref();
                tracing::error!(
                    model = worker.map(|worker| worker.model.id.as_str()),
                    silence_s = silence.as_secs(),
                    "the worker has something to do, and {what} does nothing; killing it"
                );
                self.with_child(generation, |child| child.kill());
            }
            Action::Send { id } => return self.send(id),
            Action::Cancel { id } => {
                self.tell(ServeRequest::Cancel { id });
            }
            Action::Fail { id, failure } => self.fail(id, failure),
            Action::LoadDone { id } => {
                if let Some(Pending::Load { model, reply, .. }) = self.pending.remove(&id) {
                    let _ = reply.send(Ok(describe(&model)));
                }
            }
            // The clients that asked may be gone.
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

    /// Checks how much memory is free, and does what that calls for.
    fn check_memory(&mut self) {
        let idle = self.state.running() + self.state.waiting() == 0;
        match self.memory_guard.check(idle) {
            Some((Step::Trim, _)) => self.trim(),
            Some((Step::EndAttachments, _)) => {
                self.setup.reserved.revoke();
            }
            Some((Step::EndWhenIdle, _)) => self.step(Input::EndWhenIdle(true)),
            Some((Step::EndNow, cause)) => self.step(Input::GiveUp { cause }),
            Some((Step::GoOn, _)) => self.step(Input::EndWhenIdle(false)),
            None => {}
        }
    }

    /// Has the worker give back what it can.
    fn trim(&mut self) {
        self.tell(ServeRequest::Trim);
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
        if let Some(RunningWorker { child, model, .. }) = &self.worker
            && !child.send(request)
        {
            tracing::error!(
                model = model.id,
                pid = child.pid,
                "the worker does not read its messages; killing it"
            );
            child.kill();
        }
    }

    fn send(&mut self, id: u64) -> Vec<Input> {
        if let Some(pending) = self.pending.get_mut(&id)
            && !pending.restart()
        {
            self.fail(id, Failure::ClientStalled { unread: EVENTS });
            return vec![Input::HangUp { id }];
        }
        let now = self.setup.prompts.now();
        let pending = self.pending.get(&id);
        if let Some(request) = pending.and_then(|pending| pending.message(id, now)) {
            self.tell(request);
        }
        vec![]
    }

    fn fail(&mut self, id: u64, failure: Failure) {
        self.served += 1;
        if let Some(pending) = self.pending.remove(&id) {
            pending.fail(failure);
        }
    }
}

#[cfg(test)]
mod tests;
