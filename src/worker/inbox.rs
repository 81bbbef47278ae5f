//! The reader thread: takes messages from the channel at once, whatever the llama thread is doing.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use super::exit::EXIT_PROTOCOL;
use super::link::{Reader, Writer};
use super::messages::{Chat, Incoming, MAX_WAITING, ServerMessage};
use super::progress::Progress;
use super::residency::{MemoryReporter, MemoryReporterCell};
use crate::chat::{ChatError, ChatRequest, DecodedMedia, PrincipalId};
use crate::ipc::{RequestId, ServeEvent, ServeRequest};

/// What the llama thread listens to.
pub struct Inbox {
    /// What the threads beside it have made.
    pub ready: Receiver<ServerMessage>,
    ending: Arc<AtomicBool>,
    trimming: Arc<AtomicBool>,
    granted: Arc<AtomicU64>,
    progress: Arc<Progress>,
    status: Arc<AtomicU8>,
}

/// The ends of the inbox for the threads that work beside the llama thread.
pub struct Ends {
    /// Requests as they come.
    pub incoming: Receiver<Incoming>,
    /// What has been made of them.
    pub ready: SyncSender<ServerMessage>,
}

impl Inbox {
    /// Starts to read. Requests are kept until someone takes them.
    pub fn open(reader: Reader, writer: Writer, reporter: MemoryReporterCell) -> (Self, Ends) {
        let (to_incoming, incoming) = sync_channel(MAX_WAITING);
        let (to_ready, ready) = sync_channel(MAX_WAITING);
        let (ending, status) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU8::new(0)));
        let trimming = Arc::new(AtomicBool::new(false));
        let granted = Arc::new(AtomicU64::new(0));
        let progress = Arc::new(Progress::default());
        let (end, code, wake) = (ending.clone(), status.clone(), to_ready.clone());
        let sorter = Sorter {
            to_incoming,
            to_ready: to_ready.clone(),
            trimming: trimming.clone(),
            granted: granted.clone(),
            progress: progress.clone(),
            writer,
            reporter,
            requests: HashMap::new(),
        };
        super::thread::start(move || {
            // Also when the thread panics: without a reader there is nothing left to do.
            let _end = OnDrop(move || {
                end.store(true, Ordering::Relaxed);
                // When there is no room the llama thread is not waiting, and sees the flag.
                let _ = wake.try_send(ServerMessage::End);
            });
            code.store(sorter.read(reader), Ordering::Relaxed);
        });
        (
            Self {
                ready,
                ending,
                trimming,
                granted,
                progress,
                status,
            },
            Ends {
                incoming,
                ready: to_ready,
            },
        )
    }

    /// Whether the channel has ended.
    pub fn ended(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Whether memory is to be released; `true` once for each time that it was asked for.
    pub fn must_trim(&self) -> bool {
        self.trimming.swap(false, Ordering::Relaxed)
    }

    /// Tokens of context that all sequences together may have, once for each time that this was said.
    pub fn granted(&self) -> Option<u64> {
        Some(self.granted.swap(0, Ordering::Relaxed)).filter(|tokens| *tokens > 0)
    }

    /// The flag of [`Inbox::ended`], which is checked in the middle of computations.
    pub fn ending(&self) -> Arc<AtomicBool> {
        self.ending.clone()
    }

    /// What the threads tell of their computations.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// The exit status that the end of the channel calls for.
    pub fn status(&self) -> u8 {
        self.status.load(Ordering::Relaxed)
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A message, with the decoded media that came with it.
fn with_media(message: Option<ServeRequest>, reader: &mut Reader) -> Option<ServeRequest> {
    let mut message = message?;
    if let Some(request) = message.chat_with_media() {
        let file = reader.take_fd().map(File::from);
        request.decoded = file.map(DecodedMedia::new);
    }
    Some(message)
}

/// Sends each message where it belongs.
struct Sorter {
    to_incoming: SyncSender<Incoming>,
    to_ready: SyncSender<ServerMessage>,
    trimming: Arc<AtomicBool>,
    /// Tokens of context that were granted last; 0 once that was seen.
    granted: Arc<AtomicU64>,
    progress: Arc<Progress>,
    writer: Writer,
    reporter: MemoryReporterCell,
    /// The cancel flags of requests that have not ended: someone else holds the flag too.
    requests: HashMap<RequestId, Arc<AtomicBool>>,
}

impl Sorter {
    /// Reads until the end; returns the exit status.
    fn read(mut self, mut reader: Reader) -> u8 {
        let status = loop {
            let message = reader
                .next()
                .map(|message| with_media(message, &mut reader));
            match message {
                Ok(Some(ServeRequest::Chat {
                    id,
                    owner,
                    sent,
                    request,
                })) => self.chat(id, (owner, sent), request),
                Ok(Some(ServeRequest::Text { id, task })) => {
                    self.forward(id, Incoming::Text { id, task });
                }
                Ok(Some(ServeRequest::Cancel { id })) => {
                    if let Some(cancelled) = self.requests.remove(&id) {
                        cancelled.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Some(ServeRequest::ReportMemory)) => {
                    let snapshot = self
                        .reporter
                        .get()
                        .map(MemoryReporter::snapshot)
                        .unwrap_or_default();
                    // A failed write is seen by the reader as the end of the channel.
                    let _ = self.writer.send(&ServeEvent::Memory(snapshot));
                }
                Ok(Some(ServeRequest::Beat)) => {
                    let (decoder, encoder) = (&self.progress.decoder, &self.progress.encoder);
                    let beat = ServeEvent::Beat {
                        decoder: decoder.get(),
                        encoder: encoder.get(),
                    };
                    // A failed write is seen by the reader as the end of the channel.
                    let _ = self.writer.send(&beat);
                }
                Ok(Some(ServeRequest::Trim)) => {
                    // When there is no room the llama thread is not waiting, and sees the flag.
                    if !self.trimming.swap(true, Ordering::Relaxed) {
                        let _ = self.to_ready.try_send(ServerMessage::Trim);
                    }
                }
                Ok(Some(ServeRequest::GrantContext { tokens })) => {
                    self.granted.store(tokens.max(1), Ordering::Relaxed);
                    // When there is no room the llama thread is not waiting, and sees the number.
                    let _ = self.to_ready.try_send(ServerMessage::Granted);
                }
                Ok(Some(ServeRequest::Load(_))) => {
                    eprintln!("the supervisor sent a second `Load`");
                    break EXIT_PROTOCOL;
                }
                Ok(None) => break 0,
                Err(error) => {
                    eprintln!("{error}");
                    break EXIT_PROTOCOL;
                }
            }
        };
        for cancelled in self.requests.values() {
            cancelled.store(true, Ordering::Relaxed);
        }
        status
    }

    fn chat(
        &mut self,
        id: RequestId,
        (owner, sent): (PrincipalId, u64),
        request: Box<ChatRequest>,
    ) {
        self.requests
            .retain(|_, cancelled| Arc::strong_count(cancelled) > 1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let chat = Chat {
            id,
            owner,
            sent,
            request,
            cancelled: cancelled.clone(),
            received: Instant::now(),
        };
        if self.forward(id, Incoming::Chat(chat)) {
            self.requests.insert(id, cancelled);
        }
    }

    /// Hands something to the preparer, or refuses it.
    fn forward(&self, id: RequestId, incoming: Incoming) -> bool {
        match self.to_incoming.try_send(incoming) {
            Ok(()) => return true,
            Err(TrySendError::Full(_)) => {
                let reason = format!("more than {MAX_WAITING} requests wait for a slot");
                // A failed write is seen by the reader as the end of the channel.
                let _ = self.writer.send(&ServeEvent::Failed {
                    id,
                    error: ChatError::Inference { reason },
                });
            }
            // The preparer has ended because the worker is ending.
            Err(TrySendError::Disconnected(_)) => {}
        }
        false
    }
}
