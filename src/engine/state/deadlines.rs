//! What ends because it has taken too long, and when the state has to look again. Pure.

use std::time::Instant;

use super::stall::Opening;
use super::worker::{END_TIME, Phase, Ready};
use super::{Action, State};
use crate::backend::Failure;

impl State {
    /// When [`super::Input::Tick`] is due at the latest, if nothing else happens.
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
            None => self.backoffs.of_last().map(|(_, until)| until),
            Some(Phase::Ready(Ready {
                idle,
                trimmed,
                pulse,
                ..
            })) => {
                let limits = [
                    self.settings.idle_unload,
                    self.settings.idle_release.filter(|_| !trimmed),
                ];
                idle.zip(limits.into_iter().flatten().min())
                    .map(|(since, limit)| since + limit)
                    .or_else(|| Some(pulse.as_ref()?.next()))
            }
        };
        let running = self.running.values().map(|r| r.job.deadline).min();
        let stalled = self
            .queue
            .iter()
            .filter_map(|job| self.stalls.deadline(&job.model))
            .min();
        let backed_off = self
            .queue
            .iter()
            .filter_map(|job| Some(self.backoffs.pause(&job.model)?.1))
            .min();
        let waiting = self.queue.first_deadline();
        [
            worker, opening, running, stalled, backed_off, waiting, self.drain,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends what has taken too long.
    pub(super) fn expire(&mut self, now: Instant, actions: &mut Vec<Action>) {
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
