//! What is kept, and what of it goes when there is too much.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ModelKey;
use crate::backend::{KeptFor, KeptPrompt};
use crate::chat::PrincipalId;
use crate::ipc::prompts::{KeptPrefix, MAX_PREFIXES, Owner, Prefix, PrefixId};
use crate::store::{RetainedFile, SealedFile};

/// How long what a request asked for outlives the daemon.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Users of whom single things are remembered at most.
const MAX_USERS: usize = 4096;

/// Where the bytes of a prefix lie.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// They end with the daemon.
    Sealed(Arc<SealedFile>),
    /// They do not.
    Retained(Arc<RetainedFile>),
}

impl Bytes {
    pub fn count(&self) -> u64 {
        match self {
            Self::Sealed(file) => file.bytes(),
            Self::Retained(file) => file.bytes(),
        }
    }

    /// As [`SealedFile::read`].
    pub fn read(&self, take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Sealed(file) => file.read(take),
            Self::Retained(file) => file.read(take),
        }
    }

    /// When they have to go, if they are `owner`'s.
    pub fn expires(&self, owner: Owner) -> Option<SystemTime> {
        match (self, owner) {
            (Self::Retained(file), Owner::One(_)) => file.written().checked_add(RETENTION),
            _ => None,
        }
    }

    /// Takes them from the disk, if that does not come by itself.
    pub fn remove(&self) {
        if let Self::Retained(file) = self {
            file.remove();
        }
    }
}

/// A prefix that is kept.
#[derive(Debug)]
pub struct Entry {
    pub id: PrefixId,
    pub key: Arc<ModelKey>,
    pub prefix: Prefix,
    pub bytes: Bytes,
    /// Larger is later.
    pub used: u64,
    pub used_at: SystemTime,
}

impl Entry {
    pub fn report(&self) -> KeptPrompt {
        let kept_for = match (&self.bytes, self.prefix.owner) {
            (_, Owner::All { .. }) => KeptFor::Configuration,
            (Bytes::Retained(_), _) => KeptFor::Day,
            (Bytes::Sealed(_), _) => KeptFor::DaemonsLife,
        };
        KeptPrompt {
            model: self.key.model.clone(),
            owner: match self.prefix.owner {
                Owner::One(owner) => Some(owner),
                Owner::All { .. } => None,
            },
            tokens: self.prefix.states.first().map_or(0, |state| state.tokens),
            bytes: self.bytes.count(),
            used: self.used_at,
            kept_for,
        }
    }

    fn account(&self) -> Option<PrincipalId> {
        self.prefix.owner.account()
    }

    /// Whether `prefix` brings to the same place, and is kept for as long.
    fn is_like(&self, prefix: &Prefix) -> bool {
        let place = |prefix: &Prefix| prefix.states.first().map(|state| state.digest);
        (self.prefix.is_fork, self.prefix.retention) == (prefix.is_fork, prefix.retention)
            && place(&self.prefix) == place(prefix)
    }
}

#[derive(Debug, Default)]
pub struct Shelf {
    entries: Vec<Entry>,
    last_id: PrefixId,
    /// Larger is later.
    clock: u64,
    /// Bytes that all may have together.
    most: u64,
    /// Who has asked that something outlive the daemon.
    asked: HashSet<PrincipalId>,
    /// When each user's prompts were cleared, and when everybody's.
    cleared: HashMap<PrincipalId, u64>,
    all_cleared: u64,
}

impl Shelf {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// What was cleared later has a larger time.
    pub fn now(&self) -> u64 {
        self.clock
    }

    /// Somebody asks that what is read for them outlive the daemon. A worker's word is not enough.
    pub fn ask(&mut self, owner: PrincipalId) {
        if self.asked.len() >= MAX_USERS {
            self.asked.clear();
        }
        self.asked.insert(owner);
    }

    pub fn has_asked(&self, owner: PrincipalId) -> bool {
        self.asked.contains(&owner)
    }

    /// The prefixes of a model.
    pub fn of(&self, key: &ModelKey) -> Vec<KeptPrefix> {
        let own = self.entries.iter().filter(|entry| *entry.key == *key);
        own.map(|entry| KeptPrefix {
            id: entry.id,
            prefix: entry.prefix.clone(),
        })
        .collect()
    }

