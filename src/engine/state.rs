//! Every policy of the engine: admit, load, unload, retry, back off, drain. Pure: [`State::step`]
//! takes an input and the time and returns what is to be done; the driver does it.
//!
//! ```text
//!            Submit                 Loaded
//!    None ───────────▶ Starting ───────────────▶ Ready ──┐ Send, while slots are free
//!     ▲                   │ LoadFailed, too late   │  ▲──┘ and the next job wants this model
//!     │                   ▼                        │ another model is wanted, Unload, Drain,
//!     └───────────────  Ending ◀───────────────────┘ idle for long, Shrink: once nothing runs
//!        Exited                                      GiveUp: at once
//! ```
//!
//! A death that nobody asked for leads to None from anywhere. Jobs that had said nothing are
//! retried once; workers that die before they have said anything are started again with growing
//! pauses. A model that ran out of memory is loaded one step smaller for a while. A job that left
//! the choice of its model to us gets another one when its own cannot be loaded, or has no room
//! (`choosing`).

mod action;
mod choosing;
mod pump;
mod smaller;
mod trouble;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Failure;
use super::queue::{Full, Job, Kind, Queue};
use crate::chat::PrincipalId;
pub use action::Action;
use smaller::Smaller;
use trouble::Trouble;

/// How long a worker may take to exit after its socket was closed.
const END_TIME: Duration = Duration::from_secs(5);
/// The advice given with "the queue is full".
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Texts that are asked of the worker at the same time; it has room for more.
const TEXTS: usize = 16;
/// A model that was loaded keeps its turn so many times as long as that took, so that requests for
/// different models in any order cost at most a fifth of the time in loads. Those of other models
/// wait no longer than the bound.
const TURN: u32 = 4;
const LONGEST_TURN: Duration = Duration::from_secs(30);
/// Workers that may die under a job before the job is given up.
const DEATHS_PER_JOB: u32 = 2;

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

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Legal always. `model` is an installed model's id; `open`: another will do if that one cannot
    /// be had.
    Submit {
        id: u64,
        owner: PrincipalId,
        model: String,
        open: bool,
        kind: Kind,
    },
    /// Another model's id for a job, or why there is none; answers [`Action::Choose`]. It takes
    /// less than the one before.
    Chosen {
        id: u64,
        model: Result<String, Failure>,
    },
    /// The worker that is being started for its model is none for this job; legal for one that
    /// waits.
    Refused { id: u64, failure: Failure },
    /// The client left; legal always.
    HangUp { id: u64 },
    /// Legal always; answered by [`Action::Unloaded`].
    Unload,
    /// `slots` requests at once are what this worker takes.
    Loaded { generation: Generation, slots: u32 },
    /// The model's file is at fault, or there is no room for it; the worker is not. Out of memory:
    /// less of it may do.
    LoadFailed {
        generation: Generation,
        failure: Failure,
        out_of_memory: bool,
    },
    /// The first piece of an answer went to its client.
    Begun { id: u64 },
    /// The answer's end went to its client.
    Ended { id: u64 },
    /// The worker is gone, however it went. `out_of_memory`: the kernel took it.
    Exited {
        generation: Generation,
        cause: String,
        out_of_memory: bool,
    },
    /// Memory is short: the worker ends once it is idle (`true`), or may go on after all. Legal
    /// always; for a loaded one.
    Shrink(bool),
    /// Memory has run out: the worker ends now. Legal always.
    GiveUp { cause: String },
    /// No more requests; what runs has until `deadline`.
    Drain { deadline: Instant },
    /// Time passed; legal always.
    Tick,
}

#[derive(Debug)]
enum Worker {
    None,
    Starting {
        generation: Generation,
        model: String,
        since: Instant,
        deadline: Instant,
    },
    /// `turn`: until when what waits for its model goes before what waits for others. `idle`: since
    /// when it has had nothing to do. `eased`: it has given back what it can since then.
    Ready {
        generation: Generation,
        model: String,
        slots: u32,
        turn: Instant,
        idle: Option<Instant>,
        eased: bool,
    },
    Ending {
        generation: Generation,
        model: String,
        deadline: Instant,
    },
}

