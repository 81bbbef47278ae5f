//! The packed weights that are kept on the disk.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};

use super::thread;
use crate::backend::{CacheReport, CachedFile, Failure};
use crate::store::{CacheSpace, PackedCache, PackedFile};

/// How long anyone waits to know what the cache can hold.
const SPACE_TIME: Duration = Duration::from_secs(2);

/// What the cache could hold when it was looked at last. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct KnownSpace(Arc<RwLock<Option<CacheSpace>>>);

impl KnownSpace {
    /// `None` while it is not known.
    pub(super) fn get(&self) -> Option<CacheSpace> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, space: Option<CacheSpace>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = space;
    }

    /// Looks at the cache, unless its disk does not answer; then what is known stays.
    pub(super) async fn refresh(&self, turns: &CacheTurns, cache: Option<PackedCache>) {
        let Some(cache) = cache else { return };
        let known = self.clone();
        let look = turns.run(move || known.set(Some(cache.space())));
        if tokio::time::timeout(SPACE_TIME, look).await.is_err() {
            tracing::warn!("the disk of the cache of packed weights does not answer");
        }
    }
}

/// Which files a command is about.
#[derive(Clone, Debug)]
pub enum CacheScope {
    All,
    /// Those of none of these models that no worker has either.
    OfOthers(Vec<String>),
}

/// Lets one at a time to the disk, in the order in which they came: the others wait without a
/// thread each. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct CacheTurns(Arc<Mutex<()>>);

impl CacheTurns {
    /// Has `work` done on a thread of its own when it is its turn. The turn lasts until the disk has
    /// answered, whether anyone still waits for it or not.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let turn = self.0.clone().lock_owned().await;
        thread::run(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
    }

    /// Has `work` done when it is its turn; nothing waits for it.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let turns = self.clone();
        tokio::spawn(async move {
            if let Err(error) = turns.run(work).await {
                tracing::error!(%error, "the cache of packed weights could not be changed");
            }
        });
    }

    /// Answers when the disk has done its work. `in_use` names the file of the worker; `clear`: the files are taken away.
    pub fn report(
        &self,
        cache: Option<PackedCache>,
        in_use: Option<String>,
        scope: CacheScope,
        clear: bool,
        reply: oneshot::Sender<Result<CacheReport, Failure>>,
    ) {
        self.spawn(move || {
            // A client that has left needs no report.
            if clear || !reply.is_closed() {
                let report = report(cache, in_use.as_deref(), &scope, clear);
                let _ = reply.send(Ok(report));
            }
        });
    }
}

/// Looks at the files, and takes them away if told to. Blocks on the disk.
fn report(
    cache: Option<PackedCache>,
    in_use: Option<&str>,
    scope: &CacheScope,
    clear: bool,
) -> CacheReport {
    let Some(cache) = cache else {
        return CacheReport::default();
    };
    let is_in_use = |file: &PackedFile| in_use == Some(file.name.as_str());
    let mut files = cache.list();
    if let CacheScope::OfOthers(models) = scope {
        files.retain(|file| !is_in_use(file) && !models.iter().any(|id| file.is_of(id)));
    }
    if clear {
        files = cache.clear(files);
    }
    let files = files.into_iter().map(|file| CachedFile {
        in_use: is_in_use(&file),
        name: file.name,
        bytes: file.bytes,
        used: file.used,
    });
    CacheReport {
        directory: Some(cache.folder().to_owned()),
        limit: cache.limit(),
        files: files.collect(),
    }
}
