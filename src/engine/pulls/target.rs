//! A file that is fetched, as far as it is: what is written of it, what is hashed, and what the disk has for sure.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::failures::cancelled;
use super::file::Context;
use super::lock;
use super::spread::Spread;
use crate::backend::{Failure, PullState};
use crate::engine::keep::RESERVE;
use crate::store::catalog::hexadecimal;
use crate::store::free_bytes;

/// What the disk gets in one go: after so many bytes, or so much time, it is asked to have all, and the journal says so.
const MARK_BYTES: u64 = 64 << 20;
const MARK_TIME: Duration = Duration::from_secs(1);
/// Bytes that are read at a time when they are hashed again.
const PIECE: usize = 1 << 20;

/// The file as far as it is.
pub struct Target {
    pub file: File,
    pub hash: Sha256,
    /// Bytes that are written and hashed.
    pub at: u64,
    /// What is written behind the first gap: where each part starts and ends.
    pub apart: Vec<(u64, u64)>,
    /// Bytes of the whole.
    pub bytes: Option<u64>,
    /// Connections that its server may be asked for at the same time.
    pub connections: usize,
    /// Whether the room for all of it was looked for, and taken, before it came.
    has_room: bool,
    /// What was written when the disk was last asked to have all, and when that was.
    marked: (u64, Instant),
    syncer: Syncer,
}

impl Target {
    pub fn open(context: &mut Context<'_>) -> Result<Self, Failure> {
        let (folder, number) = (context.folder, context.number);
        let good = folder.good(context.journal, number);
        let bytes = context.entry().bytes;
        // More than it will have: it is none of ours.
        let good = if bytes.is_some_and(|bytes| good > bytes) {
            0
        } else {
            good
        };
        let mut apart = context.entry().apart.clone().unwrap_or_default();
        apart.retain(|part| part.1 <= bytes.unwrap_or(u64::MAX));
        let end = apart.last().map_or(good, |part| part.1);
        let (file, end) = folder
            .open_part(&context.journal.id, number, good, end, bytes)
            .map_err(|error| context.disk(error))?;
        // Somebody may have cut it.
        apart.retain(|part| part.1 <= end);
        let good = good.min(end);
        let entry = context.entry();
        entry.good = entry.good.min(good);
        if let Some(known) = &mut entry.apart {
            known.clone_from(&apart);
        }
        let mut target = Self {
            file,
            hash: Sha256::new(),
            at: 0,
            apart,
            bytes,
            connections: context.way.pull.connections as usize,
            has_room: bytes.is_some(),
            marked: (0, Instant::now()),
            syncer: Syncer::default(),
        };
        // Without a name for its state, and without a hash, nobody could tell that the rest is of another file.
        let entry = context.entry();
        match entry.etag.is_none() && entry.sha256.is_none() && end > 0 {
            true => target.restart(context)?,
            false => target.hash_again(context, good)?,
        }
        context.save()?;
        Ok(target)
    }

    pub fn is_whole(&self) -> bool {
        self.bytes == Some(self.at)
    }

