//! What a request brings along or names: files, pictures, sounds and addresses. Before a request is
//! asked they become text, pixels and samples: fetched by workers that live for one connection each,
//! read by workers that live for one file each, decoded by workers that live for one request each.
//! What these may use is reserved, so that no model is given the same memory. Large bodies, and files
//! that come as descriptors, are read [`aside()`].

mod aside;
mod decoder;
mod document;
mod extractor;
mod fetcher;
mod listener;
mod look;
mod turns;

pub use crate::ipc::kind::{Medium, medium};
pub use aside::aside;
pub use document::{ReadFile, ReadPage, Seen};
pub use listener::{Heard, Listener, Listening};

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::access::quota::{Full, Share};
use crate::backend::{Backends, Failure};
use crate::chat::{
    ChatError, ChatRequest, Document, Message, Modalities, Networks, Part, PrincipalId, Role,
};
use crate::engine::one_shot;
use crate::memory::probe;
use crate::memory::reserved::{Reservation, ReservedMemory};
use decoder::{MEDIA_PER_USER, MediaDecoder};
use extractor::Extractor;
use fetcher::Fetcher;
use look::Viewer;
use turns::Waiting;

/// How long a worker waits for memory before its request is refused, and how often it looks.
const MEMORY_WAIT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of what a worker may say is wrong with a file.
const MAX_REASON: usize = 16 << 10;

/// Has them fetched, read and decoded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attachments {
    /// They know which model takes what.
    backends: Backends,
    fetcher: Fetcher,
    extractor: Extractor,
    decoder: MediaDecoder,
    /// How long a request may take; replaced when the configuration is read again.
    request_time: Arc<RwLock<Duration>>,
}

/// Why a request's attachments cannot be had.
#[derive(Debug)]
pub enum Refused {
    Failure(Failure),
    /// The request holds more bytes than it may.
    Full(Full),
}

impl Attachments {
    /// `worker` is the worker program; what its processes may use is reserved in `memory`. No
    /// request waits longer than `request_time` for its turn.
    pub fn new(
        backends: Backends,
        worker: PathBuf,
        networks: Networks,
        memory: ReservedMemory,
        request_time: Duration,
    ) -> Self {
        Self {
            backends,
            fetcher: Fetcher::new(worker.clone(), networks, memory.clone()),
            extractor: Extractor::new(worker.clone(), memory.clone()),
            decoder: MediaDecoder::new(worker, memory),
            request_time: Arc::new(RwLock::new(request_time)),
        }
    }

    /// From where files are fetched from now on.
    pub fn set_networks(&self, networks: Networks) {
        self.fetcher.set_networks(networks);
    }

