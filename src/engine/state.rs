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
//! A crash of the worker leads to None from anywhere. Jobs whose answer had not begun are
//! retried once; a model whose workers die before they have said anything is started again with growing
//! pauses, which delay no other model. A model that ran out of memory is loaded one step smaller for a while. A job that left
//! the choice of its model to us gets another one when its own cannot be loaded, or has no room
//! (`fallback`).

mod action;
mod backoff;
mod deadlines;
mod dispatch;
mod downsizing;
mod fallback;
mod heartbeat;
mod input;
mod jobs;
mod lifecycle;
mod retry;
mod stall;
mod worker;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::queue::{Job, Queue};
use crate::backend::WaitingUser;
pub use action::Action;
use backoff::Backoffs;
use downsizing::Downsizing;
pub use input::Input;
use retry::{Exit, Running};
use stall::Stalls;
use worker::{Phase, Ready, Worker};

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
    /// Silence that is no reason to end a worker.
    pub worker_silence: Duration,
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
    /// Nothing is loaded, and the model that a worker was started for last is backed off from.
    BackingOff {
        cause: &'a str,
        until: Instant,
    },
    Draining,
}

/// The engine's whole state.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    worker: Option<Worker>,
    queue: Queue,
    running: BTreeMap<u64, Running>,
    backoffs: Backoffs,
    downsizing: Downsizing,
    stalls: Stalls,
    unload_wanted: bool,
    end_wanted: bool,
    /// Why this worker was given up.
    given_up: Option<Exit>,
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
            backoffs: Backoffs::default(),
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

    /// Whether the model has ever answered.
    pub fn has_answered(&self, model: &str) -> bool {
        self.backoffs.has_answered(model)
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// See [`Queue::in_turn`].
    pub fn in_turn(&self) -> impl Iterator<Item = &Job> {
        self.queue.in_turn()
    }

    /// See [`Queue::users`].
    pub fn waiting_users(&self) -> Vec<WaitingUser> {
        self.queue.users()
    }

    /// The jobs that the worker has.
    pub fn at_the_worker(&self) -> impl Iterator<Item = u64> {
        self.running.keys().copied()
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
            return match self.backoffs.of_last() {
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

    /// When the worker ends if nothing is asked meanwhile.
    pub fn unload_at(&self) -> Option<Instant> {
        match self.worker.as_ref()?.phase {
            Phase::Ready(Ready { idle, .. }) => Some(idle? + self.settings.idle_unload?),
            _ => None,
        }
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.backoffs.expire(now);
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
        self.watch(now, &mut actions);
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
                tier,
                kind,
            } => {
                let job = Job {
                    id,
                    owner,
                    model,
                    flexible,
                    tier,
                    reassigning: false,
                    kind,
                    since: now,
                    deadline: now + self.settings.request_time,
                    deaths: 0,
                };
                self.submit(now, job, actions);
            }
            Input::Chosen { id, model } => self.chosen(now, id, model, actions),
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
            Input::Begun { id, shown } => self.begun(id, shown),
            Input::Unfit {
                id,
                failure,
                of_model,
            } => self.unfit(id, &failure, of_model, actions),
            Input::Ended { id } => {
                self.running.remove(&id);
            }
            Input::Exited {
                generation,
                cause,
                out_of_memory,
            } => self.exited(now, generation, Exit::new(cause, out_of_memory), actions),
            Input::Beat {
                generation,
                decoder,
                encoder,
            } => self.beat(generation, decoder, encoder),
            Input::EndWhenIdle(wanted) => self.end_when_idle(wanted),
            Input::GiveUp { cause } => self.give_up(cause, actions),
            Input::Drain { deadline } => self.start_drain(deadline, actions),
            Input::Tick => {}
        }
    }

    fn end_when_idle(&mut self, wanted: bool) {
        let is_ready = |worker: &Worker| matches!(worker.phase, Phase::Ready(_));
        self.end_wanted = wanted && self.worker.as_ref().is_some_and(is_ready);
    }
}

#[cfg(test)]
mod tests;
