//! How far the llama thread has come, for others to see while it computes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Written by the llama thread, read by the reader.
#[derive(Debug, Default)]
pub struct Progress {
    steps: AtomicU64,
    computing: AtomicBool,
}

impl Progress {
    /// One node of the graph was computed.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Does `work`, which computes.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.computing.store(true, Ordering::Relaxed);
        let done = work();
        self.computing.store(false, Ordering::Relaxed);
        self.step();
        done
    }

    /// Steps so far, and whether one is being computed.
    pub fn get(&self) -> (u64, bool) {
        (
            self.steps.load(Ordering::Relaxed),
            self.computing.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_seen_while_they_are_computed() {
        let progress = Progress::default();
        assert_eq!(progress.get(), (0, false));
        progress.during(|| {
            assert_eq!(progress.get(), (0, true));
            progress.step();
            assert_eq!(progress.get(), (1, true));
        });
        assert_eq!(progress.get(), (2, false));
    }
}
