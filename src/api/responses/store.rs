//! Responses that were asked to be kept: in memory, for a time, each for its own user alone.
//!
//! A user who keeps too many loses their own oldest ones. When all users together keep too much, the one who has the
//! most loses their oldest, so nobody can push others' responses out by keeping many.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::api::wire::responses::items::Item;
use crate::chat::{Message, Part};
use crate::engine::Uid;

/// Users who can keep their full share at the same time.
const USERS: u64 = 4;

/// What a user may keep, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub responses: usize,
    /// Bytes of a user's responses; all users together have four times as many.
    pub bytes: u64,
    pub time: Duration,
}

/// A kept response.
#[derive(Clone, Debug)]
pub struct Kept {
    pub id: String,
    /// The response as it is sent.
    pub json: String,
    /// What was sent for it.
    pub input: Arc<[Item]>,
    /// Everything up to and with its answer: what a next response goes on from.
    pub conversation: Arc<[Message]>,
    /// Whether it is made in the background, and by what.
    pub job: Option<Arc<Job>>,
}

/// The making of a response in the background.
#[derive(Debug)]
pub struct Job {
    /// Tells it to stop.
    pub cancel: Notify,
    /// Becomes true when the response will not change any more.
    pub ended: watch::Sender<bool>,
}

#[derive(Debug)]
pub struct Store {
    bounds: Bounds,
    users: Mutex<HashMap<Uid, User>>,
}

/// One user's responses, oldest first.
#[derive(Debug, Default)]
struct User {
    bytes: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    bytes: u64,
    expires: Instant,
}

impl Kept {
    fn bytes(&self) -> u64 {
        let part = |part: &Part| match part {
            Part::Text(text) => text.len(),
            Part::Picture(picture) => picture.file.len(),
            Part::Sound(sound) => sound.file.len(),
        };
        let message = |message: &Message| {
            let calls = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len() + call.id.len());
            size_of::<Message>()
                + message.content.iter().map(part).sum::<usize>()
                + calls.sum::<usize>()
                + message.reasoning.as_ref().map_or(0, String::len)
        };
        let items = self.input.iter().map(|item| item.json.len() + item.id.len());
        (self.json.len() + items.sum::<usize>() + self.conversation.iter().map(message).sum::<usize>()) as u64
    }

    /// Its maker need not go on.
    fn abandon(&self) {
        self.job.iter().for_each(|job| job.cancel.notify_one());
    }
}

impl User {
    fn remove(&mut self, place: usize) -> Option<Kept> {
        let entry = self.entries.remove(place)?;
        self.bytes -= entry.bytes;
        Some(entry.kept)
    }

    fn drop_oldest(&mut self) {
        self.remove(0).iter().for_each(Kept::abandon);
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.kept.id == id)
    }
}

