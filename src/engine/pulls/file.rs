//! One file of a model is fetched: attempt after attempt, until it is whole and hashes to what it should.
//!
//! Bytes of a single connection are hashed here as they come and written by the same thread; what several bring is hashed as it is
//! read from the file, in its order (`several`). Either way what was hashed is what is on the disk: the workers, which talk to a
//! server, hold no file. What was written before this daemon's start is read and hashed once.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sha2::Digest as _;
use url::Url;

use super::failures::{cancelled, disk, not_served};
use super::hops::{self, Linked};
use super::leg::{End, Sink, server};
use super::retry::Attempts;
use super::several;
use super::spread::Spread;
use super::target::{Here, Target};
use super::way::Way;
use super::{hub, refused};
use crate::backend::{Failure, PullState};
use crate::ipc::PullHead;
use crate::store::catalog::digest_of;
use crate::store::partial::{Journal, PartialFile, PartialFolder, PartialSource, boot};

/// Bytes of an entity tag; a longer one is none.
pub const LONGEST_ETAG: usize = 512;
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
    pub fn entry(&mut self) -> &mut PartialFile {
        &mut self.journal.files[self.number]
    }

    pub fn disk(&self, error: io::Error) -> Failure {
        disk(&self.folder.part(&self.journal.id, self.number), error)
    }

    pub fn save(&mut self) -> Result<(), Failure> {
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
        (context.tell)(Some(PullState::Downloading), target.written());
        let before = target.written();
        let end = match target.is_whole() {
            true => End::Ended,
            false if has_several(&mut context, &target) => {
                several::attempt(&mut context, &url, &mut target)?
            }
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
                            "{} hashes to {hash}, and should hash to {wanted}",
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
                let progressed = target.written() > before;
                let Some(pause) = attempts.failed(progressed, asked, chance()) else {
                    return Err(server(format!("{cause}; what came is kept")));
                };
                tracing::debug!(
                    cause,
                    pause_ms = pause.as_millis() as u64,
                    "a download is tried again"
                );
                wait(&context, pause, cause, target.written());
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

/// Whether what is left is fetched over several connections: its server sends parts of it, and it can be told whether they are
/// of the same file.
fn has_several(context: &mut Context<'_>, target: &Target) -> bool {
    let entry = context.entry();
    let is_known = entry.etag.is_some() || entry.sha256.is_some();
    let Some(bytes) = target.bytes.filter(|_| entry.ranges && is_known) else {
        return false;
    };
    let left = bytes.saturating_sub(target.written());
    !target.apart.is_empty() || (target.connections > 1 && Spread::is_worth(left))
}

/// One connection, and those that it is moved to.
fn attempt(context: &mut Context<'_>, url: &Url, target: &mut Target) -> Result<End, Failure> {
    target.in_order(context)?;
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
    mark(target, context, true)?;
    Ok(end)
}

/// Writes down how far the disk is with what comes in order.
fn mark(target: &mut Target, context: &mut Context<'_>, now: bool) -> Result<(), Failure> {
    let at = target.at;
    let here = || Here {
        front: at,
        apart: vec![],
    };
    target.mark(context, here, at, now)
}

/// What the hub says where nobody else has.
pub fn believe(entry: &mut PartialFile, target: &mut Target, linked: Linked) {
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
        entry.ranges |= head.part;
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
        mark(target, self.context, false)
    }
}
