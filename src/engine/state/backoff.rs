//! Models whose workers die before they have said anything, and the pauses after that: each model
//! has its own, so that a file that aborts llama.cpp delays only those that name it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Action, State};
use crate::backend::Failure;

/// The pause after the second silent death in a row; doubles with each further one.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Silent deaths of one model's workers in a row.
#[derive(Debug)]
struct Backoff {
    deaths: u32,
    cause: String,
    /// No worker is started before; `None` once that time has come.
    pause: Option<Instant>,
}

/// What is known of the models' workers, by model.
#[derive(Debug, Default)]
pub(super) struct Backoffs {
    of: BTreeMap<String, Backoff>,
    /// The models that have answered at least once.
    answered: BTreeSet<String>,
    /// The model that a worker was started for last.
    last: Option<String>,
}

impl Backoffs {
    /// Why no worker is started for the model now, and until when.
    pub fn pause(&self, model: &str) -> Option<(&str, Instant)> {
        let backoff = self.of.get(model)?;
        Some((backoff.cause.as_str(), backoff.pause?))
    }

    /// Whether no worker may be started for the model now.
    pub fn holds(&self, model: &str) -> bool {
        self.pause(model).is_some()
    }

    /// The pause of the model that was tried last: while nothing is loaded this is what the whole
    /// daemon is said to wait for.
    pub fn of_last(&self) -> Option<(&str, Instant)> {
        self.pause(self.last.as_deref()?)
    }

    /// Forgets the pauses that are over.
    pub fn expire(&mut self, now: Instant) {
        for backoff in self.of.values_mut() {
            backoff.pause = backoff.pause.filter(|until| *until > now);
        }
    }

    /// A worker is started for the model.
    pub fn started(&mut self, model: &str) {
        self.last = Some(model.to_owned());
    }

    /// A worker that answers is a worker that works.
    pub fn answered(&mut self, model: &str) {
        self.of.remove(model);
        if !self.answered.contains(model) {
            self.answered.insert(model.to_owned());
        }
    }

    /// Whether the model has ever answered. One that has not is under suspicion when its worker dies;
    /// with one that has, it is the request.
    pub fn has_answered(&self, model: &str) -> bool {
        self.answered.contains(model)
    }

    /// One silent death more.
    pub fn died(&mut self, now: Instant, model: &str, cause: &str) {
        let deaths = self.of.get(model).map_or(0, |backoff| backoff.deaths) + 1;
        let backoff = Backoff {
            deaths,
            cause: cause.to_owned(),
            pause: Some(now + pause_after(deaths)).filter(|until| *until > now),
        };
        self.of.insert(model.to_owned(), backoff);
    }
}

impl State {
    /// The failure that a new request for the model meets while the model is backed off from.
    pub(super) fn backing_off(&self, now: Instant, model: &str) -> Option<Failure> {
        let (cause, until) = self.backoffs.pause(model)?;
        Some(Failure::BackingOff {
            cause: cause.to_owned(),
            retry_after: until.saturating_duration_since(now),
        })
    }

    /// A worker died before it had said anything. Jobs that left the choice to us do not wait for
    /// the end of a pause.
    pub(super) fn died_silently(
        &mut self,
        now: Instant,
        model: &str,
        cause: &str,
        actions: &mut Vec<Action>,
    ) {
        self.backoffs.died(now, model, cause);
        if let Some(failure) = self.backing_off(now, model) {
            self.refuse(true, &failure, actions, |job| {
                job.flexible && job.model == model
            });
        }
    }
}

/// The first silent death is answered at once, further ones after growing pauses.
fn pause_after(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        n => FIRST_PAUSE
            .saturating_mul(1 << (n - 2).min(16))
            .min(LONGEST_PAUSE),
    }
}
