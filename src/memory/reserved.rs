//! Memory that is reserved for processes beside the model's worker: those that read and fetch files.
//!
//! When memory runs out, all reservations can be revoked: the holder of one ends its process.

use std::sync::Arc;

use tokio::sync::watch;

/// The account of it. Clones are the same account.
#[derive(Clone, Debug)]
pub struct ReservedMemory(Arc<watch::Sender<Account>>);

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Bytes that are reserved now.
    bytes: u64,
    /// Reservations that exist now and are not revoked.
    held: u32,
    /// How often all reservations were revoked.
    revocations: u64,
}

/// A part of it, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: ReservedMemory,
    bytes: u64,
    /// How often all had been revoked when this one was made.
    revocations: u64,
}

impl Default for ReservedMemory {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Account::default())))
    }
}

impl ReservedMemory {
    /// Bytes that are reserved now, whether they are in use yet or not.
    pub fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    /// Reserves `bytes` more, if `free` has room for all that is reserved then.
    pub fn reserve(&self, bytes: u64, free: u64) -> Option<Reservation> {
        let mut revocations = None;
        self.0.send_if_modified(|account| {
            let sum = account.bytes.checked_add(bytes);
            let Some(sum) = sum.filter(|sum| *sum <= free) else {
                return false;
            };
            account.bytes = sum;
            account.held += 1;
            revocations = Some(account.revocations);
            true
        });
        Some(Reservation {
            account: self.clone(),
            bytes,
            revocations: revocations?,
        })
    }

    /// Revokes all reservations that exist now; returns how many. Their bytes stay reserved until
    /// they are dropped.
    pub fn revoke(&self) -> u32 {
        let mut revoked = 0;
        self.0.send_if_modified(|account| {
            revoked = std::mem::take(&mut account.held);
            account.revocations += u64::from(revoked > 0);
            revoked > 0
        });
        revoked
    }

    /// Whether there is a reservation that could be revoked.
    pub fn is_held(&self) -> bool {
        self.0.borrow().held > 0
    }

    /// Waits until there is a reservation that could be revoked.
    pub async fn held(&self) {
        // The sender lives as long as `self`: this does not fail.
        let _ = self
            .0
            .subscribe()
            .wait_for(|account| account.held > 0)
            .await;
    }
}

impl Reservation {
    /// Waits until it is revoked.
    pub async fn revoked(&self) {
        let mut changes = self.account.0.subscribe();
        // The sender lives as long as `self`: this does not fail.
        let _ = changes
            .wait_for(|account| account.revocations > self.revocations)
            .await;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.0.send_modify(|account| {
            account.bytes -= self.bytes;
            account.held -= u32::from(account.revocations == self.revocations);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

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
        assert!(!account.is_held());
    }

    #[tokio::test]
    async fn what_is_revoked_is_told_so_and_what_comes_later_is_not() {
        let account = ReservedMemory::default();
        assert_eq!(account.revoke(), 0);
        let first = account.reserve(60, 100).unwrap();
        account.held().await;
        assert_eq!((account.revoke(), account.revoke()), (1, 0));
        first.revoked().await;
        let second = account.reserve(40, 100).unwrap();
        let moment = Duration::from_millis(50);
        assert!(timeout(moment, second.revoked()).await.is_err());
        assert_eq!((account.bytes(), account.is_held()), (100, true));
        drop(first);
        assert_eq!((account.bytes(), account.is_held()), (40, true));
        drop(second);
        assert_eq!((account.bytes(), account.is_held()), (0, false));
    }
}
