//! Dispatch: which model is loaded, and which job goes to the worker. Pure.

use std::time::Instant;

use super::retry::Running;
use super::worker::{Phase, Ready, Worker};
use super::{Action, State};
use crate::chat::ServiceTier;
use crate::engine::queue::{Job, Kind};

/// Texts that are asked of the worker at the same time; it has room for more.
pub(super) const TEXTS: usize = 16;

impl State {
    /// Starts what can be started: nothing while a job may turn out to need another model.
    pub(super) fn dispatch(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while !self.is_reassigning() && self.dispatch_one(now, actions) {}
    }

    /// One move; says whether another may be possible.
    fn dispatch_one(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        let leaving = self.drain.is_some();
        match &mut self.worker {
            None if leaving => actions.push(Action::Drained),
            None => self.start_next(now, actions),
            Some(worker) => match worker.phase {
                Phase::Ready(ready) => return self.dispatch_ready(now, ready, actions),
                Phase::Starting { .. } if leaving => {
                    actions.push(Action::Kill {
                        generation: worker.generation,
                    });
                    worker.end(now);
                }
                Phase::Starting { .. } | Phase::Ending { .. } => {}
            },
        }
        false
    }

    /// Starts a worker for the job whose turn it is.
    fn start_next(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(model) = self.next_job().map(|job| job.model.clone()) else {
            return;
        };
        let generation = self.next_generation;
        self.next_generation += 1;
        self.backoffs.started(&model);
        self.worker = Some(Worker {
            generation,
            model: model.clone(),
            phase: Phase::Starting {
                since: now,
                deadline: now + self.settings.load_time,
                opening: None,
            },
        });
        let downsized = self.downsizing.of(now, &model);
        actions.push(Action::Spawn {
            generation,
            model,
            downsized,
        });
    }

    /// One move of a worker that is ready.
    fn dispatch_ready(&mut self, now: Instant, ready: Ready, actions: &mut Vec<Action>) -> bool {
        let Some(model) = self.worker.as_ref().map(|worker| worker.model.clone()) else {
            return false;
        };
        let own = self
            .queue
            .find(|job| job.model == model)
            .map(|job| (job.kind, job.tier));
        let next = self.next_job();
        let other_model =
            next.is_some_and(|job| job.model != model) && (own.is_none() || ready.turn <= now);
        let idle_for_long = next.is_none() && ready.is_idle_for(now, self.settings.idle_unload);
        if self.drain.is_some()
            || self.unload_wanted
            || self.end_wanted
            || self.given_up.is_some()
            || other_model
            || idle_for_long
        {
            if let Some(worker) = &mut self.worker
                && self.running.is_empty()
            {
                actions.push(Action::End {
                    generation: worker.generation,
                });
                worker.end(now);
            }
            return false;
        }
        // Texts take no slot, so they need not wait with those that do.
        let mut room = TEXTS.saturating_sub(self.count(Kind::Text));
        let texts = self.queue.extract(|job| {
            let taken = job.kind == Kind::Text && job.model == model && room > 0;
            room -= usize::from(taken);
            taken
        });
        if !texts.is_empty() {
            texts.into_iter().for_each(|job| self.send(job, actions));
            return true;
        }
        match own {
            None | Some((Kind::Text, _)) => false,
            Some((Kind::Chat, tier)) if self.count(Kind::Chat) >= slots_for(tier, ready) => false,
            Some((kind, _)) => {
                let Some(job) = self.queue.pop(|job| job.model == model) else {
                    return false;
                };
                match kind {
                    Kind::Load => actions.push(Action::LoadDone { id: job.id }),
                    Kind::Chat | Kind::Text => self.send(job, actions),
                }
                true
            }
        }
    }

    /// The job whose turn it is, among those whose model can be started.
    fn next_job(&self) -> Option<&Job> {
        self.queue
            .find(|job| !self.stalls.holds(&job.model) && !self.backoffs.holds(&job.model))
    }

    fn send(&mut self, job: Job, actions: &mut Vec<Action>) {
        actions.push(Action::Send { id: job.id });
        let running = Running {
            job,
            begun: false,
            shown: false,
        };
        self.running.insert(running.job.id, running);
    }

    /// Running jobs of one kind.
    fn count(&self, kind: Kind) -> usize {
        self.running
            .values()
            .filter(|running| running.job.kind == kind)
            .count()
    }
}

/// Slots that jobs of this tier may fill. The last one is kept for whoever waits for an answer, since
/// what runs is not interrupted.
fn slots_for(tier: ServiceTier, ready: Ready) -> usize {
    let slots = ready.slots as usize;
    match tier {
        ServiceTier::Default => slots,
        ServiceTier::Flex => slots.saturating_sub(1).max(1),
    }
}
