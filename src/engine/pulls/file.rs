//! One file of a model is fetched: attempt after attempt, until it is whole and hashes to what it should.
//!
//! Bytes are hashed here as they come and written by the same thread, so that what was hashed is what is on the disk: the
//! worker, which talks to a server, holds no file. What was written before this daemon's start is read and hashed once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use url::Url;

use super::failures::{cancelled, disk, not_served};
use super::hops::{self, Linked};
use super::leg::{End, Sink, server};
use super::retry::Attempts;
use super::way::Way;
use super::{hub, refused};
use crate::backend::{Failure, PullState};
use crate::engine::keep::RESERVE;
use crate::ipc::PullHead;
use crate::store::catalog::{digest_of, hexadecimal};
use crate::store::free_bytes;
use crate::store::partial::{Journal, PartialFile, PartialFolder, PartialSource, boot};

/// What the disk gets in one go: after so many bytes, or so much time, it is asked to have all, and the journal says so.
const MARK_BYTES: u64 = 64 << 20;
const MARK_TIME: Duration = Duration::from_secs(1);
/// Bytes that are read at a time when they are hashed again.
const PIECE: usize = 1 << 20;
/// Bytes of an entity tag; a longer one is none.
const LONGEST_ETAG: usize = 512;
/// The largest file that is believed in, in bytes.
const LARGEST: u64 = 1 << 44;
/// Times that a file is fetched from its start because its server has another one now, or it hashes to something else.
const RESTARTS: u32 = 2;

/// What stands around the download of one file.
pub struct Context<'a> {
    pub way: &'a Way,
    pub folder: &'a PartialFolder,
    pub journal: &'a mut Journal,
    pub number: usize,
    pub stop: &'a AtomicBool,
    /// Told how far the file is.
    pub tell: &'a dyn Fn(Option<PullState>, u64),
}

impl Context<'_> {
    fn entry(&mut self) -> &mut PartialFile {
        &mut self.journal.files[self.number]
    }

    fn disk(&self, error: io::Error) -> Failure {
        disk(&self.folder.part(&self.journal.id, self.number), error)
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.journal.boot = boot();
        self.folder
            .write(self.journal)
            .map_err(|error| self.disk(error))
    }
}

/// Fetches the file; returns what it hashes to. Blocks for as long as it takes.
///
/// # Errors
/// It cannot be had, it is not what it should be, or nobody wants it any more.
pub fn fetch(mut context: Context<'_>) -> Result<String, Failure> {
    let url = address(&context.way.pull.hub, &context.entry().source)
        .ok_or_else(|| refused("its address cannot be read"))?;
    let mut target = Target::open(&mut context)?;
    let (mut attempts, mut restarts) = (Attempts::default(), 0);
    loop {
        if context.stop.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        (context.tell)(Some(PullState::Downloading), target.at);
        let before = target.at;
        let end = match target.is_whole() {
            true => End::Ended,
            false => attempt(&mut context, &url, &mut target)?,
        };
        let again = match judge(end, &mut target, &context)? {
            Verdict::Whole => {
                let hash = target.finish(&mut context)?;
                match context.entry().sha256.clone() {
                    Some(wanted) if wanted != hash && restarts < RESTARTS - 1 => {
                        tracing::warn!(
                            wanted,
                            hash,
                            "a file hashes to something else; it is fetched again"
                        );
                        Verdict::FromStart
                    }
                    Some(wanted) if wanted != hash => {
                        return Err(refused(format!(
                            "{} hashes to {hash}, and should to {wanted}",
                            context.entry().name
                        )));
                    }
                    _ => return Ok(hash),
                }
            }
            other => other,
        };
        match again {
            Verdict::Again { cause, asked } => {
                let progressed = target.at > before;
                let Some(pause) = attempts.failed(progressed, asked, chance()) else {
                    return Err(server(format!("{cause}; what came is kept")));
                };
                tracing::debug!(
                    cause,
                    pause_ms = pause.as_millis() as u64,
                    "a download is tried again"
                );
                wait(&context, pause, cause, target.at);
            }
            _ => {
                restarts += 1;
                if restarts > RESTARTS {
                    return Err(server("the file changes at its server again and again"));
                }
                target.restart(&mut context)?;
            }
        }
    }
}

/// What follows an attempt.
enum Verdict {
    Whole,
    Again {
        cause: String,
        asked: Option<Duration>,
    },
    FromStart,
}

