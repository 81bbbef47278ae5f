//! A worker that lives and does nothing. Pure.
//!
//! While requests run the worker is asked once a second how many steps its model and its media
//! encoder have computed. Its reader answers, whatever the other threads do; a step is one node of
//! llama.cpp's graph, or some of the projector's, so that a slow board takes many of them for one
//! token or picture. No answer, or the same number again from one of the two that computes, is
//! silence, whatever the other does. Loading the model has its own limit (`load-time`).

use std::time::{Duration, Instant};

use super::retry::Exit;
use super::worker::{Phase, Worker};
use super::{Action, Generation, State};
use crate::ipc::Progress;

/// How often a worker is asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// A worker may be silent for so many times its longest silence so far.
const PATIENCE: u32 = 8;
/// But not for more than so many times the least silence.
const LONGEST: u32 = 10;

/// What is heard from a worker that has something to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// When the silences were measured last.
    at: Instant,
    decoder: Silence,
    encoder: Silence,
}

/// How long nothing has been heard of one of its computations.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    time: Duration,
    /// Steps that had been computed at the last answer, and whether more were to come.
    steps: Option<u64>,
    computing: bool,
}

impl Silence {
    fn hear(&mut self, progress: Progress, longest: &mut Duration) {
        self.computing = progress.computing;
        if !progress.computing || self.steps != Some(progress.steps) {
            *longest = (*longest).max(self.time);
            self.time = Duration::ZERO;
            self.steps = Some(progress.steps);
        }
    }
}

/// The longest silences of a worker after which something was heard again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Longest {
    decoder: Duration,
    encoder: Duration,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self {
            at: now,
            decoder: Silence::default(),
            encoder: Silence::default(),
        }
    }

    /// When it is to be asked again.
    pub fn next(&self) -> Instant {
        self.at + INTERVAL
    }
}

/// How long one of a worker's computations may be silent.
fn limit(longest: Duration, least: Duration) -> Duration {
    (longest * PATIENCE).clamp(least, least * LONGEST)
}

/// What has been silent for too long, and how long that is.
fn hangs(pulse: &Pulse, longest: &Longest, least: Duration) -> Option<(&'static str, Duration)> {
    // Where nothing is to be computed, what is silent is the worker as a whole.
    let whole = longest.decoder.max(longest.encoder);
    let hangs = |silence: &Silence, own| {
        let longest = if silence.computing { own } else { whole };
        (silence.time > limit(longest, least)).then_some(silence.time)
    };
    let decoder = hangs(&pulse.decoder, longest.decoder).map(|time| ("it", time));
    let encoder = || hangs(&pulse.encoder, longest.encoder);
    let what = "its encoder of pictures and sounds";
    decoder.or_else(|| encoder().map(|time| (what, time)))
}

impl State {
    /// Asks a worker that has something to do whether it does it, and ends one that does not.
    pub(super) fn watch(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let busy = !self.running.is_empty() && self.given_up.is_none();
        let least = self.settings.worker_silence;
        let Some(Worker {
            generation,
            phase: Phase::Ready(ready),
            ..
        }) = &mut self.worker
        else {
            return;
        };
        let generation = *generation;
        if !busy {
            ready.pulse = None;
            return;
        }
        let pulse = ready.pulse.get_or_insert(Pulse::new(now));
        if now < pulse.next() {
            return;
        }
        // Time in which this process itself did not run is not the worker's silence.
        let passed = (now - pulse.at).min(2 * INTERVAL);
        pulse.decoder.time += passed;
        pulse.encoder.time += passed;
        pulse.at = now;
        let Some((what, silence)) = hangs(pulse, &ready.longest, least) else {
            return actions.push(Action::AskBeat);
        };
        ready.pulse = None;
        actions.push(Action::KillSilent {
            generation,
            what,
            silence,
        });
        self.given_up = Some(Exit {
            cause: format!(
                "{what} computed nothing for {} s and was ended",
                silence.as_secs()
            ),
            of_memory: false,
        });
    }

    /// The worker says how far it is.
    pub(super) fn beat(&mut self, of: Generation, decoder: Progress, encoder: Progress) {
        if let Some(worker) = &mut self.worker
            && worker.generation == of
            && let Phase::Ready(ready) = &mut worker.phase
            && let Some(pulse) = &mut ready.pulse
        {
            pulse.decoder.hear(decoder, &mut ready.longest.decoder);
            pulse.encoder.hear(encoder, &mut ready.longest.encoder);
        }
    }
}
