//! Prompts that were read, kept for longer than the KV cache of a worker: it hands over what its
//! sequences hold, and it or a later worker of the same model goes on from there. So a conversation
//! outlives an idle release, an idle unload, another model's turn and a crash of the worker.
//!
//! The bytes lie on the disk of the cache directory, in a file that has no name, and are encrypted
//! with keys that end with the daemon (`store/sealed`): nothing of a prompt can be read once it has
//! stopped. The page cache keeps in memory what was written last, as long as nobody else needs it.
//! What is to outlive the daemon, because a request asked for that or because it is a system prompt of
//! the configuration's, has a file of its own (`store/retained`, [`retention`]).
//!
//! A thread for each worker attends to its channel ([`keeper`]).

mod keeper;
mod retention;
mod shelf;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use self::keeper::Keeper;
use self::shelf::{Bytes, Entry, Shelf};
use crate::backend::KeptPrompt;
use crate::chat::PrincipalId;
use crate::config::Memory;
use crate::ipc::prompts::{Prefix, PrefixId, PromptCachePlan};
use crate::store::{FileIdentity, SealedStore, Secret};

/// The part of the memory that is free which the states of one prefix may take while they are made.
const FREE_PART: u64 = 4;

/// What the states of a prefix depend on, besides its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ModelKey {
    /// The model's id, for reports.
    pub model: String,
    /// Of the model's file.
    pub fingerprint: [u8; 32],
    /// Embeddings of media come from it.
    pub projector: Option<FileIdentity>,
    /// llama.cpp's format has both.
    pub slots: u32,
    pub small_kv: bool,
    /// The program, and with it llama.cpp.
    pub worker: Option<FileIdentity>,
}

/// Where prompts are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// On whose disk they lie.
    pub folder: PathBuf,
    /// Bytes that all of them may have.
    pub most: u64,
    /// The secret of those that outlive the daemon; `None`: none does.
    pub secret: Option<PathBuf>,
}

impl Room {
    /// `None` where nothing can be kept.
    pub fn of(memory: &Memory) -> Option<Self> {
        Some(Self {
            folder: memory.cache_directory.clone()?,
            most: memory.prompt_cache_size,
            secret: memory.prompt_cache_key.clone(),
        })
    }
}

/// All that is kept. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct PromptCache(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    shelf: Mutex<Shelf>,
    places: Mutex<Places>,
    /// A secret that somebody else keeps for the daemon.
    given: Option<PathBuf>,
    /// Something came that will expire.
    changed: Notify,
    /// What an earlier daemon left is being looked at.
    recalling: watch::Sender<bool>,
}

