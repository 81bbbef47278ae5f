//! How many requests a minute a token has had. Pure.

use std::time::{Duration, Instant};

/// A minute's requests may come at once; then each comes back after its part of the minute.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Between two requests that last for ever.
    step: Duration,
    /// When all of a minute's requests are there again.
    full: Instant,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Pace {
    /// `limit`: requests a minute, at least one.
    pub fn new(limit: u32, now: Instant) -> Self {
        Self {
            step: MINUTE / limit.max(1),
            full: now,
        }
    }

    /// Whether all of a minute's requests are there.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full <= now
    }

    /// Takes one, or says after which time one is there.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let next = self.full.max(now) + self.step;
        // A step is rounded down, so that all of a minute's steps fit into it.
        let missing = next.saturating_duration_since(now + MINUTE);
        if missing.is_zero() {
            self.full = next;
            return Ok(());
        }
        Err(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many() {
        for limit in [1, 3, 7, 600] {
            let start = Instant::now();
            let mut pace = Pace::new(limit, start);
            let taken = (0..2 * limit).filter(|_| pace.take(start).is_ok()).count();
            assert_eq!(taken, limit as usize);
            let wait = pace.take(start).unwrap_err();
            assert!(wait <= MINUTE / limit, "{limit}: {wait:?}");
            assert!(pace.take(start + wait - Duration::from_nanos(1)).is_err());
            assert!(pace.take(start + wait).is_ok());
            assert!(pace.take(start + wait).is_err());
            let later = start + wait + MINUTE;
            let taken = (0..2 * limit).filter(|_| pace.take(later).is_ok()).count();
            assert_eq!(taken, limit as usize);
        }
    }
}
