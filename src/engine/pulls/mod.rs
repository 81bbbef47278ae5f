//! Models that are fetched: what is planned, what goes on, what became of it.
//!
//! ```text
//!   ask ─▶ plan: which files, how large, is there room ─▶ a thread for each model ─▶ a worker for each connection
//!                                                            │ hashes, writes              ▲ bytes through a pipe
//!                                                            ▼
//!                                       the model directory's folder of partial files ─▶ names, all at once
//! ```
//!
//! `retry`, `hub` and `limits` are pure; `way` says who gets the token and where the proxy is, `leg` is one connection, `hops` follows
//! redirects, `file` goes on until a file is whole (`target` is that file, `several` has several connections to it, to which `spread`,
//! which is pure, gives pieces), `job` until a model is, `plan` finds out what is meant, `naming` what it is called and where it goes, `door` is asked.

mod document;
mod door;
mod failures;
mod file;
mod hops;
mod hub;
mod job;
mod leg;
mod limits;
mod naming;
mod plan;
mod prune;
mod retry;
mod rights;
mod several;
mod spread;
mod target;
mod way;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use tokio::sync::watch;

use super::PullBasis;
use crate::backend::{
    CatalogReport, Failure, PullAsk, PullFault, PullPlan, PullRights, PullState, PullStatus,
    PullWatch, Puller,
};
use crate::chat::PrincipalId;
use crate::config::Pull;
use crate::memory::probe;
use crate::store::partial::{FOLDER, FolderError, Journal, PartialFolder};
use limits::{Begun, Planning};
use way::Way;

/// Models that were fetched, of which is told.
const MAX_PAST: usize = 32;

/// All downloads of this daemon. Cheap to clone.
#[derive(Clone)]
pub struct Pulls(Arc<Shared>);

struct Shared {
    worker: PathBuf,
    socket: PathBuf,
    /// Replaced when the configuration is read again.
    settings: RwLock<Settings>,
    /// Never held while a disk is waited for.
    jobs: Mutex<BTreeMap<String, Job>>,
    /// Held by who starts one.
    starting: Mutex<()>,
    planning: Planning,
    /// Held by those who write there.
    folders: Mutex<BTreeMap<PathBuf, Weak<PartialFolder>>>,
}

/// What may change while the daemon runs.
#[derive(Clone)]
struct Settings {
    pull: Pull,
    directories: Vec<PathBuf>,
}

/// A model that is fetched.
#[derive(Clone)]
struct Job {
    status: Arc<watch::Sender<PullStatus>>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Pulls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pulls({})", lock(&self.0.jobs).len())
    }
}

