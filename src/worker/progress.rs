//! How far the worker's computations are, for others to see while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::link::Writer;
use crate::ipc::{self, ServeEvent};

/// How often it is told how far something is.
pub const TOLD_EVERY: Duration = Duration::from_millis(250);

/// The computations, each of which is watched by itself: one that goes on hides no other that hangs.
#[derive(Debug, Default)]
pub struct Progress {
    /// The llama thread's.
    pub decoder: Counter,
    /// The encoder thread's.
    pub encoder: Counter,
}

/// Written by who computes, read by the reader.
#[derive(Debug, Default)]
pub struct Counter {
    steps: AtomicU64,
    /// What was asked for and is not done.
    open: AtomicU64,
}

impl Counter {
    /// A step was computed.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Something is to be computed from now on; [`Counter::end`] must follow.
    pub fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Something that had begun is done, or is not wanted any more.
    pub fn end(&self) {
        self.step();
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Does `work`, which computes.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.begin();
        let done = work();
        self.end();
        done
    }

    pub fn get(&self) -> ipc::Progress {
        ipc::Progress {
            steps: self.steps.load(Ordering::Relaxed),
            computing: self.open.load(Ordering::Relaxed) > 0,
        }
    }
}

/// How far the loading is, told to the supervisor until the last clone is dropped.
#[derive(Clone)]
pub struct LoadProgress {
    shares: Arc<Shares>,
    _over: mpsc::Sender<()>,
}

/// From 0 to 1, as the bits of an `f32`.
#[derive(Default)]
struct Shares {
    /// Of the tensors: mapped, or packed.
    loaded: AtomicU32,
    /// Of what was packed at an earlier start and is read from the disk, if there is such: that
    /// takes longest then.
    warmed: AtomicU32,
}

impl Shares {
    fn get(&self) -> f32 {
        let share = |share: &AtomicU32| f32::from_bits(share.load(Ordering::Relaxed));
        let (loaded, warmed) = (share(&self.loaded), share(&self.warmed));
        if warmed > 0.0 { warmed } else { loaded }
    }
}

impl LoadProgress {
    /// Starts to tell `writer`'s other end.
    pub fn told_to(writer: Writer) -> Self {
        let (over, ended) = mpsc::channel();
        let shares = Arc::<Shares>::default();
        let seen = shares.clone();
        std::thread::spawn(move || {
            let mut told = None;
            while ended.recv_timeout(TOLD_EVERY) == Err(RecvTimeoutError::Timeout) {
                let share = seen.get();
                if told.replace(share) != Some(share)
                    && writer.send(&ServeEvent::Loading { share }).is_err()
                {
                    return;
                }
            }
        });
        Self {
            shares,
            _over: over,
        }
    }

    /// So much of the tensors is loaded.
    pub fn loaded(&self, share: f32) {
        self.shares.loaded.store(share.to_bits(), Ordering::Relaxed);
    }

    /// So many of the pieces that every token needs were read.
    pub fn warmed(&self, pieces: usize, of: usize) {
        let share = pieces as f32 / of.max(1) as f32;
        self.shares.warmed.store(share.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_seen_while_they_are_computed() {
        let counter = Counter::default();
        let get = || (counter.get().steps, counter.get().computing);
        assert_eq!(get(), (0, false));
        counter.during(|| {
            assert_eq!(get(), (0, true));
            counter.step();
            assert_eq!(get(), (1, true));
        });
        assert_eq!(get(), (2, false));
    }

    #[test]
    fn what_waits_is_not_done() {
        let counter = Counter::default();
        counter.begin();
        counter.begin();
        counter.end();
        assert!(counter.get().computing);
        counter.end();
        assert!(!counter.get().computing);
    }

    #[test]
    fn what_is_read_from_the_disk_counts_where_there_is_such() {
        let shares = Shares::default();
        assert_eq!(shares.get(), 0.0);
        shares.loaded.store(0.5_f32.to_bits(), Ordering::Relaxed);
        assert_eq!(shares.get(), 0.5);
        shares.warmed.store(0.25_f32.to_bits(), Ordering::Relaxed);
        assert_eq!(shares.get(), 0.25);
    }
}
