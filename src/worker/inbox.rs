//! The reader thread: takes messages from the channel at once, whatever the llama thread is doing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use super::EXIT_PROTOCOL;
use super::constraint::Masked;
use super::link::{Reader, Writer};
use super::media::Perceived;
use super::prepare::Prepared;
use super::residency::{Looker, Lookout};
use crate::chat::{ChatError, ChatRequest, PrincipalId, TextTask};
use crate::ipc::{RequestId, ServeEvent, ServeRequest};

/// Requests that wait at each of the two stations before a slot. The supervisor sends no more than
/// there are slots, and a few texts; whatever is above this is refused.
pub const MAX_WAITING: usize = 64;

/// What the preparer is to do, in the order in which it came.
pub enum Incoming {
    Chat(Chat),
    /// Answered without a slot.
    Text {
        id: RequestId,
        task: TextTask,
    },
}

/// A request as it came.
pub struct Chat {
    pub id: RequestId,
    pub owner: PrincipalId,
    pub request: Box<ChatRequest>,
    pub cancelled: Arc<AtomicBool>,
    pub received: Instant,
}

/// What the llama thread waits for when it has nothing to do.
pub enum Turn {
    Ready(Box<Prepared>),
    /// A picture or a sound that a slot waits for.
    Perceived(Box<Perceived>),
    /// What may come next in an answer of a given form.
    Masked(Box<Masked>),
    /// Memory is to be given back ([`Inbox::must_ease`]).
    Ease,
    End,
}

/// What the llama thread listens to.
pub struct Inbox {
    /// What the threads beside it have made.
    pub ready: Receiver<Turn>,
    ending: Arc<AtomicBool>,
    easing: Arc<AtomicBool>,
    status: Arc<AtomicU8>,
}

/// The ends of the inbox for the threads that work beside the llama thread.
pub struct Ends {
    /// Requests as they come.
    pub incoming: Receiver<Incoming>,
    /// What has been made of them.
    pub ready: SyncSender<Turn>,
}

impl Inbox {
    /// Starts to read. Requests are kept until someone takes them.
    pub fn open(reader: Reader, writer: Writer, lookout: Lookout) -> (Self, Ends) {
        let (to_incoming, incoming) = sync_channel(MAX_WAITING);
        let (to_ready, ready) = sync_channel(MAX_WAITING);
        let (ending, status) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU8::new(0)));
        let easing = Arc::new(AtomicBool::new(false));
        let (end, code, wake) = (ending.clone(), status.clone(), to_ready.clone());
        let sorter = Sorter {
            to_incoming,
            to_ready: to_ready.clone(),
            easing: easing.clone(),
            writer,
            lookout,
            requests: HashMap::new(),
        };
        std::thread::spawn(move || {
            // Also when the thread panics: without a reader there is nothing left to do.
            let _end = OnDrop(move || {
                end.store(true, Ordering::Relaxed);
                // When there is no room the llama thread is not waiting, and sees the flag.
                let _ = wake.try_send(Turn::End);
            });
            code.store(sorter.read(reader), Ordering::Relaxed);
        });
        (
            Self {
                ready,
                ending,
                easing,
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

    /// Whether memory is to be given back; `true` once for each time that it was asked for.
    pub fn must_ease(&self) -> bool {
        self.easing.swap(false, Ordering::Relaxed)
    }

    /// The flag behind [`Inbox::ended`], for those who look at it in the middle of a computation.
    pub fn ending(&self) -> Arc<AtomicBool> {
        self.ending.clone()
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

/// Sends each message where it belongs.
struct Sorter {
    to_incoming: SyncSender<Incoming>,
    to_ready: SyncSender<Turn>,
    easing: Arc<AtomicBool>,
    writer: Writer,
    lookout: Lookout,
    /// The cancel flags of requests that have not ended: someone else holds the flag too.
    requests: HashMap<RequestId, Arc<AtomicBool>>,
}

impl Sorter {
    /// Reads until the end; returns the exit status.
    fn read(mut self, mut reader: Reader) -> u8 {
        let status = loop {
            match reader.next() {
                Ok(Some(ServeRequest::Chat { id, owner, request })) => {
                    self.chat(id, owner, request)
                }
                Ok(Some(ServeRequest::Text { id, task })) => {
                    self.forward(id, Incoming::Text { id, task });
                }
                Ok(Some(ServeRequest::Cancel { id })) => {
                    if let Some(cancelled) = self.requests.remove(&id) {
                        cancelled.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Some(ServeRequest::Look)) => {
                    let picture = self.lookout.get().map(Looker::look).unwrap_or_default();
                    // A failed write is seen by the reader as the end of the channel.
                    let _ = self.writer.send(&ServeEvent::Memory(picture));
                }
                Ok(Some(ServeRequest::Ease)) => {
                    // When there is no room the llama thread is not waiting, and sees the flag.
                    if !self.easing.swap(true, Ordering::Relaxed) {
                        let _ = self.to_ready.try_send(Turn::Ease);
                    }
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

    fn chat(&mut self, id: RequestId, owner: PrincipalId, request: Box<ChatRequest>) {
        self.requests
            .retain(|_, cancelled| Arc::strong_count(cancelled) > 1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let chat = Chat {
            id,
            owner,
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
            // The preparer is gone because the worker is ending.
            Err(TrySendError::Disconnected(_)) => {}
        }
        false
    }
}