    /// Bytes that are written.
    pub fn written(&self) -> u64 {
        let apart: u64 = self.apart.iter().map(|(start, end)| end - start).sum();
        self.at + apart
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

    /// Hashes the next bytes of what is written up to `end`, not more than [`PIECE`] of them. What follows is written behind them.
    pub fn hash_next(&mut self, piece: &mut Vec<u8>, end: u64) -> io::Result<()> {
        piece.resize(PIECE.min((end - self.at) as usize), 0);
        self.file.read_exact_at(piece, self.at)?;
        self.hash.update(&*piece);
        self.at += piece.len() as u64;
        Ok(())
    }

    /// From now on it is written in order.
    pub fn in_order(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if context.entry().apart.is_none() {
            return Ok(());
        }
        self.apart.clear();
        let cut = self.file.set_len(self.at);
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::Start(self.at)));
        cut.map_err(|error| context.disk(error))?;
        let at = self.at;
        let entry = context.entry();
        (entry.good, entry.apart) = (entry.good.min(at), None);
        self.syncer = Syncer::default();
        context.save()
    }

    /// From now on it is written in several places, which the journal says before the first byte lies apart.
    pub fn apart(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if context.entry().apart.is_some() {
            return Ok(());
        }
        let synced = self.file.sync_data();
        synced.map_err(|error| context.disk(error))?;
        let at = self.at;
        let entry = context.entry();
        (entry.good, entry.apart) = (at, Some(vec![]));
        self.syncer = Syncer::default();
        context.save()
    }

    /// Throws away what came.
    pub fn restart(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.hash = Sha256::new();
        self.at = 0;
        self.apart.clear();
        self.syncer = Syncer::default();
        self.bytes = context.entry().bytes;
        let cut = self.file.set_len(0).and_then(|()| self.file.rewind());
        cut.map_err(|error| context.disk(error))?;
        let entry = context.entry();
        entry.forget();
        entry.etag = None;
        (context.tell)(None, 0);
        context.save()
    }

    /// Writes down how far the disk is, and has it go on: `here` is what is written.
    pub fn mark(
        &mut self,
        context: &mut Context<'_>,
        here: impl FnOnce() -> Here,
        written: u64,
        now: bool,
    ) -> Result<(), Failure> {
        let (before, when) = self.marked;
        if !now && written.saturating_sub(before) < MARK_BYTES && when.elapsed() < MARK_TIME {
            return Ok(());
        }
        self.marked = (written, Instant::now());
        if let Some(synced) = lock(&self.syncer.done).take() {
            let entry = context.entry();
            entry.good = synced.front;
            if let Some(apart) = &mut entry.apart {
                *apart = synced.apart;
            }
            context.save()?;
        } else if now {
            context.save()?;
        }
        self.syncer.start(&self.file, here());
        let left = self.bytes.unwrap_or(0).saturating_sub(written);
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

    /// Sees to it that the disk has what several connections wrote, and writes that down.
    pub fn settle(&mut self, context: &mut Context<'_>, spread: &Spread) -> Result<(), Failure> {
        self.apart = spread.apart();
        let synced = self.file.sync_data();
        synced.map_err(|error| context.disk(error))?;
        self.syncer = Syncer::default();
        let entry = context.entry();
        entry.good = self.at;
        // Without a gap its length says again how far it is.
        entry.apart = Some(self.apart.clone()).filter(|apart| !apart.is_empty());
        let sought = self.file.seek(SeekFrom::Start(self.at));
        sought.map_err(|error| context.disk(error))?;
        context.save()
    }

    /// Sees to it that the disk has all, and says what it hashes to.
    pub fn finish(&mut self, context: &mut Context<'_>) -> Result<String, Failure> {
        (context.tell)(Some(PullState::Verifying), self.at);
        let synced = self.file.sync_all();
        synced.map_err(|error| context.disk(error))?;
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        let at = self.at;
        let entry = context.entry();
        (entry.good, entry.apart, entry.bytes) = (at, None, Some(at));
        context.save()?;
        Ok(hexadecimal(&hash))
    }
}

/// What is written of a file: its first bytes, and parts behind gaps.
#[derive(Debug)]
pub struct Here {
    pub front: u64,
    pub apart: Vec<(u64, u64)>,
}

/// Has the disk take what was written, on a thread of its own: more is written meanwhile.
#[derive(Default)]
struct Syncer {
    /// What it has, since that was last asked.
    done: Arc<Mutex<Option<Here>>>,
    busy: Arc<AtomicBool>,
}

impl Syncer {
    fn start(&self, file: &File, here: Here) {
        let Ok(file) = file.try_clone() else { return };
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (done, busy) = (self.done.clone(), self.busy.clone());
        let work = move || {
            if file.sync_data().is_ok() {
                *lock(&done) = Some(here);
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