/// That it cannot be used.
fn refused(text: impl Into<String>) -> Failure {
    Failure::Pull {
        fault: PullFault::Refused,
        text: text.into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pulls {
    /// `socket`: where systemd starts workers that may use the network, if it does. `directories`: the model directories, of which
    /// the first is written to.
    pub fn new(worker: PathBuf, socket: PathBuf, pull: Pull, directories: Vec<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            worker,
            socket,
            settings: RwLock::new(Settings { pull, directories }),
            jobs: Mutex::default(),
            starting: Mutex::default(),
            planning: Planning::default(),
            folders: Mutex::default(),
        }))
    }

    /// Goes by other settings from now on; what runs stays as it is.
    pub fn set(&self, pull: Pull, directories: Vec<PathBuf>) {
        let mut settings = self
            .0
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *settings = Settings { pull, directories };
    }

    /// Goes on with what an earlier daemon began, for those who may still fetch it. Blocks on the disk.
    pub fn resume(&self, basis: &PullBasis, may: &dyn Fn(PrincipalId, &[PullRights]) -> bool) {
        let Ok((way, directories)) = self.place() else {
            return;
        };
        let directory = &directories[0];
        if !PartialFolder::is_there(directory) {
            return;
        }
        let folder = match self.folder(directory) {
            Ok(folder) => folder,
            Err(failure) => {
                tracing::warn!(%failure, "what was being fetched does not go on");
                return;
            }
        };
        for journal in folder.journals() {
            let owner = journal.owner.map(PrincipalId::User);
            let is_allowed =
                owner.is_none_or(|owner| may(owner, &rights::rights_of_journal(&journal, basis)));
            let kept = job::status(&folder, &journal);
            let begun = match is_allowed {
                true => self.start(way.clone(), folder.clone(), journal).map(drop),
                false => Err(refused("its user may not fetch it any more")),
            };
            match begun {
                Ok(()) => tracing::info!(model = kept.model, "a download goes on"),
                Err(failure) => {
                    tracing::warn!(model = kept.model, %failure, "a download does not go on");
                    self.show_kept(kept, &failure);
                }
            }
        }
    }

    /// Tells of what is kept of a download that does not go on.
    fn show_kept(&self, mut status: PullStatus, failure: &Failure) {
        status.state = PullState::Failed {
            cause: failure.to_string(),
            resumable: true,
        };
        let job = Job {
            status: Arc::new(watch::channel(status.clone()).0),
            stop: Arc::default(),
        };
        lock(&self.0.jobs).insert(status.id, job);
    }

    /// See [`crate::backend::PullBackend::pull_rights`].
    pub(super) fn rights(
        &self,
        ask: &PullAsk,
        basis: &PullBasis,
    ) -> Result<Vec<PullRights>, Failure> {
        let settings = self
            .0
            .settings
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        rights::rights(&settings.pull.hub, ask, basis)
    }

    /// See [`crate::backend::PullBackend::plan_pull`]. Blocks.
    pub(super) fn plan(
        &self,
        ask: &PullAsk,
        by: &Puller,
        basis: &PullBasis,
        report: &CatalogReport,
    ) -> Result<PullPlan, Failure> {
        let _waits = self.0.planning.begin(by.account())?;
        let (way, directories) = self.place()?;
        plan::plan(&way, &directories, ask, by, basis, report).map(|planned| planned.plan)
    }

    /// See [`crate::backend::PullBackend::pull`]. Blocks.
    pub(super) fn pull(
        &self,
        ask: &PullAsk,
        by: &Puller,
        basis: &PullBasis,
        report: &CatalogReport,
    ) -> Result<PullWatch, Failure> {
        let (way, directories) = self.place()?;
        let planned = {
            let _waits = self.0.planning.begin(by.account())?;
            plan::plan(&way, &directories, ask, by, basis, report)?
        };
        if !ask.force {
            check_memory(&planned.plan, probe::room().whole)?;
        }
        let folder = self.folder(&directories[0])?;
        plan::check_room(&planned.plan)?;
        let begun = folder.journals();
        let begun = begun.into_iter().find(|one| one.id == planned.journal.id);
        let mut journal = plan::carried_over(planned.journal, begun);
        journal.owner = by.account().and_then(PrincipalId::uid);
        self.start(way, folder, journal)
    }

    /// What is fetched, and what was.
    pub fn list(&self) -> Vec<PullStatus> {
        let jobs = lock(&self.0.jobs);
        jobs.values()
            .map(|job| job.status.borrow().clone())
            .collect()
    }

    /// Whether something is fetched.
    pub fn is_busy(&self) -> bool {
        lock(&self.0.jobs).values().any(Job::is_running)
    }

    /// Stops a download, if it goes on; what came of it is forgotten. `account`: whose it must be; `None`: anybody's. Blocks on the
    /// disk.
    pub(super) fn cancel(
        &self,
        id: &str,
        account: Option<PrincipalId>,
    ) -> Result<PullWatch, Failure> {
        let _starting = lock(&self.0.starting);
        let found = lock(&self.0.jobs).get(id).cloned();
        let is_whose = |job: &Job| account.is_none() || job.status.borrow().owner == account;
        let none = |text: String| Failure::Pull {
            fault: PullFault::NoJob,
            text,
        };
        let Some(job) = found.filter(is_whose) else {
            return Err(none(
                "there is no such download; `gemmactl pull --status` lists them".into(),
            ));
        };
        if !job.is_running() && !job.is_kept() {
            let model = &job.status.borrow().model;
            return Err(none(format!(
                "the download of {model} is over, and nothing of it is left to forget; `gemmactl rm {model}` removes an installed model"
            )));
        }
        job.stop.store(true, Ordering::Relaxed);
        if job.is_kept() {
            let (_, directories) = self.place()?;
            let folder = self.folder(&directories[0])?;
            let mut journals = folder.journals().into_iter();
            if let Some(journal) = journals.find(|journal| journal.id == id) {
                folder.forget(&journal);
            }
            job.status
                .send_modify(|status| status.state = PullState::Cancelled);
        }
        Ok(job.status.subscribe())
    }

    /// The way to servers, and all model directories. Files go into the first; there is one.
    fn place(&self) -> Result<(Way, Vec<PathBuf>), Failure> {
        let directories = self.settings().directories;
        if directories.is_empty() {
            return Err(refused("no model directory is configured"));
        }
        Ok((self.way().map_err(refused)?, directories))
    }

    fn settings(&self) -> Settings {
        let settings = self.0.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The folder of partial files, which all of this daemon's downloads into a directory share.
    fn folder(&self, directory: &Path) -> Result<Arc<PartialFolder>, Failure> {
        let mut folders = lock(&self.0.folders);
        if let Some(folder) = folders.get(directory).and_then(Weak::upgrade) {
            return Ok(folder);
        }
        let folder =
            PartialFolder::open(directory).map_err(|error| not_written(directory, error))?;
        let folder = Arc::new(folder);
        folders.insert(directory.to_owned(), Arc::downgrade(&folder));
        Ok(folder)
    }

    /// Starts a thread for a model, unless there is one.
    fn start(
        &self,
        way: Way,
        folder: Arc<PartialFolder>,
        journal: Journal,
    ) -> Result<PullWatch, Failure> {
        let _starting = lock(&self.0.starting);
        {
            let jobs = lock(&self.0.jobs);
            if let Some(job) = jobs.get(&journal.id).filter(|job| job.is_running()) {
                job.is_joined_by(journal.owner.map(PrincipalId::User));
                return Ok(job.status.subscribe());
            }
            let others = jobs.iter().filter(|(id, _)| **id != journal.id);
            let begun: Vec<Begun> = others.filter_map(|(_, job)| job.begun()).collect();
            limits::check(&begun, journal.owner.map(PrincipalId::User))?;
        }
        let written = folder.write(&journal);
        written.map_err(|error| not_written(folder.directory(), error.into()))?;
        let (status, watched) = watch::channel(job::status(&folder, &journal));
        let job = Job {
            status: Arc::new(status),
            stop: Arc::default(),
        };
        {
            let mut jobs = lock(&self.0.jobs);
            forget_past(&mut jobs);
            jobs.insert(journal.id.clone(), job.clone());
        }
        // Dropped with the thread's work, whether that was done, panicked, or had no thread.
        let end = End(job);
        let directories = self.settings().directories;
        let work = move || job::run(&way, &folder, journal, &end.0, &directories);
        let thread = std::thread::Builder::new().name("gemmad-pull".to_owned());
        thread.spawn(work).map_err(|error| Failure::NotNow {
            what: "models cannot be fetched",
            cause: error.to_string(),
        })?;
        Ok(watched)
    }
}