fn judge(end: End, target: &mut Target, context: &Context<'_>) -> Result<Verdict, Failure> {
    let again = |cause: String, asked| Ok(Verdict::Again { cause, asked });
    match end {
        End::Ended if target.is_whole() => Ok(Verdict::Whole),
        End::Ended => match target.bytes {
            Some(bytes) => again(
                format!("it ended after {} of {bytes} bytes", target.at),
                None,
            ),
            // Who does not say how long it is says so by ending.
            None => {
                target.bytes = Some(target.at);
                Ok(Verdict::Whole)
            }
        },
        End::FromStart => Ok(Verdict::FromStart),
        End::Stopped => Err(cancelled()),
        // What is there is longer than what the server has.
        End::Refused { status: 416, .. } => Ok(Verdict::FromStart),
        End::Refused {
            status: status @ (408 | 425 | 429 | 500..=599),
            retry_after,
        } => again(format!("its server answers {status}"), retry_after),
        End::Refused { status, .. } => Err(not_served(status, context.way)),
        End::Broken {
            reason,
            distrusted: true,
        } => Err(server(reason)),
        End::Broken { reason, .. } => again(reason, None),
        End::Redirected { .. } => again("it is moved".into(), None),
    }
}

/// Where a file is.
pub fn address(hub: &str, source: &PartialSource) -> Option<Url> {
    match source {
        PartialSource::Hub {
            repository,
            revision,
            path,
        } => hub::file_address(hub, repository, revision, path),
        PartialSource::Url(url) => Url::parse(url).ok(),
    }
}

/// One connection, and those that it is moved to.
fn attempt(context: &mut Context<'_>, url: &Url, target: &mut Target) -> Result<End, Failure> {
    let (way, stop) = (context.way, context.stop);
    let (at, etag) = (target.at, context.entry().etag.clone());
    let most = target.bytes.unwrap_or(LARGEST).saturating_sub(at);
    let request = |url: &Url| {
        let mut request = way.request(url, at, most);
        request.etag = etag.clone().filter(|_| at > 0);
        request
    };
    let mut taking = Taking {
        context: &mut *context,
        target: &mut *target,
    };
    let (end, linked) = hops::run(way, url, request, &mut taking, stop)?;
    believe(context.entry(), target, linked);
    target.mark(context, true)?;
    Ok(end)
}

/// What the hub says where nobody else has.
fn believe(entry: &mut PartialFile, target: &mut Target, linked: Linked) {
    let etag = linked
        .etag
        .map(|etag| etag.trim_matches('"').to_lowercase());
    if let Some(hash) = etag.filter(|etag| entry.sha256.is_none() && digest_of(etag).is_some()) {
        entry.sha256 = Some(hash);
    }
    if target.bytes.is_none() {
        target.bytes = linked.bytes.filter(|bytes| *bytes <= LARGEST);
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance all wait alike.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

fn wait(context: &Context<'_>, pause: Duration, cause: String, at: u64) {
    let end = Instant::now() + pause;
    let state = PullState::Waiting {
        cause,
        seconds: pause.as_secs_f64().ceil() as u64,
    };
    (context.tell)(Some(state), at);
    while !context.stop.load(Ordering::Relaxed) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50).min(pause));
    }
}

/// The file as far as it is.
struct Target {
    file: File,
    hash: Sha256,
    /// Bytes that are written and hashed.
    at: u64,
    /// Bytes of the whole.
    bytes: Option<u64>,
    /// Whether the room for all of it was looked for, and taken, before it came.
    has_room: bool,
    marked: (u64, Instant),
    syncer: Syncer,
}

impl Target {
    fn open(context: &mut Context<'_>) -> Result<Self, Failure> {
        let (folder, number) = (context.folder, context.number);
        let good = folder.good(context.journal, number);
        let bytes = context.entry().bytes;
        // More than it will have: it is none of ours.
        let good = if bytes.is_some_and(|bytes| good > bytes) {
            0
        } else {
            good
        };
        let (file, good) = folder
            .open_part(&context.journal.id, number, good, bytes)
            .map_err(|error| context.disk(error))?;
        let mut target = Self {
            file,
            hash: Sha256::new(),
            at: 0,
            bytes,
            has_room: bytes.is_some(),
            marked: (0, Instant::now()),
            syncer: Syncer::default(),
        };
        // Without a name for its state, and without a hash, nobody could tell that the rest is of another file.
        let entry = context.entry();
        match entry.etag.is_none() && entry.sha256.is_none() && good > 0 {
            true => target.restart(context)?,
            false => target.hash_again(context, good)?,
        }
        context.save()?;
        Ok(target)
    }

    fn is_whole(&self) -> bool {
        self.bytes == Some(self.at)
    }

    /// Hashes what was written before.
    fn hash_again(&mut self, context: &Context<'_>, good: u64) -> Result<(), Failure> {
        let mut piece = vec![0; PIECE];
        let mut file = &self.file;
        let mut told = Instant::now();
        (context.tell)(Some(PullState::Verifying), 0);
        file.rewind().map_err(|error| context.disk(error))?;
        while self.at < good {
            if context.stop.load(Ordering::Relaxed) {
                return Err(cancelled());
            }
            let want = PIECE.min((good - self.at) as usize);
            match file.read(&mut piece[..want]) {
                Ok(0) => break,
                Ok(read) => {
                    self.hash.update(&piece[..read]);
                    self.at += read as u64;
                }
                Err(error) => return Err(context.disk(error)),
            }
            if told.elapsed() > Duration::from_millis(100) {
                told = Instant::now();
                (context.tell)(None, self.at);
            }
        }
        Ok(())
    }