#[derive(Debug)]
struct Running {
    job: Job,
    /// Something of the answer has reached the client.
    begun: bool,
}

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
    worker: Worker,
    queue: Queue,
    running: BTreeMap<u64, Running>,
    trouble: Option<Trouble>,
    smaller: Smaller,
    unload_wanted: bool,
    shrink_wanted: bool,
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
            worker: Worker::None,
            queue,
            running: BTreeMap::new(),
            trouble: None,
            smaller: Smaller::default(),
            unload_wanted: false,
            shrink_wanted: false,
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

    pub fn life(&self) -> Life<'_> {
        match (&self.worker, self.paused()) {
            _ if self.drain.is_some() => Life::Draining,
            (Worker::None, Some((cause, until))) => Life::BackingOff { cause, until },
            (Worker::None, None) => Life::None,
            (Worker::Starting { model, .. }, _) => Life::Starting(model),
            (Worker::Ready { model, .. }, _) => Life::Ready(model),
            (Worker::Ending { model, .. }, _) => Life::Ending(model),
        }
    }

    /// Why no worker is started now, and until when.
    fn paused(&self) -> Option<(&str, Instant)> {
        self.trouble
            .as_ref()
            .and_then(|trouble| Some((trouble.cause.as_str(), trouble.pause?)))
    }

    /// When [`Input::Tick`] is due at the latest, if nothing else happens.
    pub fn next_tick(&self) -> Option<Instant> {
        let worker = match &self.worker {
            Worker::Starting { deadline, .. } | Worker::Ending { deadline, .. } => Some(*deadline),
            Worker::None => self.paused().map(|(_, until)| until),
            Worker::Ready { idle, eased, .. } => {
                let limits = [
                    self.settings.idle_unload,
                    self.settings.idle_release.filter(|_| !eased),
                ];
                idle.zip(limits.into_iter().flatten().min())
                    .map(|(since, limit)| since + limit)
            }
        };
        let running = self.running.values().map(|r| r.job.deadline).min();
        [worker, running, self.queue.first_deadline(), self.drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(trouble) = &mut self.trouble {
            trouble.pause = trouble.pause.filter(|until| *until > now);
        }
        match input {
            Input::Submit {
                id,
                owner,
                model,
                open,
                kind,
            } => {
                let job = Job {
                    id,
                    owner,
                    model,
                    open,
                    choosing: false,
                    kind,
                    deadline: now + self.settings.request_time,
                    deaths: 0,
                };
                self.submit(now, job, &mut actions);
            }
            Input::Chosen { id, model } => self.chosen(id, model, &mut actions),
            Input::Refused { id, failure } => {
                self.refuse(true, &failure, &mut actions, |job| job.id == id)
            }
            Input::HangUp { id } => self.hang_up(id, &mut actions),
            Input::Unload => self.unload(now, &mut actions),
            Input::Loaded { generation, slots } => self.loaded(now, generation, slots),
            Input::LoadFailed {
                generation,
                failure,
                out_of_memory,
            } => {
                self.load_failed(now, generation, &failure, out_of_memory, &mut actions);
            }
            Input::Begun { id } => self.begun(id),
            Input::Ended { id } => drop(self.running.remove(&id)),
            Input::Exited {
                generation,
                cause,
                out_of_memory,
            } => self.exited(now, generation, cause, out_of_memory, &mut actions),
            Input::Shrink(wanted) => {
                self.shrink_wanted = wanted && matches!(self.worker, Worker::Ready { .. })
            }
            Input::GiveUp { cause } => self.give_up(cause, &mut actions),
            Input::Drain { deadline } => self.start_drain(deadline, &mut actions),
            Input::Tick => {}
        }
        self.expire(now, &mut actions);
        self.pump(now, &mut actions);
        if let Worker::Ready { idle, eased, .. } = &mut self.worker {
            *idle = if self.running.is_empty() && self.queue.is_empty() {
                idle.or(Some(now))
            } else {
                None
            };
            *eased &= idle.is_some();
        }
        actions
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
            Err(Full::Everyone) => {
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
        match std::mem::replace(&mut self.worker, Worker::None) {
            Worker::None => actions.push(Action::Unloaded),
            Worker::Starting {
                generation, model, ..
            } => {
                // Nothing runs in it yet: no reason to wait for its model.
                actions.push(Action::Kill { generation });
                self.worker = Worker::Ending {
                    generation,
                    model,
                    deadline: now + END_TIME,
                };
                self.unload_wanted = true;
            }
            other => {
                self.worker = other;
                self.unload_wanted = true;
            }
        }
    }

    fn loaded(&mut self, now: Instant, of: Generation, slots: u32) {
        match std::mem::replace(&mut self.worker, Worker::None) {
            Worker::Starting {
                generation,
                model,
                since,
                ..
            } if generation == of => {
                let turn = now + ((now - since) * TURN).min(LONGEST_TURN);
                self.worker = Worker::Ready {
                    generation,
                    model,
                    slots,
                    turn,
                    idle: None,
                    eased: false,
                }
            }
            other => self.worker = other,
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
        match std::mem::replace(&mut self.worker, Worker::None) {
            Worker::Starting {
                generation, model, ..
            } if generation == of => {
                if out_of_memory {
                    self.smaller.step(now, &model);
                    self.queue
                        .iter_mut()
                        .filter(|job| job.model == model)
                        .for_each(|job| job.deaths += 1);
                }
                self.refuse(true, failure, actions, |job| {
                    job.model == model && (!out_of_memory || job.deaths >= DEATHS_PER_JOB)
                });
                self.worker = Worker::Ending {
                    generation,
                    model,
                    deadline: now + END_TIME,
                };
            }
            other => self.worker = other,
        }
    }

    fn begun(&mut self, id: u64) {
        if let Some(running) = self.running.get_mut(&id) {
            running.begun = true;
            // A worker that answers is a worker that works.
            self.trouble = None;
        }
    }

    fn exited(
        &mut self,
        now: Instant,
        of: Generation,
        cause: String,
        out_of_memory: bool,
        actions: &mut Vec<Action>,
    ) {
        let (generation, asked_for, waited_for) = match &self.worker {
            Worker::None => return,
            Worker::Starting {
                generation, model, ..
            } => (*generation, false, Some(model.clone())),
            Worker::Ready { generation, .. } => (*generation, false, None),
            Worker::Ending { generation, .. } => (*generation, true, None),
        };
        if generation != of {
            return;
        }
        let given_up = self.given_up.take();
        let (out_of_memory, cause) = (
            out_of_memory || given_up.is_some(),
            given_up.unwrap_or(cause),
        );
        if let Worker::Starting { model, .. } | Worker::Ready { model, .. } = &self.worker
            && out_of_memory
        {
            self.smaller.step(now, model);
        }
        (self.worker, self.shrink_wanted) = (Worker::None, false);
        if std::mem::take(&mut self.unload_wanted) {
            actions.push(Action::Unloaded);
        }
        let lost = std::mem::take(&mut self.running);
        if asked_for {
            return;
        }
        let silent = !lost.values().any(|r| r.begun);
        let failure = if out_of_memory {
            Failure::OutOfMemory {
                cause: cause.clone(),
            }
        } else {
            Failure::WorkerDied {
                cause: cause.clone(),
            }
        };
        for (id, Running { mut job, begun }) in lost.into_iter().rev() {
            job.deaths += 1;
            // Where memory is what was missing, a model that takes less may do.
            let spent = job.deaths >= DEATHS_PER_JOB && !(out_of_memory && job.open);
            if begun || spent || self.drain.is_some() {
                actions.push(Action::Fail {
                    id,
                    failure: failure.clone(),
                });
            } else {
                self.queue.push_front(job);
            }
        }
        if let Some(model) = waited_for {
            self.queue
                .iter_mut()
                .filter(|job| job.model == model)
                .for_each(|job| job.deaths += 1);
        }
        self.refuse(out_of_memory, &failure, actions, |job| {
            job.deaths >= DEATHS_PER_JOB
        });
        if silent {
            self.trouble = Some(Trouble::after(self.trouble.take(), now, cause));
        }
    }

    /// Memory has run out: better this worker than a program that the kernel chooses. What it was
    /// doing is lost once it is gone; until then something of it may still arrive.
    fn give_up(&mut self, cause: String, actions: &mut Vec<Action>) {
        if let Worker::Starting { generation, .. } | Worker::Ready { generation, .. } = &self.worker
        {
            actions.push(Action::Kill {
                generation: *generation,
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
        match &mut self.worker {
            Worker::Starting {
                generation,
                model,
                deadline,
                since,
            } if *deadline <= now => {
                let (generation, model, since) = (*generation, std::mem::take(model), *since);
                let reason = format!(
                    "it was not loaded within {} s (`load-time` in gemmad.toml)",
                    self.settings.load_time.as_secs()
                );
                let failure = Failure::BadModel {
                    model: model.clone(),
                    reason,
                };
                self.worker = Worker::Starting {
                    generation,
                    model,
                    since,
                    deadline: now,
                };
                self.load_failed(now, generation, &failure, false, actions);
                actions.push(Action::Kill { generation });
            }
            Worker::Ending {
                generation,
                deadline,
                ..
            } if *deadline <= now => {
                actions.push(Action::Kill {
                    generation: *generation,
                });
                *deadline = now + END_TIME;
            }
            Worker::Ready { idle, eased, .. } if !*eased => {
                *eased = idle
                    .zip(self.settings.idle_release)
                    .is_some_and(|(since, limit)| since + limit <= now);
                actions.extend(eased.then_some(Action::Ease));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
