//! Models whose disk does not answer. Pure.
//!
//! ```text
//!   Starting ── its files take longer than is patience, and another model is wanted ──▶ stalled
//!      └─────── its files take longer than `load-time` ──▶ stalled, and its jobs are refused
//!   stalled ─── the disk answers ──▶ its jobs may have their turn again, and twice the patience
//! ```
//!
//! No process runs while the files are opened, so other models can be served meanwhile. The jobs of
//! a stalled model keep their places until its load time is over; those that come later are refused
//! at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::worker::{Phase, Worker};
use super::{Action, Generation, State};
use crate::backend::Failure;

/// How long a model's files may take to be opened while another model is wanted; doubles with each
/// time that it was not enough.
const PATIENCE: Duration = Duration::from_secs(3);
/// Times that it doubles.
const MOST_DOUBLINGS: u32 = 8;

/// The opening of the files of a model that is being started.
#[derive(Debug)]
pub(super) struct Opening {
    /// The path of the model's file.
    file: String,
    /// When another model may have the turn.
    patience: Instant,
    is_late: bool,
}

impl Opening {
    /// When it is to be looked at again.
    pub fn next_tick(&self) -> Option<Instant> {
        Some(self.patience).filter(|_| !self.is_late)
    }
}

fn stall_reason(file: &str, load_time: Duration) -> String {
    format!(
        "the disk of {file} does not answer: it was not opened within {} s (`load-time` in gemmad.toml)",
        load_time.as_secs()
    )
}

#[derive(Debug)]
struct Stall {
    file: String,
    times: u32,
    /// Until when its jobs wait; `None` once the disk has answered.
    deadline: Option<Instant>,
}

/// The models whose files are, or were, waited for.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<String, Stall>);

impl Stalls {
    /// Whether the model cannot be started now.
    pub fn holds(&self, model: &str) -> bool {
        self.deadline(model).is_some()
    }

    /// Until when its jobs wait for the disk.
    pub fn deadline(&self, model: &str) -> Option<Instant> {
        self.0.get(model)?.deadline
    }

    /// The model is loaded, or cannot be for another reason.
    pub fn forget(&mut self, model: &str) {
        self.0.remove(model);
    }

    fn patience(&self, model: &str) -> Duration {
        let times = self.0.get(model).map_or(0, |stall| stall.times);
        PATIENCE * (1 << times.min(MOST_DOUBLINGS))
    }

    fn begin(&mut self, model: String, file: String, deadline: Instant) {
        let times = self.0.get(&model).map_or(0, |stall| stall.times) + 1;
        let stall = Stall {
            file,
            times,
            deadline: Some(deadline),
        };
        self.0.insert(model, stall);
    }
}

impl State {
    /// The files of a model that is being started are being opened.
    pub(super) fn opening(&mut self, now: Instant, of: Generation, file: String) {
        if let Some(worker) = &mut self.worker
            && worker.generation == of
            && let Phase::Starting { opening, .. } = &mut worker.phase
        {
            *opening = Some(Opening {
                file,
                patience: now + self.stalls.patience(&worker.model),
                is_late: false,
            });
        }
    }

    /// They are open, or cannot be.
    pub(super) fn opened(&mut self, of_model: &str) {
        if let Some(worker) = &mut self.worker
            && worker.model == of_model
            && let Phase::Starting { opening, .. } = &mut worker.phase
        {
            *opening = None;
        }
        if let Some(stall) = self.stalls.0.get_mut(of_model) {
            stall.deadline = None;
        }
    }

    /// Lets other models have their turn when the files of this one take too long, and refuses the
    /// jobs that have waited for a disk for as long as loading may take.
    pub(super) fn expire_stalls(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(Worker {
            model,
            phase:
                Phase::Starting {
                    deadline,
                    opening: Some(opening),
                    ..
                },
            ..
        }) = &mut self.worker
            && (opening.patience <= now || *deadline <= now)
        {
            opening.is_late = true;
            let another = self.queue.find(|job| {
                job.model != *model
                    && !self.stalls.holds(&job.model)
                    && !self.backoffs.holds(&job.model)
            });
            if another.is_some() || *deadline <= now {
                let (model, file) = (std::mem::take(model), std::mem::take(&mut opening.file));
                self.stalls.begin(model, file, *deadline);
                self.worker = None;
            }
        }
        let load_time = self.settings.load_time;
        let over = |stall: &Stall| stall.deadline.is_some_and(|deadline| deadline <= now);
        let failures: Vec<_> = self
            .stalls
            .0
            .iter()
            .filter(|(_, stall)| over(stall))
            .map(|(model, stall)| Failure::BadModel {
                model: model.clone(),
                reason: stall_reason(&stall.file, load_time),
            })
            .collect();
        for failure in failures {
            if let Failure::BadModel { model, .. } = &failure {
                self.refuse(true, &failure, actions, |job| job.model == *model);
            }
        }
    }
}
