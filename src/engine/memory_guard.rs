//! Watches the free memory while a model is loaded or attachments are read, and decides with
//! `memory_policy` what is to be done when it runs short.

use std::time::{Duration, Instant};

use super::memory_policy::{self, MemoryPolicy, Step, Users};
use crate::backend::{Change, Level, MemoryState};
use crate::memory::pressure::{PressureTrigger, Reading, Triggers, kills};
use crate::memory::reserved::ReservedMemory;

/// The time between two readings while all is well, and while memory is short.
const CALM_PAUSE: Duration = Duration::from_secs(1);
const TENSE_PAUSE: Duration = Duration::from_millis(250);

/// A SIGKILL that is reported within this time after memory was short is put down to that. The kernel
/// counts a kill, and its memory is free, a while before the process is gone and its standard error
/// is read.
const OOM_WINDOW: Duration = Duration::from_secs(5);

/// Without a worker there is nothing to give back, and no reading is taken.
#[derive(Debug)]
pub(super) struct MemoryGuard {
    policy: MemoryPolicy,
    /// What the workers of attachments may use.
    reserved: ReservedMemory,
    has_model: bool,
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
    pub fn new(reserved: ReservedMemory) -> Self {
        // Opens the kernel's files while there are descriptors for them.
        let _ = Reading::take();
        Self {
            policy: MemoryPolicy::default(),
            reserved,
            has_model: false,
            watch: None,
            kills: kills(),
            short: None,
            state: MemoryState::default(),
        }
    }

    /// A model's worker was started.
    pub fn started(&mut self) {
        self.kills = kills();
        self.short = None;
    }

    /// Its model is loaded: from now on the memory is watched.
    pub fn loaded(&mut self) {
        self.has_model = true;
        self.policy.gone(Instant::now());
        self.watch();
    }

    fn watch(&mut self) -> &mut Watch {
        let triggers = &mut self.state.triggers;
        self.watch.get_or_insert_with(|| {
            let trigger = PressureTrigger::arm();
            *triggers = trigger.triggers();
            Watch {
                trigger,
                last: Instant::now(),
            }
        })
    }

    /// Watches no longer, unless something is there that could give memory back.
    fn end_watch(&mut self) {
        if !self.has_model && !self.reserved.is_held() {
            self.watch = None;
            self.state.triggers = Triggers::default();
            self.policy.gone(Instant::now());
            self.state.level = self.policy.level();
        }
    }

    /// Waits until the next reading is due.
    pub async fn due(&self) {
        let Some(Watch { trigger, last }) = &self.watch else {
            return self.reserved.held().await;
        };
        let pause = if self.policy.level() == Level::Calm {
            CALM_PAUSE
        } else {
            TENSE_PAUSE
        };
        let at = |pause| tokio::time::sleep_until(tokio::time::Instant::from_std(*last + pause));
        tokio::select! {
            () = at(pause) => {}
            // Not more often, however often the trigger fires.
            () = async { tokio::join!(trigger.wait(), at(TENSE_PAUSE)); } => {}
        }
    }

    /// Takes a reading; returns what is to be done and why. `is_idle`: the model's worker has
    /// nothing to do.
    pub fn check(&mut self, is_idle: bool) -> Option<(Step, String)> {
        let (now, reading) = (Instant::now(), Reading::take());
        self.watch().last = now;
        self.note_shortage(now, &reading);
        let users = Users {
            has_model: self.has_model,
            is_idle,
            has_attachments: self.reserved.is_held(),
        };
        let step = self.policy.step(now, &reading, users);
        self.state.level = self.policy.level();
        self.end_watch();
        let step = step?;
        let (action, counter) = match step {
            Step::Trim => ("the worker gives back what it can", &mut self.state.eases),
            Step::EndAttachments => (
                "the workers that read and fetch attachments are ended",
                &mut self.state.ends,
            ),
            Step::EndWhenIdle => ("the worker ends once it is idle", &mut self.state.ends),
            Step::EndNow => ("the worker is ended", &mut self.state.ends),
            Step::GoOn => ("none", &mut 0),
        };
        *counter += 1;
        let reason = self.reason(&reading);
        self.note(action, reason.clone());
        Some((step, reason))
    }

    /// A reading as text for the log and the status.
    fn reason(&self, reading: &Reading) -> String {
        let mut reason = reading.words();
        if self.reserved.bytes() > 0 {
            let mib = self.reserved.bytes() >> 20;
            reason.push_str(&format!(", {mib} MiB are reserved for attachments"));
        }
        if self.policy.stalls() {
            reason.push_str(", and programs wait for memory");
        }
        reason
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
        self.has_model = false;
        self.policy.gone(now);
        self.state.level = self.policy.level();
        self.end_watch();
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn attachments_alone_are_watched_as_long_as_they_are_there() {
        let reserved = ReservedMemory::default();
        let mut guard = MemoryGuard::new(reserved.clone());
        let longer_than_a_pause = CALM_PAUSE * 2;
        assert!(timeout(longer_than_a_pause, guard.due()).await.is_err());
        let reservation = reserved.reserve(5 << 20, u64::MAX).unwrap();
        guard.due().await;
        guard.check(false);
        assert!(guard.watch.is_some());
        let reason = guard.reason(&Reading::take());
        assert!(
            reason.contains("5 MiB are reserved for attachments"),
            "{reason}"
        );
        guard.due().await;
        drop(reservation);
        guard.check(false);
        assert!(guard.watch.is_none());
    }
}
