//! A good that all callers share, with a limit for all of them and one for each user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chat::PrincipalId;

/// What may be taken, and what is taken now.
#[derive(Debug)]
pub struct Quota {
    total: u64,
    per_user: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: u64,
    users: HashMap<PrincipalId, u64>,
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Total { limit: u64 },
    User { limit: u64 },
}

/// One holder's part; dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    owner: PrincipalId,
    amount: u64,
}

impl Quota {
    pub fn new(total: u64, per_user: u64) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_user,
            taken: Mutex::default(),
        })
    }

    /// An empty share, to be [`Share::grow`]n.
    pub fn share(self: &Arc<Self>, owner: PrincipalId) -> Share {
        Share {
            quota: Arc::clone(self),
            owner,
            amount: 0,
        }
    }

    /// What all have together.
    pub fn in_use(&self) -> u64 {
        self.taken().total
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is held; and if it did, plain numbers would still be in order.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes `amount` more, or nothing and says which limit is in the way.
    pub fn grow(&mut self, amount: u64) -> Result<(), Full> {
        let mut taken = self.quota.taken();
        let mine = taken.users.get(&self.owner).copied().unwrap_or(0);
        // The user's own limit comes first: it is the one they can do something about.
        if mine + amount > self.quota.per_user {
            return Err(Full::User {
                limit: self.quota.per_user,
            });
        }
        if taken.total + amount > self.quota.total {
            return Err(Full::Total {
                limit: self.quota.total,
            });
        }
        taken.total += amount;
        taken.users.insert(self.owner, mine + amount);
        drop(taken);
        self.amount += amount;
        Ok(())
    }

    /// Takes over what another share of the same owner holds.
    pub fn absorb(&mut self, mut other: Share) {
        debug_assert!(Arc::ptr_eq(&self.quota, &other.quota) && self.owner == other.owner);
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut taken = self.quota.taken();
        taken.total -= self.amount;
        // A user without anything leaves no trace, so the map is as small as the number of active
        // users.
        if let Some(mine) = taken.users.get_mut(&self.owner) {
            *mine -= self.amount;
            if *mine == 0 {
                taken.users.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(quota: &Arc<Quota>, uid: u32, amount: u64) -> Result<Share, Full> {
        let mut share = quota.share(PrincipalId::User(uid));
        share.grow(amount).map(|()| share)
    }

    #[test]
    fn each_user_has_a_limit_and_all_together_have_one() {
        let quota = Quota::new(5, 3);
        let _a = take(&quota, 1, 3).unwrap();
        assert_eq!(take(&quota, 1, 1).unwrap_err(), Full::User { limit: 3 });
        let _b = take(&quota, 2, 2).unwrap();
        assert_eq!(take(&quota, 2, 1).unwrap_err(), Full::Total { limit: 5 });
        assert_eq!(take(&quota, 3, 1).unwrap_err(), Full::Total { limit: 5 });
    }

    #[test]
    fn a_dropped_share_is_free_again() {
        let quota = Quota::new(5, 3);
        let mut a = take(&quota, 1, 1).unwrap();
        a.grow(2).unwrap();
        assert!(a.grow(1).is_err());
        drop(a);
        assert!(quota.taken().users.is_empty());
        assert_eq!(quota.taken().total, 0);
        take(&quota, 1, 3).unwrap();
    }

    #[test]
    fn what_is_absorbed_is_held_until_its_new_holder_ends() {
        let quota = Quota::new(5, 3);
        let mut a = take(&quota, 1, 1).unwrap();
        a.absorb(take(&quota, 1, 2).unwrap());
        assert_eq!(take(&quota, 1, 1).unwrap_err(), Full::User { limit: 3 });
        drop(a);
        assert_eq!(quota.in_use(), 0);
    }
}
