//! Whether what was read is worth keeping, and what is kept worth fetching: both take time, and so does
//! reading. Pure.

use std::time::Duration;

/// Fewer tokens are read anew.
const LEAST: usize = 32;
/// Reading what is kept must take so many times as long as keeping it: it may never be asked for.
const KEEPING: f64 = 2.0;
/// Bytes of states per second, before anything was measured: they are encrypted, and go into the page
/// cache first.
const COPYING: f64 = 200e6;
/// The share that one measurement has in what is known.
const WEIGHT: f64 = 0.25;

/// How fast this model is on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Speeds {
    /// Seconds that a token of a prompt takes; `None` until some were read.
    reading: Option<f64>,
    /// Bytes per second.
    copying: f64,
}

impl Default for Speeds {
    fn default() -> Self {
        Self {
            reading: None,
            copying: COPYING,
        }
    }
}

impl Speeds {
    /// So many tokens were read in a step that had nothing else.
    pub fn read(&mut self, tokens: usize, time: Duration) {
        // A step of a few tokens says what a step takes, not what a token does.
        if tokens >= LEAST {
            let took = time.as_secs_f64() / tokens as f64;
            let known = self.reading.unwrap_or(took);
            self.reading = Some(known + WEIGHT * (took - known));
        }
    }

    /// So many bytes went to the supervisor, or came from there.
    pub fn copied(&mut self, bytes: u64, time: Duration) {
        let speed = bytes as f64 / time.as_secs_f64().max(1e-6);
        self.copying += WEIGHT * (speed - self.copying);
    }

    /// Whether so many bytes are to be kept so that so many tokens need not be read again.
    pub fn is_worth_keeping(&self, tokens: usize, bytes: u64) -> bool {
        self.outweighs(tokens, bytes, KEEPING)
    }

    /// Whether so many bytes are to be fetched so that so many tokens need not be read.
    pub fn is_worth_fetching(&self, tokens: usize, bytes: u64) -> bool {
        self.outweighs(tokens, bytes, 1.0)
    }

    fn outweighs(&self, tokens: usize, bytes: u64, times: f64) -> bool {
        let copying = bytes as f64 / self.copying * times;
        let reading = self.reading.map(|token| token * tokens as f64);
        tokens >= LEAST && reading.is_none_or(|reading| reading > copying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn speeds(tokens_per_second: usize, bytes: u64) -> Speeds {
        let mut speeds = Speeds::default();
        let second = Duration::from_secs(1);
        for _ in 0..40 {
            speeds.read(tokens_per_second, second);
            speeds.copied(bytes, second);
        }
        speeds
    }

    #[test]
    fn what_takes_longer_to_copy_than_to_read_is_read() {
        // A full-size E2B: 3,000 tokens in 24 MB. The second machine is fast and its disk is not.
        for (tokens_per_second, copying, keeps, fetches) in [
            (70, 300 * MB, true, true),
            (23, 40 * MB, true, true),
            (5000, MB, false, false),
            (2000, 20 * MB, false, true),
        ] {
            let speeds = speeds(tokens_per_second, copying);
            assert_eq!(speeds.is_worth_keeping(3000, 24 * MB), keeps);
            assert_eq!(speeds.is_worth_fetching(3000, 24 * MB), fetches);
            assert!(!speeds.is_worth_keeping(LEAST - 1, 1));
        }
    }

    #[test]
    fn before_anything_was_measured_it_is_tried() {
        let mut speeds = Speeds::default();
        assert!(speeds.is_worth_keeping(100, 24 * MB));
        speeds.read(1, Duration::from_nanos(1));
        assert!(speeds.is_worth_fetching(100, 24 * MB));
    }
}
