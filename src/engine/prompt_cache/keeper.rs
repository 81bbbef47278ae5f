//! Attends to one worker's channel ([`crate::ipc::prompts`]). What a worker says is bounded and never
//! looked into; whose a prefix is it says itself, for it had the prompt.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::shelf::Bytes;
use super::{ModelKey, PromptCache, Room, discard};
use crate::chat::Retention;
use crate::ipc::prompts::{
    Owner, PIECE, Prefix, PrefixId, PromptReply, PromptRequest, receive, send,
};
use crate::store::{RetainedWriter, SealedWriter, free_bytes};

/// Bytes of the disk that stay free.
const RESERVE: u64 = 1 << 30;

pub struct Keeper {
    cache: PromptCache,
    channel: UnixStream,
    key: Arc<ModelKey>,
    room: Room,
    /// Bytes that the states of one prefix may have.
    largest: u64,
    /// System prompts that everybody may go on from.
    shared: Vec<[u8; 32]>,
    /// What the worker has fetched, and may yet die of.
    trials: Vec<PrefixId>,
}

/// Where the bytes of a prefix go.
enum Writer {
    Sealed(SealedWriter),
    Retained(RetainedWriter),
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Sealed(writer) => writer.write(bytes),
            Self::Retained(writer) => writer.write(bytes),
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Sealed(writer) => Bytes::Sealed(Arc::new(writer.finish()?)),
            Self::Retained(writer) => Bytes::Retained(Arc::new(writer.finish()?)),
        })
    }
}

impl Keeper {
    pub fn new(
        cache: PromptCache,
        channel: UnixStream,
        key: ModelKey,
        room: Room,
        largest: u64,
        shared: Vec<[u8; 32]>,
    ) -> Self {
        Self {
            cache,
            channel,
            key: Arc::new(key),
            room,
            largest,
            shared,
            trials: vec![],
        }
    }

    /// Until the worker ends.
    pub fn attend(&mut self) {
        if let Err(error) = self.listen() {
            tracing::warn!(model = self.key.model, %error, "the worker's prompts are no longer kept");
        }
        for id in std::mem::take(&mut self.trials) {
            tracing::info!(
                model = self.key.model,
                "a kept prompt is forgotten: a worker ended while it went on from it"
            );
            self.cache.remove(id);
        }
    }

    /// The error is what the worker may not say, or the channel's.
    fn listen(&mut self) -> io::Result<()> {
        loop {
            match receive(&mut self.channel) {
                Ok(Some(PromptRequest::Keep {
                    prefix,
                    replaces,
                    sent,
                })) => self.keep(prefix, replaces, sent)?,
                Ok(Some(PromptRequest::Fetch { id })) => self.send(id)?,
                Ok(Some(PromptRequest::Tried { id, usable })) => self.tried(id, usable),
                Ok(None) => return Ok(()),
                Err(error) => return ended(error),
            }
        }
    }

    fn keep(&mut self, prefix: Prefix, replaces: Option<PrefixId>, sent: u64) -> io::Result<()> {
        let bytes = prefix
            .bytes()
            .filter(|bytes| {
                let has_bytes = prefix.states.iter().all(|state| state.bytes > 0);
                *bytes <= self.largest && has_bytes && !prefix.states.is_empty()
            })
            .ok_or_else(|| io::Error::other("the worker has more to keep than it may"))?;
        if let Owner::All { text } = prefix.owner
            && !self.shared.contains(&text)
        {
            return Err(io::Error::other("the worker shares what is not to be"));
        }
        let mut writer = self
            .writer(&prefix, bytes)
            .map(Some)
            .unwrap_or_else(|error| {
                tracing::info!(model = self.key.model, %error, "a prompt is not kept");
                None
            });
        let (mut left, mut piece) = (bytes, vec![0; PIECE]);
        while left > 0 {
            let now = left.min(PIECE as u64) as usize;
            if let Err(error) = io::Read::read_exact(&mut self.channel, &mut piece[..now]) {
                return ended(error);
            }
            left -= now as u64;
            if let Some(Err(error)) = writer.as_mut().map(|writer| writer.write(&piece[..now])) {
                tracing::info!(model = self.key.model, %error, "a prompt is not kept");
                writer = None;
            }
        }
        let bytes = writer.and_then(|writer| writer.finish().ok());
        let id = bytes.and_then(|bytes| {
            let cache = &self.cache;
            cache.insert(&self.key, prefix, bytes, (replaces, sent))
        });
        send(&mut self.channel, &PromptReply::Kept { id })
    }

    /// Makes room for `bytes` bytes on the disk.
    fn writer(&self, prefix: &Prefix, bytes: u64) -> io::Result<Writer> {
        let gone = self.cache.lock().make_room(bytes, prefix.owner.account());
        discard(gone);
        let folder = &self.room.folder;
        let store = self.cache.store(folder)?;
        let free = free_bytes(folder)?;
        if free < bytes.saturating_add(RESERVE) {
            let folder = folder.display();
            return Err(io::Error::other(format!(
                "{folder} has {free} bytes free; {bytes} and a reserve of {RESERVE} are needed"
            )));
        }
        if self.outlives(prefix) {
            match self.cache.retain(&self.room, &self.key, prefix, bytes) {
                Ok(writer) => return Ok(Writer::Retained(writer)),
                Err(error) => {
                    tracing::warn!(model = self.key.model, %error, "a prompt is kept until the daemon stops, and not for longer");
                }
            }
        }
        store.writer(bytes).map(Writer::Sealed)
    }

    /// Whether a prefix is to outlive the daemon. A worker's word is not enough.
    fn outlives(&self, prefix: &Prefix) -> bool {
        let is_wanted = match prefix.owner {
            Owner::All { .. } => true,
            Owner::One(owner) => {
                prefix.retention == Retention::Day && self.cache.lock().has_asked(owner)
            }
        };
        is_wanted && self.room.secret.is_some()
    }

    /// Sends what it is asked for. Bytes that are not what was written are found with the piece that
    /// they are in; then the channel ends, since their number was announced.
    fn send(&mut self, id: PrefixId) -> io::Result<()> {
        let bytes = self.cache.lock().fetch(&self.key, id);
        let count = bytes.as_ref().map(Bytes::count);
        send(&mut self.channel, &PromptReply::Fetched { bytes: count })?;
        let Some(bytes) = bytes else { return Ok(()) };
        let (channel, mut hung_up) = (&mut self.channel, None);
        let read = bytes.read(|piece| {
            io::Write::write_all(channel, piece).map_err(|error| {
                hung_up = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        match (hung_up, read) {
            // A worker that has died before it had all says nothing of the prefix.
            (Some(error), _) => ended(error),
            (None, Ok(())) => {
                if !self.trials.contains(&id) {
                    self.trials.push(id);
                }
                Ok(())
            }
            (None, Err(error)) => {
                self.cache.remove(id);
                Err(error)
            }
        }
    }

    fn tried(&mut self, id: PrefixId, usable: bool) {
        let was_fetched = self.trials.contains(&id);
        self.trials.retain(|trial| *trial != id);
        if was_fetched && !usable {
            self.cache.remove(id);
        }
    }
}

/// The end of a worker is no error, wherever it comes.
fn ended(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}
