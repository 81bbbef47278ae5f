//! How far a request is that waits for its answer. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is known of a request whose answer has not begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waiting {
    pub stage: Stage,
    /// An estimate of how long this stage goes on; `None` where nothing was measured yet.
    pub left: Option<Duration>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// That its model, which was not installed, is fetched: bytes that are here, and of how many; `None` where a server has not said.
    Fetching { received: u64, bytes: Option<u64> },
    /// Its turn.
    Queued {
        /// Its place among those that wait, as it is now; the next one has 1.
        position: u32,
    },
    /// Its model.
    Loading {
        /// Of the weights, by bytes, from 0 to 1; `None` as long as the worker has said nothing.
        share: Option<f32>,
    },
    /// That the model has read the prompt.
    Reading(Reading),
}

/// How far the reading of a prompt is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Tokens of the prompt.
    pub total: u32,
    /// Those of them that were in the cache, and are not read again.
    pub cached: u32,
    /// Those that the cache has now, the former included.
    pub done: u32,
    /// Since the prompt had its turn, in milliseconds.
    pub time_ms: u64,
}

impl Reading {
    /// Tokens that were read since it began.
    pub fn read(&self) -> u32 {
        self.done.saturating_sub(self.cached)
    }

    /// Tokens that are to be read in all.
    pub fn to_read(&self) -> u32 {
        self.total.saturating_sub(self.cached)
    }

    /// At what speed, in tokens per second; `None` before anything was read.
    pub fn speed(&self) -> Option<f64> {
        let read = self.read();
        (read > 0 && self.time_ms > 0).then(|| f64::from(read) * 1e3 / self.time_ms as f64)
    }
}

impl Stage {
    /// Whether the other is the same stage, however far.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cached_is_not_read() {
        let reading = Reading {
            total: 1000,
            cached: 200,
            done: 600,
            time_ms: 2000,
        };
        assert_eq!((reading.read(), reading.to_read()), (400, 800));
        assert_eq!(reading.speed(), Some(200.0));
        let begun = Reading {
            done: 200,
            ..reading
        };
        assert_eq!((begun.read(), begun.speed()), (0, None));
        // A worker may say anything.
        let odd = Reading {
            cached: 2000,
            ..reading
        };
        assert_eq!((odd.read(), odd.to_read(), odd.speed()), (0, 0, None));
    }
}
