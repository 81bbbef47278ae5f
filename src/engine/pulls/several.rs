//! One file over several connections. Each writes what it brings where that belongs; this thread reads it from there in the
//! file's order and hashes it, mostly before it has left the page cache.
//!
//! A connection that its server refuses leaves its piece to the others. When none is left, what the last one met is the end of the
//! attempt, and the next begins with as many as were not refused.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use url::Url;

use super::failures::{cancelled, disk};
use super::file::{Context, LONGEST_ETAG, believe};
use super::hops::{self, Linked};
use super::leg::{self, End, Sink};
use super::spread::Spread;
use super::target::{Here, Target};
use super::way::Way;
use super::{lock, refused};
use crate::backend::Failure;
use crate::ipc::{PullHead, PullRequest};

/// Bytes that may wait to be hashed before no more are asked for.
const MOST_UNHASHED: u64 = 128 << 20;
/// How soon it is seen that nobody wants it any more.
const LOOK: Duration = Duration::from_millis(100);
/// The pause after a connection that brought something and broke, and after one that was refused, if its server names none.
const AFTER_BREAK: Duration = Duration::from_millis(250);
const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// The longest that a server may have one of several connections wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Refusals, one after the other, after which a connection that was good for something is given up.
const MOST_REFUSALS: u32 = 3;

/// Fetches what is missing; returns how the attempt ended.
///
/// # Errors
/// The disk refuses, the server has another file, or nobody wants it any more.
pub fn attempt(context: &mut Context<'_>, url: &Url, target: &mut Target) -> Result<End, Failure> {
    target.apart(context)?;
    let several = Several::new(context, url, target)?;
    let attended = std::thread::scope(|scope| {
        for number in 0..several.stops.len() {
            let thread = std::thread::Builder::new().name("gemmad-pull".to_owned());
            let leaves = Leaves(&several);
            // Without a thread it has left.
            let _ = thread.spawn_scoped(scope, move || leaves.0.connect(number, &leaves));
        }
        let attended = several.attend(context, target);
        several.end();
        attended
    });
    let board = several.board.into_inner();
    let board = board.unwrap_or_else(PoisonError::into_inner);
    believe(context.entry(), target, board.linked);
    context.entry().etag = board.etag;
    if context.stop.load(Ordering::Relaxed) {
        return Err(cancelled());
    }
    let settled = target.settle(context, &board.spread);
    attended?;
    if let Some(failure) = board.failure {
        return Err(failure);
    }
    settled?;
    target.connections = target.connections.saturating_sub(board.refused).max(1);
    Ok(match board.oddity {
        _ if target.is_whole() => End::Ended,
        Some(Oddity::Parts) => {
            context.entry().ranges = false;
            broken("its server sends other parts than it is asked for")
        }
        Some(Oddity::State) => {
            target.connections = 1;
            End::FromStart
        }
        None => board
            .last
            .unwrap_or_else(|| broken("no connection can be made")),
    })
}

fn broken(reason: &str) -> End {
    End::Broken {
        reason: reason.to_owned(),
        distrusted: false,
    }
}

/// What all connections to a file share.
struct Several<'a> {
    way: Way,
    url: &'a Url,
    file: File,
    path: PathBuf,
    name: String,
    bytes: u64,
    /// Bytes a second, of all together; 0: no limit.
    rate: u64,
    start: Instant,
    came: AtomicU64,
    /// One for each connection: what it fetches is not wanted from it any more.
    stops: Vec<AtomicBool>,
    board: Mutex<Board>,
    news: Condvar,
}

struct Board {
    spread: Spread,
    /// Bytes from the file's start on that are hashed.
    hashed: u64,
    /// What the server calls this state of the file.
    etag: Option<String>,
    linked: Linked,
    active: usize,
    /// Connections that the server did not want.
    refused: usize,
    /// Nothing more is fetched.
    over: bool,
    /// How the last connection ended that was given up.
    last: Option<End>,
    oddity: Option<Oddity>,
    failure: Option<Failure>,
}