    /// Throws away what came.
    fn restart(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.hash = Sha256::new();
        self.at = 0;
        self.syncer = Syncer::default();
        self.bytes = context.entry().bytes;
        let cut = self.file.set_len(0).and_then(|()| self.file.rewind());
        cut.map_err(|error| context.disk(error))?;
        let entry = context.entry();
        (entry.good, entry.etag) = (0, None);
        (context.tell)(None, 0);
        context.save()
    }

    /// Writes down how far the disk is, and has it go on.
    fn mark(&mut self, context: &mut Context<'_>, now: bool) -> Result<(), Failure> {
        let (at, when) = self.marked;
        if !now && self.at - at.min(self.at) < MARK_BYTES && when.elapsed() < MARK_TIME {
            return Ok(());
        }
        self.marked = (self.at, Instant::now());
        let synced = self.syncer.done.load(Ordering::Acquire);
        if synced != context.entry().good || now {
            context.entry().good = synced.min(self.at);
            context.save()?;
        }
        self.syncer.start(&self.file, self.at);
        let left = self.bytes.unwrap_or(0).saturating_sub(self.at);
        let directory = context.folder.directory();
        // Where the room could not be taken, somebody else may have; and how long a file is may be known by its end alone.
        let is_full = match free_bytes(directory) {
            Ok(free) if self.has_room => free == 0 && left > 0,
            Ok(free) => free < RESERVE.saturating_add(left),
            Err(_) => false,
        };
        match is_full {
            true => Err(context.disk(io::ErrorKind::StorageFull.into())),
            false => Ok(()),
        }
    }

    /// Sees to it that the disk has all, and says what it hashes to.
    fn finish(&mut self, context: &mut Context<'_>) -> Result<String, Failure> {
        (context.tell)(Some(PullState::Verifying), self.at);
        let synced = self.file.sync_all();
        synced.map_err(|error| context.disk(error))?;
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        let at = self.at;
        let entry = context.entry();
        (entry.good, entry.bytes) = (at, Some(at));
        context.save()?;
        Ok(hexadecimal(&hash))
    }
}

/// Has the disk take what was written, on a thread of its own: more is written meanwhile.
#[derive(Default)]
struct Syncer {
    /// Bytes that it has.
    done: Arc<AtomicU64>,
    busy: Arc<AtomicBool>,
}

impl Syncer {
    fn start(&self, file: &File, at: u64) {
        let Ok(file) = file.try_clone() else { return };
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (done, busy) = (self.done.clone(), self.busy.clone());
        let work = move || {
            if file.sync_data().is_ok() {
                done.store(at, Ordering::Release);
            }
            busy.store(false, Ordering::Release);
        };
        let thread = std::thread::Builder::new().name("gemmad-sync".to_owned());
        if thread.spawn(work).is_err() {
            // The next mark tries again.
            self.busy.store(false, Ordering::Release);
        }
    }
}

/// Takes what one connection brings.
struct Taking<'a, 'b> {
    context: &'a mut Context<'b>,
    target: &'a mut Target,
}

impl Sink for Taking<'_, '_> {
    fn head(&mut self, head: &PullHead) -> Result<bool, Failure> {
        let (target, entry) = (&mut *self.target, self.context.entry());
        if let (Some(wanted), Some(total)) = (entry.bytes, head.total)
            && wanted != total
        {
            return Err(refused(format!(
                "{} has {total} bytes at its server, and should have {wanted}",
                entry.name
            )));
        }
        if head.total.is_some_and(|total| total > LARGEST) {
            return Err(server(format!("{} claims to be too long", entry.name)));
        }
        let etag = head.etag.clone();
        let etag = etag.filter(|etag| etag.len() <= LONGEST_ETAG);
        let is_other = etag.is_some() && entry.etag.is_some() && etag != entry.etag;
        if head.start != target.at || (is_other && target.at > 0) {
            return Ok(false);
        }
        target.bytes = entry.bytes.or(head.total).or(target.bytes);
        entry.etag = etag.or(entry.etag.take());
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let target = &mut *self.target;
        if target
            .bytes
            .is_some_and(|whole| target.at + bytes.len() as u64 > whole)
        {
            return Err(server(format!(
                "{} is longer than its server said",
                self.context.entry().name
            )));
        }
        target.hash.update(bytes);
        let written = (&target.file).write_all(bytes);
        if let Err(error) = written {
            // Some of it may be there: what was hashed and what is written part here.
            let _ = target.file.seek(SeekFrom::Start(target.at));
            return Err(self.context.disk(error));
        }
        target.at += bytes.len() as u64;
        (self.context.tell)(None, target.at);
        target.mark(self.context, false)
    }
}
