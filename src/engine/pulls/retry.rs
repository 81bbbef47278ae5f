//! Pure: how long to wait before the next attempt at a download, and when to give up.

use std::time::Duration;

/// Attempts that bring nothing, one after the other.
const MOST: u32 = 12;
/// The first pause, which doubles with each attempt, and the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// The attempts at one file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    in_vain: u32,
}

impl Attempts {
    /// The pause after an attempt has failed: `None` is the end. `progressed`: it brought bytes. `asked`: what the server asked
    /// for. `chance` is from 0 to 1: many who wait for the same server are not to come back together.
    pub fn failed(
        &mut self,
        progressed: bool,
        asked: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        self.in_vain = if progressed { 1 } else { self.in_vain + 1 };
        if self.in_vain > MOST {
            return None;
        }
        let doubled = FIRST.saturating_mul(1 << (self.in_vain - 1).min(16));
        let pause = doubled
            .min(LONGEST)
            .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        Some(pause.max(asked.unwrap_or_default().min(LONGEST_ASKED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let mut attempts = Attempts::default();
        let pauses: Vec<_> = std::iter::from_fn(|| attempts.failed(false, None, 1.0)).collect();
        assert_eq!(pauses.len(), MOST as usize);
        assert_eq!(pauses[0], FIRST);
        assert_eq!(pauses[1], FIRST * 2);
        assert_eq!(*pauses.last().unwrap(), LONGEST);
    }

    #[test]
    fn an_attempt_that_brought_something_begins_anew() {
        let mut attempts = Attempts::default();
        for _ in 0..100 {
            assert_eq!(attempts.failed(true, None, 1.0), Some(FIRST));
        }
    }

    #[test]
    fn a_server_may_ask_for_more_but_not_for_ever() {
        let mut attempts = Attempts::default();
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(attempts.failed(false, asked(7), 0.0), asked(7));
        assert_eq!(
            attempts.failed(false, asked(1 << 40), 0.0),
            Some(LONGEST_ASKED)
        );
        assert!(attempts.failed(false, asked(0), 0.0) >= Some(FIRST));
    }
}