    /// How long requests may take from now on.
    pub fn set_request_time(&self, time: Duration) {
        *self
            .request_time
            .write()
            .unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Puts what the request's addresses and files have in their place, as text and pictures such as
    /// `model` can take. At most `most` bytes are fetched; `share`, whose owner's turn is waited for,
    /// grows as the request does. Says in `read` of each file how much of it was read.
    ///
    /// # Errors
    ///
    /// What is wrong with an attachment, or no memory to read it, or a request that has become too
    /// large.
    pub async fn read(
        &self,
        request: &mut ChatRequest,
        model: &str,
        most: u64,
        share: &mut Share,
        read: &mut Vec<ReadFile>,
    ) -> Result<(), Refused> {
        let waiting = self.waiting(share);
        let before = request.bytes();
        self.fetcher
            .fetch(request, most, &waiting)
            .await
            .map_err(Refused::Failure)?;
        let fetched = request.bytes();
        let grow = |share: &mut Share, bytes: usize| share.grow(bytes as u64);
        grow(share, fetched.saturating_sub(before)).map_err(Refused::Full)?;
        let is_document = |(_, _, part): (_, _, &Part)| matches!(part, Part::Document(_));
        if !request.parts().any(is_document) {
            return Ok(());
        }
        let seeing = Modalities {
            image: true,
            ..request.modalities()
        };
        let found = self.backends.find(model, seeing).await;
        let viewer = Viewer::new(request, found, MEDIA_PER_USER);
        self.extractor
            .read(request, viewer, &waiting, read)
            .await
            .map_err(Refused::Failure)?;
        grow(share, request.bytes().saturating_sub(fetched)).map_err(Refused::Full)
    }

    /// What a file becomes for a model that takes pictures, and as many as there may be: its texts, and
    /// small pictures in the places of large ones. `share` grows as the file does.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or no memory to read it.
    pub async fn look_into(
        &self,
        file: Document,
        share: &mut Share,
        read: &mut Vec<ReadFile>,
    ) -> Result<Vec<Part>, Refused> {
        let message = Message {
            content: vec![Part::Document(file)],
            ..Message::text(Role::User, "")
        };
        let mut request = ChatRequest::new(vec![message]);
        let (viewer, waiting) = (Viewer::of_anything(), self.waiting(share));
        self.extractor
            .read(&mut request, viewer, &waiting, read)
            .await
            .map_err(Refused::Failure)?;
        share.grow(request.bytes() as u64).map_err(Refused::Full)?;
        let parts = request.parts();
        Ok(parts.map(|(_, _, part)| part.clone()).collect())
    }

    /// Puts pixels and samples in the place of the request's pictures and sounds. A request is to be
    /// asked, of `model`, only after this, and what is kept of it is to be kept before. `share` holds
    /// what they take.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them, or a model that can do nothing with them, or no memory to
    /// decode them.
    pub async fn decode(
        &self,
        request: &mut ChatRequest,
        model: &str,
        share: &mut Share,
    ) -> Result<(), Refused> {
        let modalities = request.modalities();
        // What is asked of another machine's model goes there as it came.
        if !modalities.any() || self.backends.is_elsewhere(share.account(), model).await {
            return Ok(());
        }
        // Before anything is decoded in vain.
        let takes = self.backends.takes(share.account(), model, modalities);
        takes.await.map_err(Refused::Failure)?;
        let waiting = self.waiting(share);
        self.decoder.decode(request, share, &waiting).await
    }

    /// Who waits for turns: the owner of `share`, as long as the request may take.
    fn waiting(&self, share: &Share) -> Waiting {
        self.waiting_for(share.account())
    }

    fn waiting_for(&self, account: PrincipalId) -> Waiting {
        let limit = *self
            .request_time
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Waiting {
            account,
            limit,
            end: tokio::time::Instant::now() + limit,
        }
    }
}

/// Why nothing came of a file.
#[derive(Debug)]
enum Fault {
    /// The file's own; continues "the file …".
    File(String),
    /// The machine's, or of what was started for it.
    Failure(Failure),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::File(reason)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// There is no worker, or nothing to hand it the file in. What was sent is not at fault: `what`
/// cannot be done.
fn not_started(what: &'static str, error: &io::Error) -> Failure {
    let cause = error.to_string();
    if one_shot::is_shortage(error) {
        return Failure::NotNow { what, cause };
    }
    Failure::Chat(ChatError::Inference {
        reason: format!("{what}: {cause}"),
    })
}

/// Something else has ended the worker, and so it says nothing of what was sent.
fn killed(what: &'static str) -> Failure {
    Failure::NotNow {
        what,
        cause: "the process that was started for it was ended by something else (SIGKILL)".into(),
    }
}

/// Memory for a worker that may use `bytes`: waits a while for it.
async fn reserve(memory: &ReservedMemory, bytes: u64) -> Result<Reservation, Failure> {
    reserve_within(memory, bytes, MEMORY_WAIT, || probe::room().free).await
}

/// Memory ran short while a worker used what was reserved for it.
fn no_room(memory: &ReservedMemory, needs: u64) -> Failure {
    Failure::NoRoomForFile {
        needs,
        free: probe::room().free.saturating_sub(memory.bytes()),
    }
}

async fn reserve_within(
    memory: &ReservedMemory,
    needs: u64,
    wait: Duration,
    free: impl Fn() -> u64,
) -> Result<Reservation, Failure> {
    let end = Instant::now() + wait;
    loop {
        let free = free();
        if let Some(reservation) = memory.reserve(needs, free) {
            return Ok(reservation);
        }
        if Instant::now() >= end {
            return Err(Failure::NoRoomForFile {
                needs,
                free: free.saturating_sub(memory.bytes()),
            });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_worker_waits_for_memory_and_is_refused_if_there_is_none() {
        let memory = ReservedMemory::default();
        let held = reserve_within(&memory, 60, Duration::ZERO, || 100)
            .await
            .unwrap();
        let refused = reserve_within(&memory, 50, Duration::ZERO, || 100).await;
        assert_eq!(
            refused.unwrap_err(),
            Failure::NoRoomForFile {
                needs: 50,
                free: 40
            }
        );
        // It is given back when the second has looked once in vain.
        let (held, looks) = (Cell::new(Some(held)), Cell::new(0));
        let free = || {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                held.take();
            }
            100
        };
        assert!(reserve_within(&memory, 50, MEMORY_WAIT, free).await.is_ok());
        assert_eq!(looks.get(), 2);
    }
}
