//! Memory that is promised to processes beside the model's worker: those that read and fetch files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The account of it. Clones are the same account.
#[derive(Clone, Debug, Default)]
pub struct ReservedMemory(Arc<AtomicU64>);

/// A part of it, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: ReservedMemory,
    bytes: u64,
}

impl ReservedMemory {
    /// Bytes that are promised now, whether they are in use yet or not.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Promises `bytes` more, if `free` has room for all that is promised then.
    pub fn reserve(&self, bytes: u64, free: u64) -> Option<Reservation> {
        let more = |reserved: u64| reserved.checked_add(bytes).filter(|sum| *sum <= free);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Reservation {
            account: self.clone(),
            bytes,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_promised_than_is_free_and_all_is_given_back() {
        let account = ReservedMemory::default();
        let first = account.reserve(60, 100).unwrap();
        assert!(account.reserve(41, 100).is_none());
        let second = account.clone().reserve(40, 100).unwrap();
        assert_eq!(account.bytes(), 100);
        assert!(account.reserve(1, 100).is_none());
        drop(first);
        assert_eq!(account.bytes(), 40);
        assert!(account.reserve(u64::MAX, u64::MAX).is_none());
        drop(second);
        assert_eq!(account.bytes(), 0);
    }
}
