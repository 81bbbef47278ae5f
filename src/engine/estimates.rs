//! How long it will take, by how long it took: the speed at which each model reads on this machine,
//! and the time that it takes to load. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chat::Reading;

/// Tokens of a prompt whose speed says something of others.
const TELLING: u32 = 32;
/// Of a load, from which on its own speed says more than that of earlier ones.
const TELLING_SHARE: f32 = 0.05;
/// The share that one measurement has in what is known.
const WEIGHT: f64 = 0.5;

/// What was measured of each model.
#[derive(Debug, Default)]
pub struct Estimates(BTreeMap<String, Measured>);

#[derive(Debug, Default)]
struct Measured {
    /// Tokens of a prompt per second.
    reading: Option<f64>,
    loading: Option<Duration>,
}

impl Estimates {
    /// Learns from a prompt that was read.
    pub fn was_read(&mut self, model: &str, reading: &Reading) {
        if let Some(speed) = reading.speed().filter(|_| reading.read() >= TELLING) {
            let known = &mut self.of(model).reading;
            let before = known.unwrap_or(speed);
            *known = Some(before + WEIGHT * (speed - before));
        }
    }

    /// Learns how long a model took to load.
    pub fn was_loaded(&mut self, model: &str, time: Duration) {
        self.of(model).loading = Some(time);
    }

    /// How long the rest of a prompt takes to be read: by what was read of it, else as earlier ones
    /// did.
    pub fn reading_left(&self, model: &str, reading: &Reading) -> Option<Duration> {
        let own = reading.speed().filter(|_| reading.read() >= TELLING);
        let known = || self.0.get(model)?.reading;
        let left = reading.total.saturating_sub(reading.done);
        let speed = own.or_else(known)?;
        Duration::try_from_secs_f64(f64::from(left) / speed).ok()
    }

    /// How long a load goes on that has taken `time` for `share` of the weights, or for who knows
    /// how much: then as long as the last one did.
    pub fn loading_left(
        &self,
        model: &str,
        time: Duration,
        share: Option<f32>,
    ) -> Option<Duration> {
        if let Some(share) = share.filter(|share| *share >= TELLING_SHARE) {
            let rest = (1.0 - share).max(0.0) / share;
            return Some(time.mul_f32(rest));
        }
        let known = self.0.get(model)?.loading?;
        known.checked_sub(time)
    }

    fn of(&mut self, model: &str) -> &mut Measured {
        self.0.entry(model.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reading(done: u32, time_ms: u64) -> Reading {
        Reading {
            total: 1000,
            cached: 100,
            done,
            time_ms,
        }
    }

    #[test]
    fn a_prompt_takes_as_long_as_what_was_read_of_it_says() {
        let mut estimates = Estimates::default();
        let left = |estimates: &Estimates, reading| {
            let left = estimates.reading_left("m", &reading);
            left.map(|left| left.as_secs_f64().round())
        };
        assert_eq!(left(&estimates, reading(100, 0)), None);
        // 300 of 900 tokens in 3 s.
        assert_eq!(left(&estimates, reading(400, 3000)), Some(6.0));
        estimates.was_read("m", &reading(1000, 9000));
        assert_eq!(left(&estimates, reading(100, 0)), Some(9.0));
        // A few tokens say nothing.
        estimates.was_read("m", &reading(110, 1));
        assert_eq!(left(&estimates, reading(110, 1)), Some(9.0));
        assert_eq!(estimates.reading_left("other", &reading(100, 0)), None);
    }

    #[test]
    fn a_load_takes_as_long_as_it_did_until_more_is_known() {
        let mut estimates = Estimates::default();
        let second = Duration::from_secs(1);
        let left = |estimates: &Estimates, time, share| estimates.loading_left("m", time, share);
        assert_eq!(left(&estimates, second, None), None);
        assert_eq!(left(&estimates, second, Some(0.25)), Some(3 * second));
        assert_eq!(left(&estimates, second, Some(1.0)), Some(Duration::ZERO));
        estimates.was_loaded("m", 5 * second);
        assert_eq!(left(&estimates, second, Some(0.01)), Some(4 * second));
        assert_eq!(left(&estimates, 6 * second, None), None);
    }
}
