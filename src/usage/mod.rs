//! Account of requests: sums of each principal and day, and, where `[audit]` asks for it, a line for each request. Never what one was
//! about.
//!
//! ```text
//!   backend::Tally ─▶ Books ─▶ days.rs (pure) ─▶ the file of sums
//!                           └▶ log.rs ─▶ the journal, or a file that is rotated
//! ```

mod days;
mod file;
mod log;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::backend::{Entry, Ledger, Used};
use crate::config::Audit;
use days::Days;
use log::Log;

/// How long sums may be newer than the file.
const LATE: Duration = Duration::from_secs(10);
/// How long the disk is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is kept of requests.
#[derive(Debug)]
pub struct Books {
    days: Mutex<Days>,
    /// How many days are kept.
    kept: u32,
    /// `None`: they are in memory alone.
    file: Option<PathBuf>,
    changed: Notify,
    /// Whether that was said of the file which cannot be written.
    failing: Arc<AtomicBool>,
    /// One writer at a time.
    writing: tokio::sync::Mutex<()>,
    log: Log,
}

impl Books {
    /// Goes on with what the file has. One that cannot be used is logged, and replaced with the first request.
    ///
    /// # Errors
    ///
    /// The log of requests cannot be written: a sentence.
    pub fn open(config: &Audit) -> Result<Arc<Self>, String> {
        let log = Log::open(config)?;
        let file = config.usage_file.clone();
        let read = file.as_deref().map(file::read);
        let mut days = read.unwrap_or_default();
        days.forget(today(), config.usage_days);
        Ok(Arc::new(Self {
            days: Mutex::new(days),
            kept: config.usage_days,
            file,
            changed: Notify::new(),
            failing: Arc::default(),
            writing: tokio::sync::Mutex::default(),
            log,
        }))
    }

    /// Writes the file for as long as it runs, a while after something has changed.
    pub async fn attend(&self) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(LATE).await;
            self.write().await;
        }
    }

    /// Writes what is to outlive the daemon.
    pub async fn close(&self) {
        self.write().await;
        self.log.close();
    }

    async fn write(&self) {
        let Some(path) = self.file.clone() else {
            return;
        };
        let _alone = self.writing.lock().await;
        let bytes = self.days().write();
        let (done, written) = tokio::sync::oneshot::channel::<()>();
        let failing = self.failing.clone();
        let write = move || {
            let written = file::write(&path, &bytes);
            let failed_before = failing.swap(written.is_err(), Ordering::Relaxed);
            if let Err(error) = written
                && !failed_before
            {
                tracing::warn!(file = %path.display(), %error, "what was used cannot be written (`usage-file` in gemmad.toml)");
            }
            drop(done);
        };
        let thread = std::thread::Builder::new().name("gemmad-usage".to_owned());
        match thread.spawn(write) {
            // A disk that hangs does not keep the daemon from leaving.
            Ok(_) => drop(tokio::time::timeout(PATIENCE, written).await),
            Err(error) => tracing::warn!(%error, "no thread can be had to write what was used"),
        }
    }

    fn days(&self) -> MutexGuard<'_, Days> {
        // Nothing panics while it is held.
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for Books {
    fn enter(&self, entry: Entry) {
        let today = today();
        {
            let mut days = self.days();
            days.forget(today, self.kept);
            days.add(today, &entry);
        }
        self.changed.notify_one();
        self.log.write(&entry);
    }

    fn days(&self) -> Vec<Used> {
        let mut days = self.days();
        days.forget(today(), self.kept);
        days.used()
    }
}

/// Days after the first of 1970, in UTC.
fn today() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400);
    days.try_into().unwrap_or(u32::MAX - 1)
}