/// What a server does that is not for several connections.
#[derive(Clone, Copy)]
enum Oddity {
    /// It sends other parts than it is asked for, or the whole.
    Parts,
    /// It has another file now, or calls the same one differently.
    State,
}

/// A connection that is counted until it is given up.
struct Leaves<'a>(&'a Several<'a>);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.board().active -= 1;
        self.0.news.notify_all();
    }
}

impl<'a> Several<'a> {
    fn new(context: &mut Context<'_>, url: &'a Url, target: &Target) -> Result<Self, Failure> {
        let connections = target.connections;
        let bytes = target.bytes.unwrap_or(0);
        let mut way = context.way.clone();
        let rate = std::mem::take(&mut way.pull.rate);
        if rate > 0 {
            // What is held back is not slow.
            way.pull.least_rate = way.pull.least_rate.min(rate / (2 * connections as u64));
        }
        let file = target.file.try_clone();
        Ok(Self {
            way,
            url,
            file: file.map_err(|error| context.disk(error))?,
            path: context.folder.part(&context.journal.id, context.number),
            name: context.entry().name.clone(),
            bytes,
            rate,
            start: Instant::now(),
            came: AtomicU64::new(0),
            stops: (0..connections).map(|_| AtomicBool::new(false)).collect(),
            board: Mutex::new(Board {
                spread: Spread::new(bytes, target.at, &target.apart, connections),
                hashed: target.at,
                etag: context.entry().etag.clone(),
                linked: Linked::default(),
                active: connections,
                refused: 0,
                over: false,
                last: None,
                oddity: None,
                failure: None,
            }),
            news: Condvar::new(),
        })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// Waits for news, but not for long.
    fn wait<'b>(&self, board: MutexGuard<'b, Board>) -> MutexGuard<'b, Board> {
        let waited = self.news.wait_timeout(board, LOOK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Hashes what is written, in order, until nothing more comes.
    fn attend(&self, context: &mut Context<'_>, target: &mut Target) -> Result<(), Failure> {
        let mut piece = vec![];
        loop {
            if context.stop.load(Ordering::Relaxed) {
                return Err(cancelled());
            }
            let mut board = self.board();
            board.hashed = target.at;
            if board.spread.front() == target.at && board.active > 0 {
                board = self.wait(board);
            }
            let (front, written) = (board.spread.front(), board.spread.written());
            let is_over = board.active == 0;
            drop(board);
            if target.at < front {
                let hashed = target.hash_next(&mut piece, front);
                hashed.map_err(|error| context.disk(error))?;
            } else if is_over {
                return Ok(());
            }
            (context.tell)(None, written);
            let here = || {
                let board = self.board();
                Here {
                    front: board.spread.front(),
                    apart: board.spread.apart(),
                }
            };
            target.mark(context, here, written, false)?;
        }
    }

    /// Has all connections end.
    fn end(&self) {
        self.board().over = true;
        for stop in &self.stops {
            stop.store(true, Ordering::Relaxed);
        }
        self.news.notify_all();
    }

    /// One connection, piece after piece.
    fn connect(&self, number: usize, _counted: &Leaves<'_>) {
        let (mut was_good, mut refusals) = (false, 0);
        while let Some(range) = self.claim(number) {
            let mut piece = Piece {
                several: self,
                number,
                brought: false,
            };
            let request = |url: &Url| self.request(url, &range);
            let stop = &self.stops[number];
            let ended = hops::run(&self.way, self.url, request, &mut piece, stop);
            if piece.brought {
                (was_good, refusals) = (true, 0);
            }
            let may_return = was_good && refusals < MOST_REFUSALS;
            match self.judge(number, ended, piece.brought, may_return) {
                Some(pause) => self.rest(pause),
                None => return,
            }
            refusals += 1;
        }
    }

    /// What this connection fetches next, as soon as hashing keeps up.
    fn claim(&self, number: usize) -> Option<Range<u64>> {
        let mut board = self.board();
        while !board.over && board.spread.front() - board.hashed > MOST_UNHASHED {
            board = self.wait(board);
        }
        if board.over {
            return None;
        }
        self.stops[number].store(false, Ordering::Relaxed);
        board.spread.claim(number)
    }

    fn request(&self, url: &Url, range: &Range<u64>) -> PullRequest {
        let mut request = self.way.request(url, range.start, range.end - range.start);
        request.part = true;
        request.etag = self.board().etag.clone();
        request
    }

    /// How long this connection rests before its next piece; `None`: it is given up.
    fn judge(
        &self,
        number: usize,
        ended: Result<(End, Linked), Failure>,
        brought: bool,
        may_return: bool,
    ) -> Option<Duration> {
        let mut board = self.board();
        let is_done = board.spread.task(number).is_empty();
        board.spread.release(number);
        let (end, linked) = match ended {
            Ok(ended) => ended,
            Err(failure) => {
                board.failure.get_or_insert(failure);
                drop(board);
                self.end();
                return None;
            }
        };
        if board.linked == Linked::default() {
            board.linked = linked;
        }
        let pause = match &end {
            _ if is_done => return Some(Duration::ZERO),
            End::Refused {
                status: 408 | 425 | 429 | 500..=599,
                retry_after,
            } if may_return => Some(retry_after.unwrap_or(AFTER_REFUSAL).min(LONGEST_PAUSE)),
            End::Refused { status: 416, .. } => None,
            End::Refused { .. } => {
                board.refused += 1;
                None
            }
            End::Ended
            | End::Broken {
                distrusted: false, ..
            } if brought => Some(AFTER_BREAK),
            _ => None,
        };
        if pause.is_none() {
            let is_final = matches!(
                end,
                End::FromStart
                    | End::Refused { status: 416, .. }
                    | End::Broken {
                        distrusted: true,
                        ..
                    }
            );
            board.last = Some(end);
            drop(board);
            if is_final {
                self.end();
            }
        }
        pause
    }

    /// Waits, unless all is over.
    fn rest(&self, pause: Duration) {
        let end = Instant::now() + pause;
        let mut board = self.board();
        while !board.over && Instant::now() < end {
            board = self.wait(board);
        }
    }
}

/// Takes a piece of the file.
struct Piece<'a> {
    several: &'a Several<'a>,
    number: usize,
    brought: bool,
}

