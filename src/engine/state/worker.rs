//! Where the life of a worker stands. Pure.

use std::time::{Duration, Instant};

use super::Generation;
use super::heartbeat::{Longest, Pulse};
use super::stall::Opening;

/// How long a worker may take to exit after its socket was closed.
pub(super) const END_TIME: Duration = Duration::from_secs(5);

/// The worker that there is.
#[derive(Debug)]
pub(super) struct Worker {
    pub generation: Generation,
    pub model: String,
    pub phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    Starting {
        since: Instant,
        deadline: Instant,
        /// Its files are being opened.
        opening: Option<Opening>,
    },
    Ready(Ready),
    Ending {
        deadline: Instant,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub slots: u32,
    /// Until when what waits for its model goes before what waits for others.
    pub turn: Instant,
    /// Since when it has had nothing to do.
    pub idle: Option<Instant>,
    /// It has given back what it can since then.
    pub trimmed: bool,
    /// What is heard from it; `None` while it has nothing to do.
    pub pulse: Option<Pulse>,
    /// The longest silences after which something was heard again.
    pub longest: Longest,
}

impl Worker {
    /// It is told to end: it has [`END_TIME`] for that.
    pub fn end(&mut self, now: Instant) {
        self.phase = Phase::Ending {
            deadline: now + END_TIME,
        };
    }

    pub fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }
}

impl Ready {
    /// Whether it has had nothing to do for `limit`; never without one.
    pub fn is_idle_for(&self, now: Instant, limit: Option<Duration>) -> bool {
        self.idle
            .zip(limit)
            .is_some_and(|(since, limit)| since + limit <= now)
    }
}
