//! Watches the memory while a worker lives, and says what is to be done when it runs short.

use std::time::{Duration, Instant};

use super::memory_policy::{self, MemoryPolicy, Step};
use crate::backend::{Change, Level, MemoryState};
use crate::memory::pressure::{PressureTrigger, Reading, Triggers, kills};

/// Looks are so far apart at most while all is well, and while it is not.
const CALM_PAUSE: Duration = Duration::from_secs(1);
const TENSE_PAUSE: Duration = Duration::from_millis(250);

/// A worker whose end is heard of so long after memory was short ended for that. The kernel counts
/// a kill, and its memory is free, a while before the process is gone and its last words are read.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Without a worker there is nothing to give back, and nobody looks.
#[derive(Debug, Default)]
pub(super) struct Relief {
    policy: MemoryPolicy,
    watch: Option<Watch>,
    /// Processes that the kernel had killed when it was looked last.
    kills: u64,
    /// When memory was short last, or a process was killed for lack of it.
    short: Option<Instant>,
    state: MemoryState,
}

#[derive(Debug)]
struct Watch {
    bell: PressureTrigger,
    last: Instant,
}

impl Relief {
    /// A worker was started.
    pub fn started(&mut self) {
        (self.kills, self.short) = (kills(), None);
    }

    /// Its model is loaded: from now on the memory is watched.
    pub fn loaded(&mut self) {
        let bell = PressureTrigger::arm();
        self.state.triggers = bell.triggers();
        self.watch = Some(Watch {
            bell,
            last: Instant::now(),
        });
    }

    /// Waits until it is time to look.
    pub async fn due(&self) {
        let Some(Watch { bell, last }) = &self.watch else {
            return std::future::pending().await;
        };
        let pause = if self.policy.level() == Level::Calm {
            CALM_PAUSE
        } else {
            TENSE_PAUSE
        };
        let at = |pause| tokio::time::sleep_until((*last + pause).into());
        tokio::select! {
            () = at(pause) => {}
            // However often it rings.
            () = async { tokio::join!(bell.wait(), at(TENSE_PAUSE)); } => {}
        }
    }

    /// Looks, and says what is to be done and why. `idle`: the worker has nothing to do.
    pub fn look(&mut self, idle: bool) -> Option<(Step, String)> {
        let (now, reading) = (Instant::now(), Reading::take());
        self.watch.as_mut()?.last = now;
        self.note_shortage(now, &reading);
        let step = self.policy.step(now, &reading, idle);
        let words = reading.words();
        let reason = if self.policy.stalls() {
            format!("{words}, and programs wait for memory")
        } else {
            words
        };
        let (action, counter) = match step? {
            Step::Trim => ("the worker gives back what it can", &mut self.state.eases),
            Step::EndWhenIdle => ("the worker ends once it is idle", &mut self.state.ends),
            Step::EndNow => ("the worker is ended", &mut self.state.ends),
            Step::GoOn => ("none", &mut 0),
        };
        *counter += 1;
        self.note(action, reason.clone());
        Some((step?, reason))
    }

    /// The worker is gone. `taken`: killed, and not by us. Says whether that was for lack of
    /// memory.
    pub fn exited(&mut self, taken: bool) -> bool {
        let now = Instant::now();
        self.note_shortage(now, &Reading::take());
        let out_of_memory = taken && self.short.is_some_and(|at| now - at < AFTERMATH);
        if out_of_memory {
            self.state.kills += 1;
            self.note(
                "the worker was killed; the next is smaller",
                "memory ran out".to_owned(),
            );
        }
        self.watch = None;
        self.state.triggers = Triggers::default();
        self.policy.gone(now);
        self.state.level = self.policy.level();
        out_of_memory
    }

    fn note_shortage(&mut self, now: Instant, reading: &Reading) {
        let kills = kills();
        if kills > self.kills || memory_policy::is_low(reading) {
            self.short = Some(now);
        }
        self.kills = kills;
    }

    /// Takes note of what was done, and why.
    fn note(&mut self, action: &'static str, reason: String) {
        tracing::info!(reason, level = self.policy.level().id(), "memory: {action}");
        self.state.level = self.policy.level();
        self.state.last = Some(Change {
            at: Instant::now(),
            reason,
            action,
        });
    }

    pub fn state(&self) -> &MemoryState {
        &self.state
    }
}
