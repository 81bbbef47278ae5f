//! A good that all callers share, with a limit for all of them and one for each user.
//!
//! Neither a few greedy users nor many can keep others out:
//!
//! | who | may take until |
//! |---|---|
//! | everyone | all but an eighth is taken, and nobody more than twice what of that is still free |
//! | those who hold next to nothing | all is taken |
//! | administrators | as much again as that eighth is taken beyond it |
//!
//! All of a user's numbers are one account ([`PrincipalId::account`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::chat::PrincipalId;

/// This part of the whole is kept for those who hold little.
const RESERVE: u64 = 8;
/// Who holds no more than this part of the reserve holds little.
const LITTLE: u64 = 32;
/// How often a user may have what is still free: the fewer are there, the more each may have.
const SHARE: u64 = 2;

/// What may be taken, and what is taken now.
#[derive(Debug)]
pub struct Quota {
    total: u64,
    /// The part of `total` that is kept for those who hold little.
    reserve: u64,
    per_user: u64,
    taken: Mutex<Taken>,
    given_back: Notify,
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

/// One holder's part; dropping it gives it back, and what it holds besides.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    /// The account.
    owner: PrincipalId,
    privileged: bool,
    amount: u64,
    /// Of other goods.
    beside: Vec<Share>,
}

impl Quota {
    pub fn new(total: u64, per_user: u64) -> Arc<Self> {
        Arc::new(Self {
            total,
            reserve: total / RESERVE,
            per_user,
            taken: Mutex::default(),
            given_back: Notify::new(),
        })
    }

    /// An empty share, to be [`Share::grow`]n. `privileged`: its owner is an administrator.
    pub fn share(self: &Arc<Self>, owner: PrincipalId, privileged: bool) -> Share {
        Share {
            quota: Arc::clone(self),
            owner: owner.account(),
            privileged,
            amount: 0,
            beside: vec![],
        }
    }

    /// All that can be taken together, by administrators as well.
    pub fn most(&self) -> u64 {
        self.total + self.reserve
    }

    /// Whether `amount` more may go to a user who has `mine` while all have `taken`.
    fn check(&self, amount: u64, mine: u64, taken: u64, privileged: bool) -> Result<(), Full> {
        let (mine, taken) = (mine.saturating_add(amount), taken.saturating_add(amount));
        // The user's own limit comes first: it is the one they can do something about.
        if mine > self.per_user {
            return Err(Full::User {
                limit: self.per_user,
            });
        }
        let common = self.total - self.reserve;
        let free = (common + amount).saturating_sub(taken);
        let fits = if privileged {
            taken <= self.most()
        } else if mine <= (self.reserve / LITTLE).max(1) {
            taken <= self.total
        } else {
            taken <= common && mine <= free.saturating_mul(SHARE)
        };
        if fits {
            Ok(())
        } else {
            Err(Full::Total { limit: self.total })
        }
    }

    /// Waits until somebody gives something back, or returns at once if somebody has since the last
    /// time. For one who waits.
    pub async fn given_back(&self) {
        self.given_back.notified().await;
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
        self.quota
            .check(amount, mine, taken.total, self.privileged)?;
        taken.total += amount;
        taken.users.insert(self.owner, mine + amount);
        drop(taken);
        self.amount += amount;
        Ok(())
    }

    /// On whose account it counts.
    pub fn account(&self) -> PrincipalId {
        self.owner
    }

    /// An empty share of another good, for the same owner.
    pub fn beside(&self, of: &Arc<Quota>) -> Self {
        of.share(self.owner, self.privileged)
    }

    /// Keeps a share of another good for as long as this one is kept.
    pub fn hold(&mut self, other: Share) {
        self.beside.push(other);
    }

    /// Takes over what another share of the same owner holds.
    pub fn absorb(&mut self, mut other: Share) {
        debug_assert!(Arc::ptr_eq(&self.quota, &other.quota) && self.owner == other.owner);
        self.amount += std::mem::take(&mut other.amount);
        self.beside.append(&mut other.beside);
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
        drop(taken);
        self.quota.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(quota: &Arc<Quota>, uid: u32, amount: u64) -> Result<Share, Full> {
        let mut share = quota.share(PrincipalId::User(uid), false);
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

    /// Takes as much as a user gets, one by one.
    fn hoard(quota: &Arc<Quota>, owner: PrincipalId, privileged: bool) -> Vec<Share> {
        let one = || {
            let mut share = quota.share(owner, privileged);
            share.grow(1).map(|()| share)
        };
        std::iter::from_fn(|| one().ok()).collect()
    }

    #[test]
    fn nobody_is_kept_out_by_the_greedy() {
        let quota = Quota::new(2048, 1280);
        let greedy: Vec<Vec<Share>> = (1..=20)
            .map(|uid| hoard(&quota, PrincipalId::User(uid), false))
            .collect();
        assert_eq!(greedy[0].len(), 1195, "a lone user has two thirds");
        assert!(greedy.iter().all(|shares| shares.len() >= 8));
        let newcomer = hoard(&quota, PrincipalId::User(1000), false);
        assert_eq!(newcomer.len(), 8);
        // As many as fill the reserve, too: administrators have their own.
        let crowd: Vec<_> = (2000..3000)
            .map(|uid| hoard(&quota, PrincipalId::User(uid), false))
            .collect();
        assert!(crowd.last().unwrap().is_empty());
        assert_eq!(quota.in_use(), 2048);
        let root = hoard(&quota, PrincipalId::User(0), true);
        assert_eq!(root.len(), 256);
        assert_eq!(quota.in_use(), quota.most());
    }

    #[test]
    fn one_person_has_one_account() {
        let quota = Quota::new(100, 10);
        let _own = hoard(&quota, PrincipalId::User(1001), false);
        let container = PrincipalId::SubUser {
            uid: 100_033,
            owner: 1001,
        };
        assert!(hoard(&quota, container, false).is_empty());
    }

    #[test]
    fn what_is_held_beside_a_share_goes_with_it() {
        let (bytes, media) = (Quota::new(5, 3), Quota::new(50, 30));
        let mut share = take(&bytes, 1, 1).unwrap();
        let mut beside = share.beside(&media);
        beside.grow(30).unwrap();
        assert_eq!(take(&media, 1, 1).unwrap_err(), Full::User { limit: 30 });
        share.hold(beside);
        let mut heir = take(&bytes, 1, 1).unwrap();
        heir.absorb(share);
        assert_eq!((bytes.in_use(), media.in_use()), (2, 30));
        drop(heir);
        assert_eq!((bytes.in_use(), media.in_use()), (0, 0));
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

    #[tokio::test]
    async fn what_is_given_back_is_told_once() {
        let quota = Quota::new(5, 3);
        let told = || {
            let mut told = Box::pin(quota.given_back());
            std::future::poll_fn(move |cx| {
                std::task::Poll::Ready(told.as_mut().poll(cx).is_ready())
            })
        };
        drop(quota.share(PrincipalId::User(1), false));
        assert!(!told().await, "nothing was taken");
        drop((take(&quota, 1, 1), take(&quota, 1, 1)));
        assert!(told().await && !told().await);
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
