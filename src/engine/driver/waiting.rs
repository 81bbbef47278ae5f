//! Those who wait are told how far they are.

use std::time::Instant;

use super::super::state::{Generation, Life};
use super::Driver;
use crate::chat::{Reading, Stage, Waiting};

/// The load that is under way, or was the last.
pub(super) struct Load {
    since: Instant,
    /// How much of the weights is there, from 0 to 1, if the worker has said so.
    share: Option<f32>,
}

impl Load {
    pub(super) fn begin() -> Self {
        Self {
            since: Instant::now(),
            share: None,
        }
    }
}

impl Driver {
    /// Tells those who have not been handed to a worker.
    pub(super) fn tell_waiting(&mut self) {
        let loading = match self.state.life() {
            Life::Starting(model) => Some((model, self.load_stands(model))),
            _ => None,
        };
        for (place, job) in self.state.in_turn().enumerate() {
            let Some(pending) = self.pending.get(&job.id) else {
                continue;
            };
            let waiting = match loading {
                Some((model, waiting)) if model == job.model => waiting,
                _ => Waiting {
                    stage: Stage::Queued {
                        position: place as u32 + 1,
                    },
                    left: None,
                },
            };
            pending.tell(waiting);
        }
    }

    fn load_stands(&self, model: &str) -> Waiting {
        let Load { since, share } = self.load;
        Waiting {
            stage: Stage::Loading { share },
            left: self.estimates.loading_left(model, since.elapsed(), share),
        }
    }

    /// The worker says how much of the weights is there. When it is loaded, some may be on their
    /// way still, and those who were handed to it wait for them.
    pub(super) fn loading(&mut self, generation: Generation, share: f32) {
        let Some(worker) = self
            .worker
            .as_ref()
            .filter(|worker| worker.child.generation == generation && share.is_finite())
        else {
            return;
        };
        let model = worker.model.id.clone();
        self.load.share = Some(share.clamp(0.0, 1.0));
        if worker.loaded.is_none() {
            return;
        }
        self.loaded_by_now(&model);
        let waiting = self.load_stands(&model);
        for id in self.state.at_the_worker() {
            if let Some(pending) = self.pending.get(&id)
                && !matches!(pending.stage(), Some(Stage::Reading(_)))
            {
                pending.tell(waiting);
            }
        }
    }

    /// The load has taken so long at least.
    pub(super) fn loaded_by_now(&mut self, model: &str) {
        self.estimates.was_loaded(model, self.load.since.elapsed());
    }

    /// The worker says how far a prompt is read.
    pub(super) fn reading(&mut self, id: u64, reading: Reading) {
        if let Some(pending) = self.pending.get(&id) {
            let model = &pending.wanted().model;
            pending.tell(Waiting {
                stage: Stage::Reading(reading),
                left: self.estimates.reading_left(model, &reading),
            });
        }
    }

    /// A prompt was read; the worker has told how fast just before.
    pub(super) fn was_read(&mut self, id: u64) {
        if let Some(pending) = self.pending.get(&id)
            && let Some(Stage::Reading(reading)) = pending.stage()
        {
            self.estimates.was_read(&pending.wanted().model, &reading);
        }
    }
}
