//! Watches the free memory while a worker runs, and decides with `memory_policy` what is to be done
//! when it runs short.

use std::time::{Duration, Instant};

use super::memory_policy::{self, Level, MemoryPolicy, Step};
use super::status::{Change, MemoryState};
use crate::memory::pressure::{PressureTrigger, Reading, Triggers, kills};

/// The time between two readings while all is well, and while memory is short.
const CALM_PAUSE: Duration = Duration::from_secs(1);
const TENSE_PAUSE: Duration = Duration::from_millis(250);

/// A SIGKILL that is reported within this time after memory was short is put down to that. The kernel
/// counts a kill, and its memory is free, a while before the process is gone and its standard error
/// is read.
const OOM_WINDOW: Duration = Duration::from_secs(5);

/// Without a worker there is nothing to give back, and no reading is taken.
#[derive(Debug, Default)]
pub(super) struct MemoryGuard {
    policy: MemoryPolicy,
    watch: Option<Watch>,
    /// Processes that the kernel had killed by the last reading.
    kills: u64,
    /// When memory was short last, or a process was killed for lack of it.
    short: Option<Instant>,
    state: MemoryState,
}

#[derive(Debug)]
struct Watch {
    trigger: PressureTrigger,
    /// When the last reading was taken.
    last: Instant,
}

impl MemoryGuard {
    /// A worker was started.
    pub fn started(&mut self) {
        self.kills = kills();
        self.short = None;
    }

    /// Its model is loaded: from now on the memory is watched.
    pub fn loaded(&mut self) {
        let trigger = PressureTrigger::arm();
        self.state.triggers = trigger.triggers();
        self.watch = Some(Watch {
            trigger,
            last: Instant::now(),
        });
    }

    /// Waits until the next reading is due.
    pub async fn due(&self) {
        let Some(Watch { trigger, last }) = &self.watch else {
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
            // Not more often, however often the trigger fires.
            () = async { tokio::join!(trigger.wait(), at(TENSE_PAUSE)); } => {}
        }
    }

    /// Takes a reading; returns what is to be done and why. `idle`: the worker has nothing to do.
    pub fn check(&mut self, idle: bool) -> Option<(Step, String)> {
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

    /// The worker is gone. `killed_externally`: by a SIGKILL that was not ours. Returns whether
    /// that was for lack of memory.
    pub fn exited(&mut self, killed_externally: bool) -> bool {
        let now = Instant::now();
        self.note_shortage(now, &Reading::take());
        let out_of_memory = killed_externally && self.short.is_some_and(|at| now - at < OOM_WINDOW);
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

    /// Records what was done, and why.
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
