//! The installed models. Each model directory is scanned by a task of its own, on another
//! thread: when it is added, when its folders change, and when someone asks for a name that nobody
//! knows. A directory whose disk does not answer keeps the models that were known of it, and
//! nothing waits for it for long.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::thread;
use crate::store::{
    Catalog, Installers, Model, Rejected, Scan, Scanned, Surroundings, surroundings,
};
use crate::sys::inotify::FolderWatch;
use crate::sys::mounts::MountWatch;

/// A scan for an unknown name is so long after the last one at least.
const PAUSE: Duration = Duration::from_secs(1);
/// After a change, the time in which others are likely.
const SETTLE: Duration = Duration::from_millis(500);
/// After this long a scan is tried again for which the system had no thread, descriptor or memory,
/// and so often.
const SHORT: Duration = Duration::from_secs(1);
const TRIES: u32 = 30;
/// How often a directory is scanned whose changes cannot be watched.
const UNSEEN: Duration = Duration::from_secs(30);
/// How long anyone waits for a directory to be scanned.
const SCAN_TIME: Duration = Duration::from_secs(5);

/// The models that were found when the directories were scanned last.
#[derive(Debug)]
pub(super) struct CatalogWatch {
    pub models: Vec<Model>,
    pub rejected: Vec<Rejected>,
    directories: Vec<Directory>,
    /// When the last scan that someone waited for came to its end.
    scanned: Instant,
    /// Until when the scan that someone waits for may take.
    deadline: Option<Instant>,
    reports: mpsc::UnboundedSender<ScanReport>,
}

/// A model directory and the task that scans it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    catalog: Catalog,
    asked: watch::Sender<Asked>,
    /// How many of these the last report answers.
    answered: u64,
    /// It has not answered in [`SCAN_TIME`], and nothing waits for it.
    silent: bool,
    /// Ends the scan that is under way when nobody wants its result.
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What a directory's task is to do.
#[derive(Debug)]
struct Asked {
    /// How often a scan was asked for.
    times: u64,
    /// Whose files count.
    installers: Arc<Installers>,
}

/// What was found in one directory.
#[derive(Debug)]
pub(super) struct ScanReport {
    directory: PathBuf,
    catalog: Catalog,
    answers: u64,
}

impl CatalogWatch {
    /// Starts to scan the directories; `reports` has its results, which are to be given to
    /// [`CatalogWatch::add`].
    pub fn new(
        directories: Vec<PathBuf>,
        installers: Installers,
        reports: mpsc::UnboundedSender<ScanReport>,
    ) -> Self {
        let mut watch = Self {
            models: vec![],
            rejected: vec![],
            directories: vec![],
            scanned: Instant::now(),
            deadline: None,
            reports,
        };
        watch.set_directories(directories, installers);
        watch
    }

    /// Looks into these directories from now on, for files of these installers. Those that stay keep
    /// their models until they are scanned again.
    pub fn set_directories(&mut self, directories: Vec<PathBuf>, installers: Installers) {
        let installers = Arc::new(installers);
        let mut before = std::mem::take(&mut self.directories);
        for path in directories {
            if self.directories.iter().any(|one| one.path == path) {
                continue;
            }
            let known = before.iter().position(|directory| directory.path == path);
            let directory = match known {
                Some(at) => {
                    let known = before.swap_remove(at);
                    let installers = installers.clone();
                    known
                        .asked
                        .send_modify(|asked| asked.installers = installers);
                    known
                }
                None => Directory::watch(path, installers.clone(), self.reports.clone()),
            };
            self.directories.push(directory);
        }
        self.merge();
        self.scan();
    }

    /// Has every directory scanned again.
    pub fn scan(&mut self) {
        for directory in &self.directories {
            directory.asked.send_modify(|asked| asked.times += 1);
        }
        self.deadline = Some(Instant::now() + SCAN_TIME);
        self.end_if_answered();
    }

    /// Whether a name that is not here may be known after the scan that is being waited for, which
    /// is started if need be.
    pub fn may_have_more(&mut self) -> bool {
        if self.deadline.is_none() && self.scanned.elapsed() >= PAUSE {
            self.scan();
        }
        self.is_scanning()
    }

    /// Whether there is something to wait for.
    pub fn is_scanning(&self) -> bool {
        self.deadline.is_some()
    }

    /// Takes what was found in a directory.
    pub fn add(&mut self, report: ScanReport) {
        let found = self
            .directories
            .iter_mut()
            .find(|directory| directory.path == report.directory);
        // Otherwise it is no model directory any more.
        if let Some(directory) = found {
            directory.catalog = report.catalog;
            directory.answered = report.answers;
            directory.silent = false;
            self.merge();
        }
        self.end_if_answered();
    }

