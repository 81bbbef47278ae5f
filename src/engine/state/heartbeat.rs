//! A worker that lives and does nothing. Pure.
//!
//! While requests run the worker is asked once a second how many steps it has computed. Its reader
//! answers, whatever the llama thread does, so that reading a prompt's media or encoding them is no
//! silence; a step is one node of llama.cpp's graph, so that a slow board takes many of them for one
//! token. No answer, or the same number again while it computes, is silence. Loading has its own
//! limit (`load-time`).

use std::time::{Duration, Instant};

use super::retry::Exit;
use super::worker::{Phase, Worker};
use super::{Action, Generation, State};

/// How often a worker is asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// A worker may be silent for so many times its longest silence so far.
const PATIENCE: u32 = 8;
/// But not for more than so many times the least silence.
const LONGEST: u32 = 10;

/// What is heard from a worker that has something to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// When the silence was measured last.
    at: Instant,
    silence: Duration,
    /// Steps that it had computed at its last answer.
    steps: Option<u64>,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self {
            at: now,
            silence: Duration::ZERO,
            steps: None,
        }
    }

    /// When it is to be asked again.
    pub fn next(&self) -> Instant {
        self.at + INTERVAL
    }
}

/// How long a worker may be silent.
fn limit(longest: Duration, least: Duration) -> Duration {
    (longest * PATIENCE).clamp(least, least * LONGEST)
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
        pulse.silence += (now - pulse.at).min(2 * INTERVAL);
        pulse.at = now;
        let silence = pulse.silence;
        if silence <= limit(ready.longest_silence, least) {
            return actions.push(Action::AskBeat);
        }
        ready.pulse = None;
        actions.push(Action::KillSilent {
            generation,
            silence,
        });
        self.given_up = Some(Exit {
            cause: format!(
                "it computed nothing for {} s and was ended",
                silence.as_secs()
            ),
            of_memory: false,
        });
    }

    /// The worker says how many steps it has computed, and whether it is at one.
    pub(super) fn beat(&mut self, of: Generation, steps: u64, computing: bool) {
        if let Some(worker) = &mut self.worker
            && worker.generation == of
            && let Phase::Ready(ready) = &mut worker.phase
            && let Some(pulse) = &mut ready.pulse
            && (!computing || pulse.steps != Some(steps))
        {
            ready.longest_silence = ready.longest_silence.max(pulse.silence);
            pulse.silence = Duration::ZERO;
            pulse.steps = Some(steps);
        }
    }
}