impl Store {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, users: Mutex::default() })
    }

    /// Whether anything may be kept at all.
    pub fn keeps(&self) -> bool {
        self.bounds.responses > 0
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Uid, User>> {
        // Nothing panics while it is held.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a response, at the cost of older ones. One that is larger than all that may be kept is not.
    pub fn put(self: &Arc<Self>, uid: Uid, kept: Kept) {
        self.insert(uid, kept, Instant::now());
        // Whoever comes back later finds nothing; whoever does not must not have it in memory for ever.
        let (store, time) = (Arc::downgrade(self), self.bounds.time);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            Weak::upgrade(&store).iter().for_each(|store| store.expire(Instant::now()));
        });
    }

    fn insert(&self, uid: Uid, kept: Kept, now: Instant) {
        let bytes = kept.bytes();
        if bytes > self.bounds.bytes || !self.keeps() {
            return kept.abandon();
        }
        let mut users = self.users();
        let user = users.entry(uid).or_default();
        user.bytes += bytes;
        user.entries.push_back(Entry { kept, bytes, expires: now + self.bounds.time });
        while user.entries.len() > self.bounds.responses || user.bytes > self.bounds.bytes {
            user.drop_oldest();
        }
        while users.values().map(|user| user.bytes).sum::<u64>() > self.bounds.bytes * USERS {
            let Some(greatest) = users.values_mut().max_by_key(|user| user.bytes) else { return };
            greatest.drop_oldest();
        }
        users.retain(|_, user| !user.entries.is_empty());
    }

    /// Puts a response in the place of what it was before. `false` if that is gone.
    pub fn replace(&self, uid: Uid, kept: Kept) -> bool {
        let bytes = kept.bytes();
        let mut users = self.users();
        let Some(user) = users.get_mut(&uid) else { return false };
        let Some(place) = user.place(&kept.id) else { return false };
        if bytes > self.bounds.bytes {
            user.remove(place);
            return false;
        }
        let entry = &mut user.entries[place];
        user.bytes = user.bytes - entry.bytes + bytes;
        (entry.kept, entry.bytes) = (kept, bytes);
        while user.bytes > self.bounds.bytes {
            user.drop_oldest();
        }
        true
    }

    pub fn get(&self, uid: Uid, id: &str) -> Option<Kept> {
        self.expire(Instant::now());
        let users = self.users();
        let user = users.get(&uid)?;
        Some(user.entries[user.place(id)?].kept.clone())
    }

    /// Forgets a response; `false` if there is none.
    pub fn delete(&self, uid: Uid, id: &str) -> bool {
        self.expire(Instant::now());
        let mut users = self.users();
        let Some(user) = users.get_mut(&uid) else { return false };
        let removed = user.place(id).and_then(|place| user.remove(place));
        users.retain(|_, user| !user.entries.is_empty());
        removed.iter().for_each(Kept::abandon);
        removed.is_some()
    }

    fn expire(&self, now: Instant) {
        let mut users = self.users();
        for user in users.values_mut() {
            while user.entries.front().is_some_and(|entry| entry.expires <= now) {
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

    const BOUNDS: Bounds = Bounds { responses: 3, bytes: 1000, time: Duration::from_secs(60) };

    fn kept(id: &str, bytes: usize) -> Kept {
        Kept { id: id.into(), json: "x".repeat(bytes), input: [].into(), conversation: [].into(), job: None }
    }

    fn ids(store: &Store, uid: Uid) -> Vec<String> {
        store.users().get(&uid).map_or(vec![], |user| user.entries.iter().map(|entry| entry.kept.id.clone()).collect())
    }

    #[test]
    fn each_user_has_their_own_and_loses_their_oldest() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        for id in ["a", "b", "c", "d"] {
            store.insert(1, kept(id, 10), now);
        }
        store.insert(2, kept("e", 10), now);
        assert_eq!(ids(&store, 1), ["b", "c", "d"]);
        assert!(store.get(2, "b").is_none() && store.get(2, "e").is_some());
        assert!(!store.delete(2, "b") && store.delete(1, "b") && !store.delete(1, "b"));
        store.insert(1, kept("large", 995), now);
        assert_eq!(ids(&store, 1), ["large"]);
        store.insert(1, kept("too large", 1001), now);
        assert_eq!(ids(&store, 1), ["large"]);
    }

    #[test]
    fn who_keeps_most_makes_room_for_all() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        for uid in 1..=3 {
            store.insert(uid, kept("a", 500), now);
            store.insert(uid, kept("b", 499), now);
        }
        store.insert(4, kept("small", 900), now);
        store.insert(5, kept("small", 200), now);
        let lost = (1..=3).filter(|uid| ids(&store, *uid).len() == 1).count();
        assert_eq!((lost, ids(&store, 4).len(), ids(&store, 5).len()), (1, 1, 1));
    }

    #[test]
    fn time_passes() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        store.insert(1, kept("a", 10), now);
        store.insert(1, kept("b", 10), now + Duration::from_secs(30));
        store.expire(now + BOUNDS.time);
        assert_eq!(ids(&store, 1), ["b"]);
        store.expire(now + 2 * BOUNDS.time);
        assert!(store.users().is_empty());
    }

    #[test]
    fn a_response_that_grew_is_counted_anew() {
        let (store, now) = (Store::new(BOUNDS), Instant::now());
        store.insert(1, kept("a", 10), now);
        store.insert(1, kept("b", 10), now);
        assert!(store.replace(1, kept("b", 995)));
        assert_eq!(ids(&store, 1), ["b"]);
        assert!(!store.replace(1, kept("a", 10)) && !store.replace(2, kept("b", 10)));
        assert!(!store.replace(1, kept("b", 2000)));
        assert_eq!(ids(&store, 1), [] as [&str; 0]);
        assert_eq!(store.users()[&1].bytes, 0);
    }
}
