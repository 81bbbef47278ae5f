//! What becomes of a job, apart from its worker: admitted, left by its client, begun. Pure.

use std::time::{Duration, Instant};

use super::{Action, State};
use crate::backend::Failure;
use crate::engine::queue::{Full, Job};

/// The advice given with "the queue is full".
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

impl State {
    pub(super) fn submit(&mut self, now: Instant, job: Job, actions: &mut Vec<Action>) {
        let id = job.id;
        let refuse = |failure| Action::Fail { id, failure };
        if self.drain.is_some() {
            return actions.push(refuse(Failure::ShuttingDown));
        }
        let backing_off = self.backing_off(now, &job.model);
        if let Some(failure) = backing_off.as_ref().filter(|_| !job.flexible) {
            return actions.push(refuse(failure.clone()));
        }
        match self.queue.push(job) {
            Ok(()) => {
                if let Some(failure) = backing_off {
                    self.refuse(true, &failure, actions, |job| job.id == id);
                }
            }
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

    pub(super) fn hang_up(&mut self, id: u64, actions: &mut Vec<Action>) {
        if self.running.remove(&id).is_some() {
            actions.push(Action::Cancel { id });
        } else {
            self.queue.extract(|job| job.id == id);
        }
    }

    pub(super) fn begun(&mut self, id: u64, shown: bool) {
        if let Some(running) = self.running.get_mut(&id) {
            running.begun = true;
            running.shown = shown;
            if let Some(worker) = &self.worker {
                self.backoffs.answered(&worker.model);
            }
        }
    }

    pub(super) fn start_drain(&mut self, deadline: Instant, actions: &mut Vec<Action>) {
        self.drain = Some(deadline);
        for job in self.queue.extract(|_| true) {
            actions.push(Action::Fail {
                id: job.id,
                failure: Failure::ShuttingDown,
            });
        }
    }
}
