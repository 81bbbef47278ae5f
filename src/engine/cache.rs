//! The packed weights that are kept on the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Mutex, oneshot};

use super::Failure;
use crate::store::PackedCache;

/// What there is, or what there was before it was cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// `None`: nothing is kept.
    pub directory: Option<PathBuf>,
    /// Bytes that all files together may have.
    pub limit: u64,
    /// By name.
    pub files: Vec<CachedFile>,
}

/// One model's packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// The model's id, then digits that stand for its contents.
    pub name: String,
    pub bytes: u64,
    pub used: SystemTime,
    /// Whether the worker has it mapped, so that its bytes stay until the model is unloaded.
    pub in_use: bool,
}

impl CacheReport {
    /// Looks at the files, and takes them away if told to. Blocks on the disk.
    fn of(cache: Option<PackedCache>, in_use: Option<&str>, clear: bool) -> Self {
        let Some(cache) = cache else {
            return Self::default();
        };
        let files = if clear { cache.clear() } else { cache.list() };
        let files = files.into_iter().map(|file| CachedFile {
            in_use: in_use == Some(file.name.as_str()),
            name: file.name,
            bytes: file.bytes,
            used: file.used,
        });
        Self {
            directory: Some(cache.folder().to_owned()),
            limit: cache.limit(),
            files: files.collect(),
        }
    }
}

/// Lets one at a time to the disk: the others wait without a thread each.
#[derive(Debug, Default)]
pub(super) struct CacheTurns(Arc<Mutex<()>>);

impl CacheTurns {
    /// Answers when the disk has done its work, off the daemon's one thread. `in_use` names the
    /// file of the worker.
    pub fn ask(
        &self,
        cache: Option<PackedCache>,
        in_use: Option<String>,
        clear: bool,
        reply: oneshot::Sender<Result<CacheReport, Failure>>,
    ) {
        let turns = self.0.clone();
        tokio::spawn(async move {
            let _turn = turns.lock().await;
            // Who has left need not be waited for.
            if reply.is_closed() && !clear {
                return;
            }
            if let Ok(report) = tokio::task::spawn_blocking(move || {
                CacheReport::of(cache, in_use.as_deref(), clear)
            })
            .await
            {
                let _ = reply.send(Ok(report));
            }
        });
    }
}
