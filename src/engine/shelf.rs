//! The installed models. They are looked for again when their folders change, and for a name that
//! nobody knows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ModelInfo;
use crate::store;
use crate::sys::inotify::FolderWatch;

/// A look for an unknown name is so long after the last one at least.
const PAUSE: Duration = Duration::from_secs(1);
/// After a change, the time in which others are likely.
const SETTLE: Duration = Duration::from_millis(500);

/// What was found when it was looked last.
#[derive(Debug)]
pub(super) struct Shelf {
    pub models: Vec<ModelInfo>,
    looked: Instant,
    /// `None` where the system watches no folders for us.
    folders: Option<FolderWatch>,
    /// Something has changed: when to look.
    due: Option<Instant>,
}

impl Shelf {
    /// Looks at the model directories, off the daemon's one thread: a slow disk must not keep
    /// clients waiting.
    pub async fn look(directories: Vec<PathBuf>) -> Self {
        let looked = Instant::now();
        let catalog = match tokio::task::spawn_blocking(move || store::scan(&directories)).await {
            Ok(catalog) => catalog,
            Err(error) => {
                tracing::error!(%error, "the model directories could not be looked at");
                store::Catalog::default()
            }
        };
        for rejected in &catalog.rejected {
            tracing::warn!(file = %rejected.path.display(), reason = %rejected.reason, "not a model");
        }
        let watched = FolderWatch::new(catalog.folders.iter().map(PathBuf::as_path));
        if let Err(error) = &watched {
            tracing::warn!(%error, "changes in the model directories are not seen by themselves");
        }
        Self {
            models: catalog.models,
            looked,
            folders: watched.ok(),
            due: None,
        }
    }

    /// Whether a name that is not here may have come since.
    pub fn may_have_more(&self) -> bool {
        self.looked.elapsed() >= PAUSE
    }

    /// Waits until it should be looked again because something has changed.
    pub async fn changed(&mut self) {
        if self.due.is_none() {
            match &self.folders {
                Some(folders) => folders.change().await,
                None => std::future::pending().await,
            }
        }
        // Kept, so that whoever gives up waiting does not forget it.
        let due = *self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        tokio::time::sleep_until(due.into()).await;
    }
}