impl Sink for Piece<'_> {
    fn head(&mut self, head: &PullHead) -> Result<bool, Failure> {
        let Several { bytes, name, .. } = self.several;
        if let Some(total) = head.total.filter(|total| total != bytes) {
            return Err(refused(format!(
                "{name} has {total} bytes at its server, and should have {bytes}"
            )));
        }
        let mut board = self.several.board();
        let etag = head.etag.clone();
        let etag = etag.filter(|etag| etag.len() <= LONGEST_ETAG);
        if etag.is_some() && board.etag.is_some() && etag != board.etag {
            board.oddity = Some(Oddity::State);
            return Ok(false);
        }
        if !head.part || head.start != board.spread.task(self.number).start {
            board.oddity = Some(Oddity::Parts);
            return Ok(false);
        }
        board.etag = etag.or(board.etag.take());
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let several = self.several;
        let task = several.board().spread.task(self.number);
        // Another connection may have taken over what is behind it.
        let fits = bytes.len().min((task.end - task.start) as usize);
        let written = several.file.write_all_at(&bytes[..fits], task.start);
        written.map_err(|error| disk(&several.path, error))?;
        let stop = &several.stops[self.number];
        {
            let mut board = several.board();
            board.spread.wrote(self.number, fits as u64);
            if board.spread.task(self.number).is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        several.news.notify_all();
        self.brought |= fits > 0;
        // All connections share the rate.
        let came = several.came.fetch_add(fits as u64, Ordering::Relaxed) + fits as u64;
        leg::hold(came, several.start, several.rate, stop);
        Ok(())
    }
}
