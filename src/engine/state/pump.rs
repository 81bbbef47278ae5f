//! Who is next: which model is loaded, and which job goes to the worker. Pure.

use std::time::Instant;

use super::{Action, END_TIME, Running, State, TEXTS, Worker};
use crate::engine::queue::{Job, Kind};

impl State {
    /// Starts what can be started: nothing while a job may turn out to need another model.
    pub(super) fn pump(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while !self.is_choosing() && self.pump_one(now, actions) {}
    }

    /// One move; says whether another may be possible.
    fn pump_one(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        let leaving = self.drain.is_some();
        match &self.worker {
            Worker::None if leaving => {
                actions.push(Action::Drained);
                false
            }
            Worker::None => {
                let Some(model) = self.next_job().map(|job| job.model.clone()) else {
                    return false;
                };
                if self.paused().is_some() {
                    return false;
                }
                let generation = self.next_generation;
                self.next_generation += 1;
                let deadline = now + self.settings.load_time;
                self.worker = Worker::Starting {
                    generation,
                    model: model.clone(),
                    since: now,
                    deadline,
                    opening: None,
                };
                let smaller = self.smaller.of(now, &model);
                actions.push(Action::Spawn {
                    generation,
                    model,
                    smaller,
                });
                false
            }
            Worker::Starting {
                generation, model, ..
            } if leaving => {
                actions.push(Action::Kill {
                    generation: *generation,
                });
                self.worker = Worker::Ending {
                    generation: *generation,
                    model: model.clone(),
                    deadline: now + END_TIME,
                };
                false
            }
            Worker::Starting { .. } | Worker::Ending { .. } => false,
            Worker::Ready {
                generation,
                model,
                slots,
                turn,
                idle,
                ..
            } => {
                let next = self.next_job();
                let own = self
                    .queue
                    .find(|job| job.model == *model)
                    .map(|job| job.kind);
                let other_model =
                    next.is_some_and(|job| job.model != *model) && (own.is_none() || *turn <= now);
                let idle_for_long = idle
                    .zip(self.settings.idle_unload)
                    .is_some_and(|(since, limit)| since + limit <= now);
                if leaving
                    || self.unload_wanted
                    || self.shrink_wanted
                    || self.given_up.is_some()
                    || other_model
                    || (idle_for_long && next.is_none())
                {
                    if self.running.is_empty() {
                        actions.push(Action::End {
                            generation: *generation,
                        });
                        self.worker = Worker::Ending {
                            generation: *generation,
                            model: model.clone(),
                            deadline: now + END_TIME,
                        };
                    }
                    return false;
                }
                let slots = *slots as usize;
                // Texts take no slot, so they need not wait with those that do.
                let mut room = TEXTS.saturating_sub(self.count(Kind::Text));
                let texts = self.queue.extract(|job| {
                    let taken = job.kind == Kind::Text && job.model == *model && room > 0;
                    room -= usize::from(taken);
                    taken
                });
                if !texts.is_empty() {
                    texts.into_iter().for_each(|job| self.send(job, actions));
                    return true;
                }
                match own {
                    None | Some(Kind::Text) => false,
                    Some(Kind::Chat) if self.count(Kind::Chat) >= slots => false,
                    Some(kind) => {
                        let model = model.clone();
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
        }
    }

    /// The job whose turn it is, among those whose model can be started.
    fn next_job(&self) -> Option<&Job> {
        self.queue.find(|job| !self.stalls.holds(&job.model))
    }

    fn send(&mut self, job: Job, actions: &mut Vec<Action>) {
        actions.push(Action::Send { id: job.id });
        self.running.insert(job.id, Running { job, begun: false });
    }

    /// Running jobs of one kind.
    fn count(&self, kind: Kind) -> usize {
        self.running
            .values()
            .filter(|running| running.job.kind == kind)
            .count()
    }
}
