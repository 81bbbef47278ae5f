//! When an upstream that fails is left alone. Pure.
//!
//! ```text
//!   closed ── FAILURES in a row ──▶ open for REST ──▶ one request is tried ──▶ closed, or open for twice as long
//! ```

use std::time::{Duration, Instant};

/// Failures in a row after which it is left alone.
const FAILURES: u32 = 3;
/// How long, the first time and at most.
const REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// A circuit breaker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    /// In a row.
    failures: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
}

impl Breaker {
    /// How long it is still left alone.
    pub fn rest(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether it may be asked. After a rest the first who asks is the one who tries; until that is
    /// decided, or has taken as long as the rest, others are kept away.
    pub fn try_pass(&mut self, now: Instant) -> bool {
        if !self.rest(now).is_zero() {
            return false;
        }
        if self.until.is_some() {
            self.until = Some(now + self.rest_time());
        }
        true
    }

    /// It has answered.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// It did not.
    pub fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.until = Some(now + self.rest_time());
        }
    }

    fn rest_time(&self) -> Duration {
        let doublings = self.failures.saturating_sub(FAILURES).min(16);
        (REST * 2_u32.pow(doublings)).min(LONGEST_REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_left_alone_after_failures_in_a_row_and_tried_by_one() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.fail(start);
        }
        breaker.succeed();
        for _ in 0..2 {
            breaker.fail(start);
            assert!(breaker.try_pass(start));
        }
        breaker.fail(start);
        assert_eq!(breaker.rest(start), REST);
        assert!(!breaker.try_pass(start));
        let later = start + REST;
        assert!(breaker.try_pass(later));
        assert!(!breaker.try_pass(later), "one tries");
        breaker.fail(later);
        assert_eq!(breaker.rest(later), 2 * REST);
        for _ in 0..40 {
            breaker.fail(later);
        }
        assert_eq!(breaker.rest(later), LONGEST_REST);
        breaker.succeed();
        assert!(breaker.try_pass(later));
    }
}
