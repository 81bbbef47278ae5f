//! What was asked to be stored: in memory, for a time, each thing for its own user alone.
//!
//! A user who keeps too many loses their own oldest ones. When all users together keep too much,
//! the one who has the most loses their oldest, so nobody can push others' things out by keeping
//! many.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::chat::PrincipalId;

/// What a user may keep, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub count: usize,
    /// Bytes of a user's things.
    pub bytes: u64,
    pub time: Duration,
    /// Users who can keep their full share at the same time.
    pub users: u64,
}

/// Something that can be stored.
pub trait Storable: Clone + Send + 'static {
    fn id(&self) -> &str;
    /// What it takes.
    fn bytes(&self) -> u64;
    /// Called when the store drops it: what still works for it stops.
    fn cancel(&self) {}
}

#[derive(Debug)]
pub struct Store<T> {
    bounds: Bounds,
    /// By account: bounds hold for all numbers of a user together.
    users: Mutex<HashMap<PrincipalId, User<T>>>,
}

/// What one account has, oldest first.
#[derive(Debug)]
struct User<T> {
    bytes: u64,
    entries: VecDeque<Entry<T>>,
}

impl<T> Default for User<T> {
    fn default() -> Self {
        Self {
            bytes: 0,
            entries: VecDeque::new(),
        }
    }
}

#[derive(Debug)]
struct Entry<T> {
    /// For whom alone it is there.
    owner: PrincipalId,
    stored: T,
    bytes: u64,
    expires: Instant,
}

impl<T: Storable> User<T> {
    fn remove(&mut self, place: usize) -> Option<T> {
        let entry = self.entries.remove(place)?;
        self.bytes -= entry.bytes;
        Some(entry.stored)
    }

    fn drop_oldest(&mut self) {
        self.remove(0).iter().for_each(T::cancel);
    }

    fn place(&self, owner: PrincipalId, id: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.owner == owner && entry.stored.id() == id)
    }
}