impl Job {
    fn is_running(&self) -> bool {
        !self.status.borrow().state.is_over()
    }

    /// Whether it has ended and what came is kept.
    fn is_kept(&self) -> bool {
        self.status.borrow().state.is_kept()
    }

    /// How it counts; `None`: not at all.
    fn begun(&self) -> Option<Begun> {
        let running = self.is_running();
        (running || self.is_kept()).then(|| Begun {
            account: self.status.borrow().owner,
            running,
        })
    }

    /// Somebody else waits for it as well: nobody but administrators takes it from them.
    fn is_joined_by(&self, account: Option<PrincipalId>) {
        self.status.send_if_modified(|status| {
            let is_other = status.owner.is_some() && status.owner != account;
            if is_other {
                status.owner = None;
            }
            is_other
        });
    }
}

/// Sees to it that a job ends.
struct End(Job);

impl Drop for End {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.status.send_modify(|status| {
                status.state = PullState::Failed {
                    cause: "its thread came to an end".into(),
                    resumable: true,
                };
            });
        }
    }
}

/// Refuses what takes more memory than the machine has, `whole` bytes (0: not known); what does not fit just now may fit later.
fn check_memory(plan: &PullPlan, whole: u64) -> Result<(), Failure> {
    let Some(memory) = plan
        .memory
        .as_ref()
        .filter(|memory| whole > 0 && memory.needs > whole)
    else {
        return Ok(());
    };
    let fits = match &memory.automatic {
        Some(other) => format!("{other} would fit (`gemmactl pull auto`)"),
        None => "no model of the catalogs fits now".to_owned(),
    };
    Err(refused(format!(
        "{} takes {} MiB of memory, and this machine has {} MiB; {fits}. `--force` (`\"force\": true`) fetches it all the same",
        plan.model,
        memory.needs >> 20,
        whole >> 20
    )))
}

