//! Every policy of the engine: admit, load, unload, retry, back off, drain. Pure: [`State::step`]
//! takes an input and the time and returns what is to be done; the driver does it.
//!
//! ```text
//!            Submit                 Loaded
//!    None ───────────▶ Starting ───────────────▶ Ready ──┐ Send, while slots are free
//!     ▲                   │ LoadFailed, too late   │  ▲──┘ and the next job wants this model
//!     │                   ▼                        │ another model is wanted, Unload, Drain,
//!     └───────────────  Ending ◀───────────────────┘ idle for long, EndWhenIdle: once nothing runs
//!        Exited                                      GiveUp: at once
//! ```
//!
//! A death that nobody asked for leads to None from anywhere. Jobs that had said nothing are
//! retried once; workers that die before they have said anything are started again with growing
//! pauses. A model that ran out of memory is loaded one step smaller for a while. A job that left
//! the choice of its model to us gets another one when its own cannot be loaded, or has no room
//! (`fallback`).

mod action;
mod backoff;
mod dispatch;
mod downsizing;
mod fallback;
mod input;
mod retry;
mod stall;
mod worker;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::queue::{Full, Job, Queue};
use crate::backend::Failure;
pub use action::Action;
use backoff::Backoff;
use downsizing::Downsizing;
pub use input::Input;
use retry::{DEATHS_PER_JOB, Exit, Running};
use stall::{Opening, Stalls};
use worker::{END_TIME, Phase, Ready, Worker};

/// The advice given with "the queue is full".
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Texts that are asked of the worker at the same time; it has room for more.
const TEXTS: usize = 16;
/// A model that was loaded keeps its turn so many times as long as that took, so that requests for
/// different models in any order cost at most a fifth of the time in loads. Those of other models
/// wait no longer than the bound.
const TURN: u32 = 4;
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// What the policies are set to.
#[derive(Clone, Debug)]
pub struct Settings {
    pub queue: u32,
    pub queue_per_user: u32,
    pub request_time: Duration,
    pub load_time: Duration,
    /// How long a worker may have nothing to do; `None`: for ever.
    pub idle_unload: Option<Duration>,
    /// After how long without anything to do it gives back what it can; `None`: never.
    pub idle_release: Option<Duration>,
}

/// Tells one worker from the next.
pub type Generation = u64;

