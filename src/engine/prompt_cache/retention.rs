//! What outlives the daemon: it is looked for at the start, and goes when its time is over.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::super::thread;
use super::shelf::RETENTION;
use super::{ModelKey, PromptCache, Room, discard, discard_aside};
use crate::chat::PrincipalId;
use crate::ipc::prompts::{Owner, Prefix};
use crate::store::{FileIdentity, RetainedFile, RetainedWriter, Secret};

/// How long a model waits for what an earlier daemon left to be looked at.
const RECALL_TIME: Duration = Duration::from_secs(10);
/// What a file can be ahead of the clock: the clock may have been set back.
const AHEAD: Duration = Duration::from_secs(60);

/// What [`about`] says.
#[derive(Serialize, Deserialize)]
struct About {
    key: ModelKey,
    prefix: Prefix,
}

/// What is said of a file before its bytes are read.
pub(super) fn about(key: &ModelKey, prefix: &Prefix) -> io::Result<Vec<u8>> {
    let about = About {
        key: key.clone(),
        prefix: prefix.clone(),
    };
    postcard::to_stdvec(&about).map_err(io::Error::other)
}

impl PromptCache {
    /// `owner` asks that what is read for them outlive the daemon.
    pub fn ask(&self, owner: PrincipalId) {
        self.lock().ask(owner);
    }

    /// Looks for what an earlier daemon left, on a thread of its own, and takes away what is of no use:
    /// what is not whole, is too old, or belongs to another worker program than `worker`. From then on
    /// what has been kept for long enough is taken away.
    pub(in crate::engine) fn recall(&self, room: Option<Room>, worker: Option<FileIdentity>) {
        if let Some(room) = room {
            self.use_secret(&room);
            self.0.recalling.send_replace(true);
            let cache = self.clone();
            let look = thread::run(move || cache.look(&room, worker));
            let recalling = self.clone();
            tokio::spawn(async move {
                if let Err(error) = look.await {
                    tracing::warn!(%error, "prompts of an earlier start are not looked at");
                }
                recalling.0.recalling.send_replace(false);
            });
        }
        tokio::spawn(self.clone().expire());
    }

    /// Returns once that is done, or takes too long.
    pub(in crate::engine) async fn recalled(&self) {
        let mut recalling = self.0.recalling.subscribe();
        let done = recalling.wait_for(|recalling| !recalling);
        let _ = tokio::time::timeout(RECALL_TIME, done).await;
    }

    pub(super) fn look(&self, room: &Room, worker: Option<FileIdentity>) {
        let folder = &room.folder;
        if !RetainedFile::are_there(folder) {
            return;
        }
        discard(self.lock().set_limit(room.most));
        let secret = self.secret(room, false).unwrap_or_else(|error| {
            tracing::warn!(%error, "prompts of an earlier start cannot be read");
            None
        });
        let mut found = RetainedFile::list(folder, secret.as_deref());
        found.sort_by_key(|(file, _)| file.written());
        for (file, about) in found {
            match self.usable(&about, &file, worker) {
                Some(About { key, prefix }) => discard(self.lock().recall(key, prefix, file)),
                None => file.remove(),
            }
        }
        self.0.changed.notify_one();
    }

    fn usable(
        &self,
        about: &[u8],
        file: &RetainedFile,
        worker: Option<FileIdentity>,
    ) -> Option<About> {
        let about: About = postcard::from_bytes(about).ok()?;
        let now = SystemTime::now();
        let is_of_the_future = file.written() > now + AHEAD;
        let expires = match about.prefix.owner {
            Owner::One(_) => file.written().checked_add(RETENTION),
            Owner::All { .. } => None,
        };
        let is_good = about.key.worker.is_some()
            && about.key.worker == worker
            && about.prefix.bytes() == Some(file.bytes())
            && !is_of_the_future
            && expires.is_none_or(|at| at > now);
        is_good.then_some(about)
    }

    /// Takes away what has been kept for long enough, when it has.
    async fn expire(self) {
        loop {
            let next = self.lock().next_expiry();
            let changed = self.0.changed.notified();
            match next {
                None => changed.await,
                Some(at) => {
                    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
                    let _ = tokio::time::timeout(left, changed).await;
                }
            }
            discard_aside(self.lock().take_expired(), None);
        }
    }

    /// A file that outlives the daemon.
    pub(super) fn retain(
        &self,
        room: &Room,
        key: &ModelKey,
        prefix: &Prefix,
        bytes: u64,
    ) -> io::Result<RetainedWriter> {
        let secret = self.secret(room, true)?.ok_or_else(|| {
            io::Error::other("`prompt-cache-key` in gemmad.toml names no file for its key")
        })?;
        let about = about(key, prefix)?;
        RetainedWriter::create(&room.folder, &secret, &about, bytes, SystemTime::now())
    }

    /// The secret under which files outlive the daemon. `makes`: one is made if there is none.
    fn secret(&self, room: &Room, makes: bool) -> io::Result<Option<Arc<Secret>>> {
        if let Some(known) = self.places().secret.clone() {
            return Ok(Some(known));
        }
        let named = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        let secret = match (&self.0.given, &room.secret) {
            (_, None) => None,
            (Some(path), _) => Some(Secret::given(path).map_err(|error| named(path, error))?),
            (None, Some(path)) if makes => {
                let secret = Secret::read_or_make(path);
                Some(secret.map_err(|error| named(path, error))?)
            }
            (None, Some(path)) => Secret::read(path).map_err(|error| named(path, error))?,
        };
        let secret = secret.map(Arc::new);
        self.places().secret.clone_from(&secret);
        Ok(secret)
    }
}
