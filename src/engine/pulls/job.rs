//! One model is fetched: file after file, and then all of them get their names.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::failures;
use super::file::{self, Context};
use super::naming;
use super::way::Way;
use super::{Job, over, refused};
use crate::backend::{Failure, PullState, PullStatus, PulledFile};
use crate::chat::PrincipalId;
use crate::store::catalog::{Role, digest_of, hexadecimal};
use crate::store::install::{role_of, taken_as};
use crate::store::partial::{Journal, PartialFile, PartialFolder};
use crate::store::record::{self, Record};

/// How often it is told how far it is, and over what time the rate is measured.
const TELL: Duration = Duration::from_millis(100);
const RATE_TIME: Duration = Duration::from_secs(2);

/// What is told of a model that is not begun.
pub fn status(folder: &PartialFolder, journal: &Journal) -> PullStatus {
    let file = |(number, file): (usize, &PartialFile)| {
        let done = file.whole.is_some();
        PulledFile {
            role: role(file).id(),
            name: file.name.clone(),
            source: file.source.shown(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
            received: match done {
                true => file.bytes.unwrap_or(0),
                false => folder.good(journal, number) + file.bytes_apart(),
            },
            done,
        }
    };
    PullStatus {
        id: journal.id.clone(),
        model: journal.model.clone(),
        state: PullState::Downloading,
        files: journal.files.iter().enumerate().map(file).collect(),
        rate: 0,
        owner: journal.owner.map(PrincipalId::User),
    }
}

fn role(file: &PartialFile) -> Role {
    [Role::Projector, Role::Drafter]
        .into_iter()
        .find(|role| role.id() == file.role)
        .unwrap_or(Role::Model)
}

/// Blocks until the model is there, or cannot be. `directories`: all model directories.
pub fn run(
    way: &Way,
    folder: &PartialFolder,
    mut journal: Journal,
    job: &Job,
    directories: &[PathBuf],
) {
    let fetched = fetch_all(way, folder, &mut journal, job);
    let stopped = job.stop.load(Ordering::Relaxed);
    let state = match fetched.and_then(|()| publish(folder, &journal, directories)) {
        Ok(()) => {
            tracing::info!(model = journal.model, "the model is fetched");
            PullState::Done
        }
        Err(failure) => {
            if !stopped {
                tracing::warn!(model = journal.model, %failure, "the model is not fetched");
            }
            over(failure, stopped)
        }
    };
    match state.is_kept() {
        true => folder.give_room_back(&journal),
        false => folder.forget(&journal),
    }
    job.status.send_modify(|status| {
        status.state = state;
        status.rate = 0;
    });
}

fn fetch_all(
    way: &Way,
    folder: &PartialFolder,
    journal: &mut Journal,
    job: &Job,
) -> Result<(), Failure> {
    for number in 0..journal.files.len() {
        // Somebody may have taken away what was whole.
        let is_gone =
            !folder.part(&journal.id, number).exists() && !folder.place(journal, number).exists();
        let entry = &mut journal.files[number];
        if is_gone {
            entry.forget();
        }
        if entry.whole.is_none()
            && let Some(hash) = there_already(folder, journal, number)
        {
            journal.files[number].whole = Some(hash.clone());
            done(job, number, journal.files[number].bytes, hash);
        }
        if journal.files[number].whole.is_none() {
            let pace = RefCell::new(Pace::new());
            let tell = |state: Option<PullState>, at: u64| tell(job, &pace, number, state, at);
            let hash = file::fetch(Context {
                way,
                folder,
                journal,
                number,
                stop: &job.stop,
                tell: &tell,
            })?;
            check(folder, journal, number)?;
            journal.files[number].whole = Some(hash.clone());
            let written = folder.write(journal);
            written.map_err(|error| failures::disk(folder.directory(), error))?;
            done(job, number, journal.files[number].bytes, hash);
        }
    }
    match job.stop.load(Ordering::Relaxed) {
        true => Err(failures::cancelled()),
        false => check_together(folder, journal),
    }
}

/// Tells that a file is whole.
fn done(job: &Job, number: usize, bytes: Option<u64>, hash: String) {
    job.status.send_modify(|status| {
        let file = &mut status.files[number];
        file.bytes = bytes;
        file.received = bytes.unwrap_or(file.received);
        file.sha256 = Some(hash);
        file.done = true;
    });
}

/// What a file hashes to that came since it was planned to fetch it: another pull of the same model ended meanwhile.
fn there_already(folder: &PartialFolder, journal: &Journal, number: usize) -> Option<String> {
    let recorded = record::read(&folder.place(journal, number))?;
    let hash = hexadecimal(&recorded.sha256);
    let entry = &journal.files[number];
    let length = folder.place(journal, number).metadata().ok()?.len();
    let is_same = entry.sha256.as_ref() == Some(&hash) && entry.bytes == Some(length);
    is_same.then_some(hash)
}

/// Whether a whole file is what it is fetched for, by its header.
fn check(folder: &PartialFolder, journal: &Journal, number: usize) -> Result<(), Failure> {
    let entry = &journal.files[number];
    let found = taken_as(&folder.part(&journal.id, number), &entry.name);
    let found = found.map_err(|bad| refused(format!("{} cannot be used: {bad}", entry.name)))?;
    match found == role(entry) {
        true => Ok(()),
        false => Err(refused(format!(
            "{} is a {found}, and not a {}",
            entry.name, entry.role
        ))),
    }
}

/// Whether the parts of a model are one together. What came as one file is known to be a model.
fn check_together(folder: &PartialFolder, journal: &Journal) -> Result<(), Failure> {
    let numbers = 0..journal.files.len();
    let models = numbers.filter(|number| role(&journal.files[*number]) == Role::Model);
    let paths = models.map(|number| {
        let part = folder.part(&journal.id, number);
        match part.exists() {
            true => part,
            false => folder.place(journal, number),
        }
    });
    let paths: Vec<_> = paths.collect();
    if paths.len() < 2 {
        return Ok(());
    }
    let cannot = |why: String| {
        refused(format!(
            "the parts of {} cannot be used: {why}",
            journal.model
        ))
    };
    match role_of(&paths).map_err(|bad| cannot(bad.to_string()))? {
        Role::Model => Ok(()),
        other => Err(cannot(format!("together they are a {other}"))),
    }
}

/// Gives the files their names, the model last.
fn publish(
    folder: &PartialFolder,
    journal: &Journal,
    directories: &[PathBuf],
) -> Result<(), Failure> {
    // Another one of the same name may have come meanwhile.
    let _alone = folder.naming();
    naming::check(folder.directory(), directories, journal)?;
    let is_model = |number: &usize| role(&journal.files[*number]) == Role::Model;
    let mut order: Vec<usize> = (0..journal.files.len()).collect();
    order.sort_by_key(is_model);
    for number in order {
        let entry = &journal.files[number];
        let place = folder
            .publish(journal, number)
            .map_err(|error| failures::disk(&folder.place(journal, number), error))?;
        let hash = entry.whole.as_deref().and_then(digest_of);
        if let (Some(sha256), Some(bytes)) = (hash, entry.bytes) {
            // It only spares a look at the catalog.
            let _ = record::write(
                &place,
                &Record {
                    sha256,
                    bytes,
                    source: Some(entry.source.shown()),
                },
            );
        }
    }
    Ok(())
}

/// Tells how far a file is, now and then; at once if something else is done now.
fn tell(job: &Job, pace: &RefCell<Pace>, number: usize, state: Option<PullState>, at: u64) {
    let mut pace = pace.borrow_mut();
    if state.is_none() && pace.told.elapsed() < TELL {
        return;
    }
    pace.told = Instant::now();
    let rate = pace.rate(at);
    job.status.send_modify(|status| {
        status.files[number].received = at;
        status.rate = rate;
        if let Some(state) = state {
            status.state = state;
        }
    });
}

/// How fast a file comes.
struct Pace {
    told: Instant,
    since: Instant,
    from: u64,
    rate: u64,
}

impl Pace {
    fn new() -> Self {
        Self {
            told: Instant::now(),
            since: Instant::now(),
            from: 0,
            rate: 0,
        }
    }

    /// Bytes a second.
    fn rate(&mut self, at: u64) -> u64 {
        let time = self.since.elapsed();
        if at < self.from {
            (self.since, self.from, self.rate) = (Instant::now(), at, 0);
        } else if time >= RATE_TIME {
            self.rate = ((at - self.from) as f64 / time.as_secs_f64()) as u64;
            (self.since, self.from) = (Instant::now(), at);
        } else if self.rate == 0 && time >= TELL {
            return ((at - self.from) as f64 / time.as_secs_f64()) as u64;
        }
        self.rate
    }
}
