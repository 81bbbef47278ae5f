//! Jobs whose model cannot be had. Pure. Another is chosen for those that left the choice to us; none
//! is chosen twice, so that this comes to an end.
//!
//! ```text
//!   waits ── its model is refused ──▶ reassigning ── Chosen(model) ──▶ waits
//!     └── and was named ─▶ fails          └────── Chosen(failure) ─▶ fails
//! ```
//!
//! A job keeps its place in the queue meanwhile, and nothing is started: who is next may need
//! another model by then.

use std::time::Instant;

use super::retry::Running;
use super::{Action, State};
use crate::backend::Failure;
use crate::engine::queue::Job;

impl State {
    /// These waiting jobs cannot have their model. `another`: another one may do.
    pub(super) fn refuse(
        &mut self,
        another: bool,
        failure: &Failure,
        actions: &mut Vec<Action>,
        refused: impl Fn(&Job) -> bool,
    ) {
        let refused = |job: &Job| !job.reassigning && refused(job);
        for job in self
            .queue
            .iter_mut()
            .filter(|job| another && job.flexible && refused(job))
        {
            job.reassigning = true;
            actions.push(Action::Choose {
                id: job.id,
                failure: failure.clone(),
            });
        }
        for job in self.queue.extract(refused) {
            actions.push(Action::Fail {
                id: job.id,
                failure: failure.clone(),
            });
        }
    }

    /// The model of a running job cannot answer it: its output is not a number, or its context is too
    /// small. The worker lives, and so the job needs another model; `of_model`: so do those that wait
    /// for this one and left the choice to us.
    pub(super) fn unfit(
        &mut self,
        id: u64,
        failure: &Failure,
        of_model: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(Running { job, shown, .. }) = self.running.remove(&id) else {
            return;
        };
        let model = job.model.clone();
        if shown || self.drain.is_some() {
            let failure = failure.clone();
            actions.push(Action::Fail { id, failure });
        } else {
            self.queue.push_front(job);
        }
        self.refuse(true, failure, actions, |job| {
            job.id == id || of_model && job.flexible && job.model == model
        });
    }

    /// Another model for a job, or why there is none. It may have gone meanwhile.
    pub(super) fn chosen(
        &mut self,
        now: Instant,
        id: u64,
        model: Result<String, Failure>,
        actions: &mut Vec<Action>,
    ) {
        let its = |job: &Job| job.id == id && job.reassigning;
        match model {
            Ok(model) => {
                if let Some(job) = self.queue.iter_mut().find(|job| its(job)) {
                    job.model.clone_from(&model);
                    job.deaths = 0;
                    job.reassigning = false;
                }
                self.refuse_backed_off(now, id, &model, actions);
            }
            Err(failure) => {
                if !self.queue.extract(its).is_empty() {
                    actions.push(Action::Fail { id, failure });
                }
            }
        }
    }

    /// A job whose model is backed off from does not wait for it.
    pub(super) fn refuse_backed_off(
        &mut self,
        now: Instant,
        id: u64,
        model: &str,
        actions: &mut Vec<Action>,
    ) {
        if let Some(failure) = self.backing_off(now, model) {
            self.refuse(true, &failure, actions, |job| job.id == id);
        }
    }

    /// Whether another model is being chosen for a job.
    pub(super) fn is_reassigning(&self) -> bool {
        self.queue.find(|job| job.reassigning).is_some()
    }
}