impl<T: Storable> Store<T> {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            users: Mutex::default(),
        })
    }

    /// Whether anything may be stored at all.
    pub fn stores(&self) -> bool {
        self.bounds.count > 0
    }

    fn users(&self) -> MutexGuard<'_, HashMap<PrincipalId, User<T>>> {
        // Nothing panics while it is held.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a thing, at the cost of older ones. One that is larger than all that may be stored is
    /// not.
    pub fn put(self: &Arc<Self>, owner: PrincipalId, stored: T) {
        self.insert(owner, stored, Instant::now());
        // Whoever comes back later finds nothing; whoever does not must not have it in memory for
        // ever.
        let (store, time) = (Arc::downgrade(self), self.bounds.time);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            Weak::upgrade(&store)
                .iter()
                .for_each(|store| store.expire(Instant::now()));
        });
    }

    fn insert(&self, owner: PrincipalId, stored: T, now: Instant) {
        let bytes = stored.bytes();
        if bytes > self.bounds.bytes || !self.stores() {
            return stored.cancel();
        }
        let mut users = self.users();
        let user = users.entry(owner.account()).or_default();
        user.bytes += bytes;
        user.entries.push_back(Entry {
            owner,
            stored,
            bytes,
            expires: now + self.bounds.time,
        });
        while user.entries.len() > self.bounds.count || user.bytes > self.bounds.bytes {
            user.drop_oldest();
        }
        while users.values().map(|user| user.bytes).sum::<u64>()
            > self.bounds.bytes * self.bounds.users
        {
            let Some(greatest) = users.values_mut().max_by_key(|user| user.bytes) else {
                return;
            };
            greatest.drop_oldest();
        }
        users.retain(|_, user| !user.entries.is_empty());
    }

    /// Puts a thing in the place of what it was before. `false` if that is gone.
    pub fn replace(&self, owner: PrincipalId, stored: T) -> bool {
        let bytes = stored.bytes();
        let mut users = self.users();
        let Some(user) = users.get_mut(&owner.account()) else {
            return false;
        };
        let Some(place) = user.place(owner, stored.id()) else {
            return false;
        };
        if bytes > self.bounds.bytes {
            user.remove(place);
            return false;
        }
        let entry = &mut user.entries[place];
        user.bytes = user.bytes - entry.bytes + bytes;
        (entry.stored, entry.bytes) = (stored, bytes);
        while user.bytes > self.bounds.bytes {
            user.drop_oldest();
        }
        true
    }

    pub fn get(&self, owner: PrincipalId, id: &str) -> Option<T> {
        self.expire(Instant::now());
        let users = self.users();
        let user = users.get(&owner.account())?;
        Some(user.entries[user.place(owner, id)?].stored.clone())
    }

    /// All that a user has, oldest first.
    pub fn list(&self, owner: PrincipalId) -> Vec<T> {
        self.expire(Instant::now());
        self.users().get(&owner.account()).map_or(vec![], |user| {
            user.entries
                .iter()
                .filter(|entry| entry.owner == owner)
                .map(|entry| entry.stored.clone())
                .collect()
        })
    }

    /// Forgets a thing; `false` if there is none.
    pub fn delete(&self, owner: PrincipalId, id: &str) -> bool {
        self.expire(Instant::now());
        let mut users = self.users();
        let Some(user) = users.get_mut(&owner.account()) else {
            return false;
        };
        let removed = user.place(owner, id).and_then(|place| user.remove(place));
        users.retain(|_, user| !user.entries.is_empty());
        removed.iter().for_each(T::cancel);
        removed.is_some()
    }

    fn expire(&self, now: Instant) {
        let mut users = self.users();
        for user in users.values_mut() {
            while user
                .entries
                .front()
                .is_some_and(|entry| entry.expires <= now)
            {
                user.drop_oldest();
            }
        }
        users.retain(|_, user| !user.entries.is_empty());
        if users.is_empty() {
            users.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        count: 3,
        bytes: 1000,
        time: Duration::from_secs(60),
        users: 4,
    };

    #[derive(Clone, Debug)]
    struct Thing(String, u64);

    impl Storable for Thing {
        fn id(&self) -> &str {
            &self.0
        }

        fn bytes(&self) -> u64 {
            self.1
        }
    }

    fn stored(id: &str, bytes: u64) -> Thing {
        Thing(id.into(), bytes)
    }

    fn user(uid: u32) -> PrincipalId {
        PrincipalId::User(uid)
    }

    fn ids(store: &Store<Thing>, uid: PrincipalId) -> Vec<String> {
        store.users().get(&uid).map_or(vec![], |user| {
            user.entries
                .iter()
                .map(|entry| entry.stored.0.clone())
                .collect()
        })
    }

    #[test]
    fn each_user_has_their_own_and_loses_their_oldest() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        for id in ["a", "b", "c", "d"] {
            store.insert(user(1), stored(id, 10), now);
        }
        store.insert(user(2), stored("e", 10), now);
        assert_eq!(ids(&store, user(1)), ["b", "c", "d"]);
        assert!(store.get(user(2), "b").is_none() && store.get(user(2), "e").is_some());
        assert!(
            !store.delete(user(2), "b")
                && store.delete(user(1), "b")
                && !store.delete(user(1), "b")
        );
        store.insert(user(1), stored("large", 995), now);
        assert_eq!(ids(&store, user(1)), ["large"]);
        store.insert(user(1), stored("too large", 1001), now);
        assert_eq!(ids(&store, user(1)), ["large"]);
    }

    #[test]
    fn who_keeps_most_makes_room_for_all() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        for uid in 1..=3 {
            store.insert(user(uid), stored("a", 500), now);
            store.insert(user(uid), stored("b", 499), now);
        }
        store.insert(user(4), stored("small", 900), now);
        store.insert(user(5), stored("small", 200), now);
        let lost = (1..=3)
            .filter(|uid| ids(&store, user(*uid)).len() == 1)
            .count();
        assert_eq!(
            (lost, ids(&store, user(4)).len(), ids(&store, user(5)).len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_users_numbers_share_bounds_and_nothing_else() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        let container = PrincipalId::SubUser {
            uid: 100_000,
            owner: 1,
        };
        store.insert(user(1), stored("own", 10), now);
        store.insert(container, stored("contained", 10), now);
        assert!(store.get(container, "own").is_none() && store.get(user(1), "contained").is_none());
        assert!(!store.delete(container, "own"));
        let listed: Vec<String> = store.list(container).into_iter().map(|t| t.0).collect();
        assert_eq!(listed, ["contained"]);
        for id in ["a", "b", "c"] {
            store.insert(container, stored(id, 10), now);
        }
        assert!(
            store.get(user(1), "own").is_none(),
            "the oldest of the account"
        );
    }

    #[test]
    fn time_passes() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        store.insert(user(1), stored("a", 10), now);
        store.insert(user(1), stored("b", 10), now + Duration::from_secs(30));
        store.expire(now + BOUNDS.time);
        assert_eq!(ids(&store, user(1)), ["b"]);
        store.expire(now + 2 * BOUNDS.time);
        assert!(store.users().is_empty());
    }

    #[test]
    fn a_response_that_grew_is_counted_anew() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        store.insert(user(1), stored("a", 10), now);
        store.insert(user(1), stored("b", 10), now);
        assert!(store.replace(user(1), stored("b", 995)));
        assert_eq!(ids(&store, user(1)), ["b"]);
        assert!(
            !store.replace(user(1), stored("a", 10)) && !store.replace(user(2), stored("b", 10))
        );
        assert!(!store.replace(user(1), stored("b", 2000)));
        assert_eq!(ids(&store, user(1)), [] as [&str; 0]);
        assert_eq!(store.users()[&user(1)].bytes, 0);
    }
}
