//! The worker's way from its start to its end, and what that means for its jobs. Pure.

use std::time::{Duration, Instant};

use super::heartbeat::Longest;
use super::retry::{self, DEATHS_PER_JOB, Exit};
use super::worker::{Phase, Ready, Worker};
use super::{Action, Generation, State};
use crate::backend::Failure;

/// A model that was loaded keeps its turn so many times as long as that took, so that requests for
/// different models in any order cost at most a fifth of the time in loads. Those of other models
/// wait no longer than the bound.
const TURN: u32 = 4;
const LONGEST_TURN: Duration = Duration::from_secs(30);

impl State {
    pub(super) fn unload(&mut self, now: Instant, actions: &mut Vec<Action>) {
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

    pub(super) fn loaded(&mut self, now: Instant, of: Generation, slots: u32) {
        if let Some(worker) = self.starting(of)
            && let Phase::Starting { since, .. } = worker.phase
        {
            worker.phase = Phase::Ready(Ready {
                slots,
                turn: now + ((now - since) * TURN).min(LONGEST_TURN),
                idle: None,
                trimmed: false,
                pulse: None,
                longest: Longest::default(),
            });
            let model = worker.model.clone();
            self.stalls.forget(&model);
        }
    }

    pub(super) fn load_failed(
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

    pub(super) fn exited(
        &mut self,
        now: Instant,
        of: Generation,
        exit: Exit,
        actions: &mut Vec<Action>,
    ) {
        let Some(worker) = self.worker.take_if(|worker| worker.generation == of) else {
            return;
        };
        let mut exit = match self.given_up.take() {
            Some(reason) => reason,
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
        exit.cause = format!("model `{}`: {}", worker.model, exit.cause);
        if exit.of_memory {
            self.downsizing.step(now, &worker.model);
        }
        // The model may be to blame, and not what was asked of it.
        let another =
            exit.of_memory || worker.is_starting() || !self.backoffs.has_answered(&worker.model);
        let silent = !lost.values().any(|running| running.begun);
        let failure = exit.failure();
        let (again, fail) = retry::split(lost.into_values(), another, self.drain.is_some());
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
        self.refuse(another, &failure, actions, |job| {
            job.deaths >= DEATHS_PER_JOB
        });
        if silent {
            self.died_silently(now, &worker.model, &exit.cause, actions);
        }
    }

    /// Memory has run out: better this worker than a program that the kernel chooses. What it was
    /// doing is lost once it is gone; until then something of it may still arrive.
    pub(super) fn give_up(&mut self, cause: String, actions: &mut Vec<Action>) {
        if let Some(worker) = self.worker.as_ref().filter(|worker| !worker.is_ending()) {
            actions.push(Action::Kill {
                generation: worker.generation,
            });
            self.given_up = Some(Exit {
                cause,
                of_memory: true,
            });
        }
    }
}
