//! What to do about memory that runs short while workers run. Pure: [`MemoryPolicy::step`] takes a
//! reading and the time.
//!
//! ```text
//!            near the floor,            below the floor for a moment,
//!            or programs wait           or they wait on although the worker is idle
//!    Calm ────────────────────▶ Trimmed ───────────────────────────▶ Draining ───▶ (worker gone: Calm)
//!     ▲   the worker gives        │ ▲    the worker ends once idle      │    │
//!     └── back what it can ───────┘ └───────── room for a minute ───────┘    └ far below the floor while requests run:
//!          room for a minute                                                   the worker ends at once
//! ```
//!
//! The next worker is as large as the memory that is free then allows. Workers that read or fetch
//! attachments are ended before the model's worker is: what they do is not seen by anyone yet.

use std::time::{Duration, Instant};

use crate::backend::Level;
use crate::memory::pressure::Reading;

/// Bytes that must stay free: this part of the whole, within these bounds.
const FLOOR: u64 = 64;
const LEAST_FLOOR: u64 = 24 << 20;
const MOST_FLOOR: u64 = 256 << 20;
/// The floor is near below so many floors, and far above so many.
const NEAR: u64 = 2;
const ROOMY: u64 = 3;
/// Programs wait for memory: this part of the time, in thousandths.
const STALL: u128 = 100;
/// The least time over which that is measured.
const STALL_SPAN: Duration = Duration::from_millis(450);
/// How long programs may wait, although the worker does nothing, before that is held against the
/// worker.
const STALL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a step is given to show effect.
const SETTLE: Duration = Duration::from_millis(500);
/// The pause between two steps back, between two times that memory is given back, and between two
/// workers that are ended.
pub const PAUSE: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The worker gives back what it can.
    Trim,
    /// The workers that read or fetch attachments end now.
    EndAttachments,
    /// The worker ends once it is idle; until then it gets no more requests.
    EndWhenIdle,
    /// The worker ends now.
    EndNow,
    /// There is room again: the worker may go on.
    GoOn,
}

/// Who could give memory back.
#[derive(Clone, Copy, Debug)]
pub struct Users {
    /// Whether a model is loaded.
    pub has_model: bool,
    /// The model's worker has nothing to do.
    pub is_idle: bool,
    /// Whether workers read or fetch attachments.
    pub has_attachments: bool,
}

/// The state of the policy.
#[derive(Debug, Default)]
pub struct MemoryPolicy {
    level: Level,
    /// When the level was reached.
    since: Option<Instant>,
    /// Since when there has been room.
    room: Option<Instant>,
    /// Since when programs have waited although the worker is idle.
    waits: Option<Instant>,
    trimmed: Option<Instant>,
    /// When a worker was last given up.
    ended: Option<Instant>,
    /// When the workers of attachments were last ended.
    attachments_ended: Option<Instant>,
    /// Whether this worker was told to end at once.
    told: bool,
    stalls: Stalls,
}

/// Whether programs wait for memory.
#[derive(Debug, Default)]
struct Stalls {
    last: Option<(Instant, u64)>,
    some: bool,
}

impl Stalls {
    fn step(&mut self, now: Instant, stalled: u64) -> bool {
        let (since, before) = *self.last.get_or_insert((now, stalled));
        let span = now - since;
        if span >= STALL_SPAN {
            self.some =
                u128::from(stalled.saturating_sub(before)) * 1000 >= span.as_micros() * STALL;
            self.last = Some((now, stalled));
        }
        self.some
    }
}

impl MemoryPolicy {
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether programs waited for memory at the last look.
    pub fn stalls(&self) -> bool {
        self.stalls.some
    }

    /// Decides by a reading while a worker runs.
    pub fn step(&mut self, now: Instant, reading: &Reading, users: Users) -> Option<Step> {
        let idle = users.has_model && users.is_idle;
        let (free, floor) = (reading.room.free, floor(reading.room.whole));
        let stalled = self.stalls.step(now, reading.stalled);
        let (short, low) = (free < NEAR * floor || stalled, free < floor);
        let has_room = free >= ROOMY * floor && !stalled;
        self.room = self.room.or(Some(now)).filter(|_| has_room);
        self.waits = self.waits.or(Some(now)).filter(|_| stalled && idle);
        let lasts = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now - since);
        let (room, waits) = (lasts(self.room), lasts(self.waits));
        let at_level = self.since.map_or(Duration::MAX, |since| now - since);
        let rested = |last: Option<Instant>| last.is_none_or(|last| now - last >= PAUSE);
        match self.level {
            Level::Calm if short => {
                self.trimmed = Some(now);
                self.enter(now, Level::Trimmed, Step::Trim)
                    .filter(|_| users.has_model)
            }
            Level::Calm => None,
            // Not again at once for those that come later, or the model's worker would never be
            // asked for its part.
            Level::Trimmed | Level::Draining
                if low
                    && at_level >= SETTLE
                    && users.has_attachments
                    && (rested(self.attachments_ended) || !users.has_model) =>
            {
                self.attachments_ended = Some(now);
                self.enter(now, self.level, Step::EndAttachments)
            }
            Level::Trimmed | Level::Draining if !users.has_model => {
                if room >= PAUSE && at_level >= PAUSE {
                    self.enter(now, Level::Calm, Step::GoOn);
                }
                None
            }
            Level::Trimmed
                if (low && at_level >= SETTLE || waits >= STALL_PATIENCE) && rested(self.ended) =>
            {
                self.ended = Some(now);
                self.enter(now, Level::Draining, Step::EndWhenIdle)
            }
            Level::Trimmed if short && rested(self.trimmed) => {
                self.trimmed = Some(now);
                Some(Step::Trim)
            }
            Level::Trimmed if room >= PAUSE && at_level >= PAUSE => {
                self.enter(now, Level::Calm, Step::GoOn)
            }
            Level::Draining if free < floor / 2 && !idle && !self.told && at_level >= SETTLE => {
                self.told = true;
                Some(Step::EndNow)
            }
            Level::Draining if room >= PAUSE && at_level >= PAUSE && !self.told => {
                self.enter(now, Level::Trimmed, Step::GoOn)
            }
            Level::Trimmed | Level::Draining => None,
        }
    }

    /// The worker is gone, however it went, and there is nothing left to give back; or another one
    /// begins.
    pub fn gone(&mut self, now: Instant) {
        if self.level != Level::Calm {
            self.level = Level::Calm;
            self.since = Some(now);
        }
        self.room = None;
        self.waits = None;
        self.told = false;
        self.stalls = Stalls::default();
    }

    fn enter(&mut self, now: Instant, level: Level, step: Step) -> Option<Step> {
        self.level = level;
        self.since = Some(now);
        Some(step)
    }
}

/// Bytes below which memory is short.
fn floor(whole: u64) -> u64 {
    (whole / FLOOR).clamp(LEAST_FLOOR, MOST_FLOOR)
}

/// Whether memory was so short that a death by SIGKILL is put down to that.
pub fn is_low(reading: &Reading) -> bool {
    reading.room.free < floor(reading.room.whole)
}

#[cfg(test)]
mod tests;