/// What is opened when it is needed.
#[derive(Default)]
struct Places {
    /// A file on the disk of this folder.
    store: Option<(PathBuf, SealedStore)>,
    secret: Option<Arc<Secret>>,
    /// Where that lies, or will.
    secret_file: Option<PathBuf>,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

impl PromptCache {
    /// `given`: the file of a secret that somebody else keeps for the daemon, as systemd does its
    /// credentials. It takes the place of the configuration's.
    pub fn new(given: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            given,
            ..Shared::default()
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel for a worker, and attends to it on a thread of its own until the worker ends.
    /// `free` are the bytes of memory that are free, and `shared` the SHA-256 of the system prompts that
    /// everybody may go on from.
    ///
    /// # Errors
    ///
    /// The system has no socket or no thread to give.
    pub(super) fn open_channel(
        &self,
        key: ModelKey,
        room: Room,
        free: u64,
        shared: Vec<[u8; 32]>,
    ) -> io::Result<(PromptCachePlan, File)> {
        let (ours, theirs) = UnixStream::pair()?;
        self.set_limit(room.most);
        let outdated = self.lock().take_outdated(&shared);
        discard_aside(outdated, None);
        self.use_secret(&room);
        let kept = self.lock().of(&key);
        let largest = room.most.min(free / FREE_PART);
        let mut keeper = Keeper::new(self.clone(), ours, key, room, largest, shared);
        std::thread::Builder::new()
            .name("gemmad-prompts".to_owned())
            .spawn(move || keeper.attend())?;
        Ok((
            PromptCachePlan { kept, largest },
            File::from(OwnedFd::from(theirs)),
        ))
    }

    /// What is kept of `owner`, and what all may go on from; or of everybody.
    pub fn list(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt> {
        self.lock().list(owner)
    }

    /// Takes away what is kept of `owner`, or of everybody; says what that was. What a worker still
    /// has to hand over of requests that were sent before is not taken any more. When everybody's goes,
    /// so does the secret under which some of it lay, unless somebody else keeps that: whatever the disk
    /// still has is unreadable then.
    pub fn clear(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt> {
        let gone = self.lock().clear(owner);
        let secret = owner.is_none().then(|| {
            let mut places = self.places();
            places.secret = None;
            places.secret_file.clone()
        });
        let secret = secret.flatten().filter(|_| self.0.given.is_none());
        let secret = secret.map(|path| (self.clone(), path));
        let cleared = gone.iter().map(Entry::report).collect();
        discard_aside(gone, secret);
        cleared
    }

    /// Goes with a request to its worker, which says it of what the request leaves.
    pub(super) fn now(&self) -> u64 {
        self.lock().now()
    }

    /// From now on the secret lies there; the configuration may have changed.
    fn use_secret(&self, room: &Room) {
        let mut places = self.places();
        if places.secret_file != room.secret {
            places.secret = None;
            places.secret_file.clone_from(&room.secret);
        }
    }

    fn insert(
        &self,
        key: &Arc<ModelKey>,
        prefix: Prefix,
        bytes: Bytes,
        (replaces, sent): (Option<PrefixId>, u64),
    ) -> Option<PrefixId> {
        let outlives = bytes.expires(prefix.owner).is_some();
        let (id, gone) = self.lock().insert(key, prefix, bytes, replaces, sent);
        discard(gone);
        if outlives {
            self.0.changed.notify_one();
        }
        id
    }

    /// Bytes that all prefixes may have together from now on. What is too much goes.
    pub(super) fn set_limit(&self, most: u64) {
        let gone = self.lock().set_limit(most);
        discard_aside(gone, None);
    }

    /// The file for new entries, on the disk of `folder`.
    fn store(&self, folder: &Path) -> io::Result<SealedStore> {
        let known = self.places().store.clone();
        if let Some((_, store)) = known.filter(|(at, store)| at == folder && !store.is_worn()) {
            return Ok(store);
        }
        // Takes as long as the disk does.
        let store = SealedStore::create(folder)?;
        let new = Some((folder.to_owned(), store.clone()));
        let old = std::mem::replace(&mut self.places().store, new);
        drop(old);
        Ok(store)
    }

    fn remove(&self, id: PrefixId) {
        let gone = self.lock().take(|entry| entry.id == id);
        discard(gone);
    }
}

/// Takes what is gone from the disk.
fn discard(gone: Vec<Entry>) {
    gone.iter().for_each(|entry| entry.bytes.remove());
}

/// [`discard`], and of a secret, where nobody waits for the disk, which may hang. Where there is no
/// thread to be had, here.
fn discard_aside(gone: Vec<Entry>, secret: Option<(PromptCache, PathBuf)>) {
    if gone.is_empty() && secret.is_none() {
        return;
    }
    let gone = Arc::new(Mutex::new(Some(Gone { gone, secret })));
    let take = |what: &Mutex<Option<Gone>>| {
        let what = what.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(gone) = what {
            gone.discard();
        }
    };
    let aside = gone.clone();
    let started = std::thread::Builder::new()
        .name("gemmad-prompts".to_owned())
        .spawn(move || take(&aside));
    if started.is_err() {
        take(&gone);
    }
}

/// What is to be taken from the disk.
struct Gone {
    gone: Vec<Entry>,
    /// The secret of what outlives the daemon, and who knows it.
    secret: Option<(PromptCache, PathBuf)>,
}

impl Gone {
    fn discard(self) {
        discard(self.gone);
        let Some((cache, path)) = self.secret else {
            return;
        };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the key of kept prompts cannot be removed");
        }
        // Somebody may have read it while it was there still; the next one is made anew.
        cache.places().secret = None;
    }
}