/// What the outside may know.
#[derive(Debug, PartialEq, Eq)]
pub enum Life<'a> {
    None,
    Starting(&'a str),
    Ready(&'a str),
    Ending(&'a str),
    BackingOff { cause: &'a str, until: Instant },
    Draining,
}

/// The engine's whole state.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    worker: Option<Worker>,
    queue: Queue,
    running: BTreeMap<u64, Running>,
    backoff: Option<Backoff>,
    downsizing: Downsizing,
    stalls: Stalls,
    unload_wanted: bool,
    end_wanted: bool,
    /// Why this worker was given up.
    given_up: Option<String>,
    drain: Option<Instant>,
    next_generation: Generation,
}

impl State {
    pub fn new(settings: Settings) -> Self {
        let queue = Queue::new(settings.queue, settings.queue_per_user);
        Self {
            settings,
            worker: None,
            queue,
            running: BTreeMap::new(),
            backoff: None,
            downsizing: Downsizing::default(),
            stalls: Stalls::default(),
            unload_wanted: false,
            end_wanted: false,
            given_up: None,
            drain: None,
            next_generation: 1,
        }
    }

    /// Goes by other settings from the next step on.
    pub fn configure(&mut self, settings: Settings) {
        self.queue
            .set_limits(settings.queue, settings.queue_per_user);
        self.settings = settings;
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The worker that is being started.
    pub fn starting_generation(&self) -> Option<Generation> {
        let worker = self.worker.as_ref().filter(|worker| worker.is_starting());
        worker.map(|worker| worker.generation)
    }

    pub fn life(&self) -> Life<'_> {
        let Some(worker) = &self.worker else {
            return match self.paused() {
                _ if self.drain.is_some() => Life::Draining,
                Some((cause, until)) => Life::BackingOff { cause, until },
                None => Life::None,
            };
        };
        match worker.phase {
            _ if self.drain.is_some() => Life::Draining,
            Phase::Starting { .. } => Life::Starting(&worker.model),
            Phase::Ready(_) => Life::Ready(&worker.model),
            Phase::Ending { .. } => Life::Ending(&worker.model),
        }
    }

    /// Why no worker is started now, and until when.
    fn paused(&self) -> Option<(&str, Instant)> {
        self.backoff
            .as_ref()
            .and_then(|backoff| Some((backoff.cause.as_str(), backoff.pause?)))
    }

    /// When [`Input::Tick`] is due at the latest, if nothing else happens.
    pub fn next_tick(&self) -> Option<Instant> {
        let mut opening = None;
        let worker = match self.worker.as_ref().map(|worker| &worker.phase) {
            Some(Phase::Starting {
                deadline,
                opening: of_files,
                ..
            }) => {
                opening = of_files.as_ref().and_then(Opening::next_tick);
                Some(*deadline)
            }
            Some(Phase::Ending { deadline }) => Some(*deadline),
            None => self.paused().map(|(_, until)| until),
            Some(Phase::Ready(Ready { idle, trimmed, .. })) => {
                let limits = [
                    self.settings.idle_unload,
                    self.settings.idle_release.filter(|_| !trimmed),
                ];
                idle.zip(limits.into_iter().flatten().min())
                    .map(|(since, limit)| since + limit)
            }
        };
        let running = self.running.values().map(|r| r.job.deadline).min();
        let stalled = self
            .queue
            .iter()
            .filter_map(|job| self.stalls.deadline(&job.model))
            .min();
        let waiting = self.queue.first_deadline();
        [worker, opening, running, stalled, waiting, self.drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(backoff) = &mut self.backoff {
            backoff.pause = backoff.pause.filter(|until| *until > now);
        }
        self.take(now, input, &mut actions);
        self.expire(now, &mut actions);
        self.dispatch(now, &mut actions);
        let is_idle = self.running.is_empty() && self.queue.is_empty();
        if let Some(Worker {
            phase: Phase::Ready(ready),
            ..
        }) = &mut self.worker
        {
            ready.idle = ready.idle.or(Some(now)).filter(|_| is_idle);
            ready.trimmed &= is_idle;
        }
        actions
    }

    /// What an input alone changes.
    fn take(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Submit {
                id,
                owner,
                model,
                flexible,
                kind,
            } => {
                let job = Job {
                    id,
                    owner,
                    model,
                    flexible,
                    choosing: false,
                    kind,
                    deadline: now + self.settings.request_time,
                    deaths: 0,
                };
                self.submit(now, job, actions);
            }
            Input::Chosen { id, model } => self.chosen(id, model, actions),
            Input::Refused { id, failure } => {
                self.refuse(true, &failure, actions, |job| job.id == id)
            }
            Input::HangUp { id } => self.hang_up(id, actions),
            Input::Unload => self.unload(now, actions),
            Input::Opening { generation, file } => self.opening(now, generation, file),
            Input::Opened { model } => self.opened(&model),
            Input::Loaded { generation, slots } => self.loaded(now, generation, slots),
            Input::LoadFailed {
                generation,
                failure,
                out_of_memory,
            } => {
                self.load_failed(now, generation, &failure, out_of_memory, actions);
            }
            Input::Begun { id } => self.begun(id),
            Input::Ended { id } => drop(self.running.remove(&id)),
            Input::Exited {
                generation,
                cause,
                out_of_memory,
            } => {
                let exit = Exit {
                    cause,
                    of_memory: out_of_memory,
                };
                self.exited(now, generation, exit, actions);
            }
            Input::EndWhenIdle(wanted) => {
                self.end_wanted = wanted
                    && self
                        .worker
                        .as_ref()
                        .is_some_and(|worker| matches!(worker.phase, Phase::Ready(_)))
            }
            Input::GiveUp { cause } => self.give_up(cause, actions),
            Input::Drain { deadline } => self.start_drain(deadline, actions),
            Input::Tick => {}
        }
    }

    fn submit(&mut self, now: Instant, job: Job, actions: &mut Vec<Action>) {
        let id = job.id;
        let refuse = |failure| Action::Fail { id, failure };
        if self.drain.is_some() {
            return actions.push(refuse(Failure::ShuttingDown));
        }
        if let Some((cause, until)) = self.paused() {
            return actions.push(refuse(Failure::BackingOff {
                cause: cause.to_owned(),
                retry_after: until - now,
            }));
        }
        match self.queue.push(job) {
            Ok(()) => {}
            Err(Full::Total) => {
                actions.push(refuse(Failure::QueueFull {
                    limit: self.settings.queue,
                    retry_after: RETRY_AFTER,
                }));
            }
            Err(Full::User) => {
                actions.push(refuse(Failure::UserQueueFull {
                    limit: self.settings.queue_per_user,
                    retry_after: RETRY_AFTER,
                }));
            }
        }
    }

    fn hang_up(&mut self, id: u64, actions: &mut Vec<Action>) {
        if self.running.remove(&id).is_some() {
            actions.push(Action::Cancel { id });
        } else {
            self.queue.extract(|job| job.id == id);
        }
    }

    fn unload(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(worker) = &mut self.worker else {
            return actions.push(Action::Unloaded);
        };
        if worker.is_starting() {
            // Nothing runs in it yet: no reason to wait for its model.
            actions.push(Action::Kill {
                generation: worker.generation,
            });
            worker.end(now);
        }
        self.unload_wanted = true;
    }

    /// The worker of this generation, if it is still being started.
    fn starting(&mut self, of: Generation) -> Option<&mut Worker> {
        self.worker
            .as_mut()
            .filter(|worker| worker.generation == of && worker.is_starting())
    }

    fn loaded(&mut self, now: Instant, of: Generation, slots: u32) {
        if let Some(worker) = self.starting(of)
            && let Phase::Starting { since, .. } = worker.phase
        {
            worker.phase = Phase::Ready(Ready {
                slots,
                turn: now + ((now - since) * TURN).min(LONGEST_TURN),
                idle: None,
                trimmed: false,
            });
            let model = worker.model.clone();
            self.stalls.forget(&model);
        }
    }

    fn load_failed(
        &mut self,
        now: Instant,
        of: Generation,
        failure: &Failure,
        out_of_memory: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(worker) = self.starting(of) else {
            return;
        };
        worker.end(now);
        let model = worker.model.clone();
        self.stalls.forget(&model);
        if out_of_memory {
            self.downsizing.step(now, &model);
            self.count_death(&model);
        }
        self.refuse(true, failure, actions, |job| {
            job.model == model && (!out_of_memory || job.deaths >= DEATHS_PER_JOB)
        });
    }

    /// A worker died under those that wait for its model.
    fn count_death(&mut self, model: &str) {
        self.queue
            .iter_mut()
            .filter(|job| job.model == model)
            .for_each(|job| job.deaths += 1);
    }

    fn begun(&mut self, id: u64) {
        if let Some(running) = self.running.get_mut(&id) {
            running.begun = true;
            // A worker that answers is a worker that works.
            self.backoff = None;
        }
    }

    fn exited(&mut self, now: Instant, of: Generation, exit: Exit, actions: &mut Vec<Action>) {
        let Some(worker) = self.worker.take_if(|worker| worker.generation == of) else {
            return;
        };
        let exit = match self.given_up.take() {
            Some(cause) => Exit {
                cause,
                of_memory: true,
            },
            None => exit,
        };
        self.end_wanted = false;
        if std::mem::take(&mut self.unload_wanted) {
            actions.push(Action::Unloaded);
        }
        let lost = std::mem::take(&mut self.running);
        if worker.is_ending() {
            return;
        }
        if exit.of_memory {
            self.downsizing.step(now, &worker.model);
        }
        let silent = !lost.values().any(|running| running.begun);
        let failure = exit.failure();
        let (again, fail) = retry::split(lost.into_values(), &exit, self.drain.is_some());
        for id in fail {
            actions.push(Action::Fail {
                id,
                failure: failure.clone(),
            });
        }
        again.into_iter().for_each(|job| self.queue.push_front(job));
        if worker.is_starting() {
            self.count_death(&worker.model);
        }
        self.refuse(exit.of_memory, &failure, actions, |job| {
            job.deaths >= DEATHS_PER_JOB
        });
        if silent {
            self.backoff = Some(Backoff::after(self.backoff.take(), now, exit.cause));
        }
    }

    /// Memory has run out: better this worker than a program that the kernel chooses. What it was
    /// doing is lost once it is gone; until then something of it may still arrive.
    fn give_up(&mut self, cause: String, actions: &mut Vec<Action>) {
        if let Some(worker) = self.worker.as_ref().filter(|worker| !worker.is_ending()) {
            actions.push(Action::Kill {
                generation: worker.generation,
            });
            self.given_up = Some(cause);
        }
    }

    fn start_drain(&mut self, deadline: Instant, actions: &mut Vec<Action>) {
        self.drain = Some(deadline);
        for job in self.queue.extract(|_| true) {
            actions.push(Action::Fail {
                id: job.id,
                failure: Failure::ShuttingDown,
            });
        }
    }

    /// Ends what has taken too long.
    fn expire(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let limit = self.settings.request_time;
        for job in self.queue.extract(|job| job.deadline <= now) {
            actions.push(Action::Fail {
                id: job.id,
                failure: Failure::TimedOut { limit },
            });
        }
        self.expire_stalls(now, actions);
        let drained = self.drain.is_some_and(|deadline| deadline <= now);
        let late: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, r)| drained || r.job.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.running.remove(&id);
            let failure = if drained {
                Failure::ShuttingDown
            } else {
                Failure::TimedOut { limit }
            };
            actions.push(Action::Cancel { id });
            actions.push(Action::Fail { id, failure });
        }
        self.expire_worker(now, actions);
    }

    fn expire_worker(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        let generation = worker.generation;
        match &mut worker.phase {
            Phase::Starting { deadline, .. } if *deadline <= now => {
                let reason = format!(
                    "it was not loaded within {} s (`load-time` in gemmad.toml)",
                    self.settings.load_time.as_secs()
                );
                let failure = Failure::BadModel {
                    model: worker.model.clone(),
                    reason,
                };
                self.load_failed(now, generation, &failure, false, actions);
                actions.push(Action::Kill { generation });
            }
            Phase::Ending { deadline } if *deadline <= now => {
                actions.push(Action::Kill { generation });
                *deadline = now + END_TIME;
            }
            Phase::Ready(ready) if !ready.trimmed => {
                ready.trimmed = ready.is_idle_for(now, self.settings.idle_release);
                actions.extend(ready.trimmed.then_some(Action::Trim));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