    pub fn list(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt> {
        let entries = self.entries.iter();
        entries
            .filter(|entry| owner.is_none_or(|owner| entry.prefix.owner.allows(owner)))
            .map(Entry::report)
            .collect()
    }

    /// Takes out what is kept of `owner`, or of everybody.
    pub fn clear(&mut self, owner: Option<PrincipalId>) -> Vec<Entry> {
        let now = self.tick();
        match owner {
            Some(owner) if self.cleared.len() < MAX_USERS => {
                self.cleared.insert(owner, now);
            }
            // What too many have cleared counts as cleared for all.
            _ => {
                self.cleared.clear();
                self.all_cleared = now;
            }
        }
        self.take(|entry| owner.is_none_or(|owner| entry.prefix.owner == Owner::One(owner)))
    }

    fn is_cleared(&self, owner: Owner, sent: u64) -> bool {
        let own = match owner {
            Owner::One(owner) => self.cleared.get(&owner).copied().unwrap_or_default(),
            Owner::All { .. } => 0,
        };
        own.max(self.all_cleared) > sent
    }

    /// Bytes of an account's prefixes.
    fn bytes_of(&self, account: Option<PrincipalId>) -> u64 {
        let own = self
            .entries
            .iter()
            .filter(|entry| entry.account() == account);
        own.map(|entry| entry.bytes.count()).sum()
    }

    fn all_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes.count()).sum()
    }

    /// Takes out the entries for which that holds. Discarding them is the disk's work, and nobody's who
    /// waits for the lock.
    pub fn take(&mut self, goes: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let (gone, stay) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(goes);
        self.entries = stay;
        gone
    }

    /// Takes out what has been kept for long enough.
    pub fn take_expired(&mut self) -> Vec<Entry> {
        let now = SystemTime::now();
        self.take(|entry| {
            let expires = entry.bytes.expires(entry.prefix.owner);
            expires.is_some_and(|at| at <= now)
        })
    }

    /// [`Shelf::take_expired`], and system prompts that are not in the configuration any more.
    pub fn take_outdated(&mut self, shared: &[[u8; 32]]) -> Vec<Entry> {
        let mut gone = self.take_expired();
        gone.extend(self.take(|entry| match entry.prefix.owner {
            Owner::All { text } => !shared.contains(&text),
            Owner::One(_) => false,
        }));
        gone
    }

    /// When something expires next.
    pub fn next_expiry(&self) -> Option<SystemTime> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| entry.bytes.expires(entry.prefix.owner))
            .min()
    }

    /// Makes room for `bytes` more of `account`'s: what was not used for the longest time goes, of
    /// the account that has the most of what there is too much of, bytes or prompts. Nobody's prompts
    /// push out more of another's than they have themselves.
    pub fn make_room(&mut self, bytes: u64, account: Option<PrincipalId>) -> Vec<Entry> {
        let (mut gone, most) = (vec![], self.most);
        loop {
            let too_many = self.entries.len() >= MAX_PREFIXES;
            if !too_many && self.all_bytes().saturating_add(bytes) <= most {
                break;
            }
            // What there is too much of is what counts.
            let weight = |owner: Option<PrincipalId>| {
                let asks = owner == account;
                if too_many {
                    let of = |entry: &&Entry| entry.account() == owner;
                    self.entries.iter().filter(of).count() as u64 + u64::from(asks)
                } else {
                    self.bytes_of(owner) + if asks { bytes } else { 0 }
                }
            };
            let oldest =
                self.entries.iter().enumerate().max_by_key(|(_, entry)| {
                    (weight(entry.account()), std::cmp::Reverse(entry.used))
                });
            let Some((at, _)) = oldest else { break };
            gone.push(self.entries.remove(at));
        }
        gone
    }

    /// Adds a prefix, in the place of `replaces` and of what brings to the same place. Returns its name,
    /// unless it is not to be kept, and what goes.
    pub fn insert(
        &mut self,
        key: &Arc<ModelKey>,
        prefix: Prefix,
        bytes: Bytes,
        replaces: Option<PrefixId>,
        sent: u64,
    ) -> (Option<PrefixId>, Vec<Entry>) {
        let (owner, count) = (prefix.owner, bytes.count());
        // The configuration may have changed meanwhile, and its owner's prompts may have been cleared.
        let is_wanted = count <= self.most && !self.is_cleared(owner, sent);
        self.last_id += 1;
        let entry = Entry {
            id: self.last_id,
            key: key.clone(),
            used: self.tick(),
            used_at: SystemTime::now(),
            prefix,
            bytes,
        };
        if !is_wanted {
            return (None, vec![entry]);
        }
        let mut gone = self.take(|other| {
            let takes_place = Some(other.id) == replaces || other.is_like(&entry.prefix);
            takes_place && other.prefix.owner == owner && *other.key == **key
        });
        gone.extend(self.make_room(count, owner.account()));
        let id = entry.id;
        self.entries.push(entry);
        (Some(id), gone)
    }

    /// Adds what an earlier daemon left, the oldest first.
    pub fn recall(&mut self, key: ModelKey, prefix: Prefix, file: RetainedFile) -> Vec<Entry> {
        let written = file.written();
        let bytes = Bytes::Retained(Arc::new(file));
        let now = self.clock;
        let (id, gone) = self.insert(&Arc::new(key), prefix, bytes, None, now);
        let recalled = self.entries.iter_mut().find(|entry| Some(entry.id) == id);
        recalled
            .into_iter()
            .for_each(|entry| entry.used_at = written);
        gone
    }

    /// Bytes that all may have together from now on. Returns what is too much.
    pub fn set_limit(&mut self, most: u64) -> Vec<Entry> {
        self.most = most;
        // On nobody's account.
        self.make_room(0, None)
    }

    /// A prefix's bytes, which count as used now.
    pub fn fetch(&mut self, key: &ModelKey, id: PrefixId) -> Option<Bytes> {
        let (used, now) = (self.tick(), SystemTime::now());
        let is_it = |entry: &&mut Entry| entry.id == id && *entry.key == *key;
        let entry = self.entries.iter_mut().find(is_it)?;
        let expires = entry.bytes.expires(entry.prefix.owner);
        if expires.is_some_and(|at| at <= now) {
            return None;
        }
        (entry.used, entry.used_at) = (used, now);
        Some(entry.bytes.clone())
    }
}
