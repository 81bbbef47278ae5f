//! How much smaller than it could be each model is to be loaded, because it ran out of memory not
//! long ago. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long that is remembered.
const MEMORY: Duration = Duration::from_secs(600);
/// Steps at most.
const MOST: u32 = 8;

/// Steps for each model, and when the last one was taken.
#[derive(Debug, Default)]
pub struct Downsizing(BTreeMap<String, (u32, Instant)>);

impl Downsizing {
    /// One step more.
    pub fn step(&mut self, now: Instant, model: &str) {
        let steps = (self.of(now, model) + 1).min(MOST);
        self.0.insert(model.to_owned(), (steps, now));
    }

    /// Steps that the model is to be smaller by.
    pub fn of(&mut self, now: Instant, model: &str) -> u32 {
        self.0.retain(|_, (_, since)| now - *since < MEMORY);
        self.0.get(model).map_or(0, |(steps, _)| *steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_and_forgotten() {
        let (mut downsizing, now) = (Downsizing::default(), Instant::now());
        assert_eq!(downsizing.of(now, "a"), 0);
        downsizing.step(now, "a");
        downsizing.step(now + MEMORY / 2, "a");
        assert_eq!(
            (downsizing.of(now + MEMORY, "a"), downsizing.of(now, "b")),
            (2, 0)
        );
        assert_eq!(downsizing.of(now + MEMORY + MEMORY / 2, "a"), 0);
        (0..20).for_each(|_| downsizing.step(now, "b"));
        assert_eq!(downsizing.of(now, "b"), MOST);
    }
}