/// Of those that are over and of which nothing is kept some are told of.
fn forget_past(jobs: &mut BTreeMap<String, Job>) {
    let over: Vec<String> = jobs
        .iter()
        .filter(|(_, job)| job.begun().is_none())
        .map(|(id, _)| id.clone())
        .collect();
    for id in over.iter().skip(MAX_PAST) {
        jobs.remove(id);
    }
}

/// Whose directory it is, and what to do.
fn not_written(directory: &Path, error: FolderError) -> Failure {
    use std::os::unix::fs::MetadataExt;
    let shown = directory.display();
    let text = match error {
        FolderError::Held => {
            return Failure::Pull {
                fault: PullFault::Busy,
                text: format!("another daemon fetches models into {shown}; one does at a time"),
            };
        }
        FolderError::Disk(error) if error.kind() == ErrorKind::StorageFull => {
            return failures::disk(directory, error);
        }
        FolderError::Disk(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => format!(
            "{shown} is on a file system that is mounted read-only, so models are not changed there; those that it has are used"
        ),
        FolderError::Disk(error) if error.kind() == ErrorKind::NotADirectory => format!(
            "{} is a link or a file where partial downloads are kept; delete it",
            directory.join(FOLDER).display()
        ),
        FolderError::Disk(error) => {
            let there = directory.ancestors().find_map(|path| path.metadata().ok());
            let owner = there.map_or(0, |metadata| metadata.uid());
            let own = rustix::process::geteuid().as_raw();
            format!(
                "{shown} cannot be written ({error}): it belongs to user {owner}, and the daemon is user {own}. The daemon's user has to own the first of `directories` in gemmad.toml"
            )
        }
    };
    Failure::Pull {
        fault: PullFault::Directory,
        text,
    }
}

/// How a status says that it was stopped.
fn over(failure: Failure, stopped: bool) -> PullState {
    let resumable = !matches!(
        failure,
        Failure::Pull {
            fault: PullFault::Refused | PullFault::Unknown,
            ..
        }
    );
    match stopped {
        true => PullState::Cancelled,
        false => PullState::Failed {
            cause: failure.to_string(),
            resumable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::PullMemory;

    #[test]
    fn what_the_machine_could_never_hold_is_refused_with_what_would_fit() {
        let mut plan = PullPlan {
            model: "large".into(),
            directory: "/models".into(),
            files: vec![],
            download: Some(1),
            disk: 1 << 40,
            left_out: vec![],
            memory: Some(PullMemory {
                fits: false,
                needs: 20 << 30,
                budget: 1 << 30,
                automatic: Some("small".into()),
            }),
        };
        let text = check_memory(&plan, 16 << 30).unwrap_err().to_string();
        for word in ["large", "20480 MiB", "16384 MiB", "small", "--force"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        // It may fit when others have ended.
        check_memory(&plan, 24 << 30).unwrap();
        check_memory(&plan, 0).unwrap();
        plan.memory = None;
        check_memory(&plan, 1).unwrap();
    }
}