    /// Waits until a scan takes too long; then [`CatalogWatch::go_on_without`] is due.
    pub async fn is_late(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Waits no longer for the directories that have not answered.
    pub fn go_on_without(&mut self) {
        for directory in &mut self.directories {
            if directory.is_behind() && !directory.silent {
                directory.silent = true;
                tracing::warn!(
                    directory = %directory.path.display(),
                    "a model directory does not answer; its models stay as they were known"
                );
            }
        }
        self.end_if_answered();
    }

    /// Waits for the first scan.
    pub async fn settle(&mut self, reports: &mut mpsc::UnboundedReceiver<ScanReport>) {
        while self.is_scanning() {
            tokio::select! {
                Some(report) = reports.recv() => self.add(report),
                () = self.is_late() => self.go_on_without(),
            }
        }
    }

    fn end_if_answered(&mut self) {
        let waits = |directory: &Directory| directory.is_behind() && !directory.silent;
        if self.deadline.is_some() && !self.directories.iter().any(waits) {
            self.deadline = None;
            self.scanned = Instant::now();
        }
    }

    fn merge(&mut self) {
        let catalogs = self.directories.iter().map(|one| one.catalog.clone());
        let merged = Catalog::merged(catalogs);
        for rejected in &merged.rejected {
            if !self.rejected.contains(rejected) {
                tracing::warn!(file = %rejected.path.display(), reason = %rejected.reason, "not a model");
            }
        }
        self.models = merged.models;
        self.rejected = merged.rejected;
    }
}

impl Directory {
    fn watch(
        path: PathBuf,
        installers: Arc<Installers>,
        reports: mpsc::UnboundedSender<ScanReport>,
    ) -> Self {
        let (asked, requests) = watch::channel(Asked {
            times: 0,
            installers,
        });
        let stop = Arc::new(AtomicBool::new(false));
        Self {
            path: path.clone(),
            catalog: Catalog::default(),
            asked,
            answered: 0,
            silent: false,
            stop: stop.clone(),
            task: tokio::spawn(scan_on_change(path, stop, requests, reports)),
        }
    }

    fn is_behind(&self) -> bool {
        self.answered < self.asked.borrow().times
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// Scans a directory now, and again whenever something in it changes or a scan is asked for.
async fn scan_on_change(
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    mut requests: watch::Receiver<Asked>,
    reports: mpsc::UnboundedSender<ScanReport>,
) {
    let (mut tries, mut unseen) = (0, false);
    loop {
        let (answers, installers) = {
            let asked = requests.borrow_and_update();
            (asked.times, asked.installers.clone())
        };
        let (Scanned { catalog, shortage }, watch) =
            match scan(&directory, &stop, &installers).await {
                Ok(scanned) => scanned,
                Err(error) => (
                    Scanned {
                        catalog: Catalog::default(),
                        shortage: Some(error),
                    },
                    Watch::default(),
                ),
            };
        if let Some(error) = shortage {
            tries += 1;
            if tries < TRIES {
                // What is known of the directory stays as it was.
                tracing::warn!(directory = %directory.display(), %error, "a model directory is scanned later");
                tokio::time::sleep(SHORT).await;
                continue;
            }
            tracing::error!(directory = %directory.display(), %error, "a model directory could not be scanned");
        }
        tries = 0;
        if let Some(error) = &watch.fault
            && !unseen
        {
            tracing::warn!(directory = %directory.display(), %error, "a model directory cannot be watched; it is scanned every {} s", UNSEEN.as_secs());
        }
        unseen = watch.fault.is_some();
        let report = ScanReport {
            directory: directory.clone(),
            catalog,
            answers,
        };
        if reports.send(report).is_err() {
            return;
        }
        tokio::select! {
            () = watch.change() => {}
            asked = requests.changed() => if asked.is_err() { return },
        }
    }
}

/// Scans a directory on a thread of its own, and begins to watch what it is made of: its folders,
/// and what leads to them, so that one is noticed that comes later or whose rights are mended.
async fn scan(
    directory: &Path,
    stop: &Arc<AtomicBool>,
    installers: &Arc<Installers>,
) -> io::Result<(Scanned, Watch)> {
    let (path, stop) = (directory.to_owned(), stop.clone());
    let installers = installers.clone();
    thread::run(move || {
        // Watched before they are read, so that no change falls between.
        let watch = Watch::of(surroundings(&path));
        (Scan::new(&installers, &stop).run(&path), watch)
    })
    .await
}

/// What tells that a directory may hold something else than it did.
#[derive(Debug, Default)]
struct Watch {
    folders: Option<FolderWatch>,
    mounts: Option<MountWatch>,
    /// Not everything is watched, for this reason.
    fault: Option<io::Error>,
}

impl Watch {
    fn of(around: io::Result<Surroundings>) -> Self {
        let mut watch = Self::default();
        if let Err(error) = around.and_then(|around| watch.begin(around)) {
            watch.fault = Some(error);
        }
        watch
    }

    fn begin(&mut self, around: Surroundings) -> io::Result<()> {
        let folders = around.folders.iter().map(PathBuf::as_path);
        let places = around.places.iter().map(PathBuf::as_path);
        self.folders = Some(FolderWatch::new(folders, places)?);
        let places = around.places.into_iter().collect();
        self.mounts = Some(MountWatch::new(around.folders, places)?);
        Ok(())
    }

    /// Waits until something has changed and the others that are likely then have, too.
    async fn change(self) {
        let folders = async {
            match &self.folders {
                Some(folders) => folders.change().await,
                None => std::future::pending().await,
            }
        };
        let mounts = async {
            match &self.mounts {
                Some(mounts) => mounts.change().await,
                None => std::future::pending().await,
            }
        };
        let unseen = async {
            match &self.fault {
                Some(_) => tokio::time::sleep(UNSEEN).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = folders => {}
            () = mounts => {}
            () = unseen => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}
