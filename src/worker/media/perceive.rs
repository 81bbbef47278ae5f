//! The senses' thread: looks at pictures and listens to sounds through the projector, one after the other, beside the
//! llama thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Content, Medium, picture};
use crate::chat::ChatError;
use crate::ipc::{ProjectorPlan, RequestId};
use crate::worker::inbox::Turn;
use crate::worker::llama::{self, Model, Projector};

/// Media that wait for their turn. Each slot waits for one at most; what is above that was cancelled.
const MAX_WAITING: usize = 256;
/// A projector that was not needed for so long is given back. Reading it again takes about a second for each GB.
const IDLE: Duration = Duration::from_secs(120);

/// A medium that a slot waits for.
pub struct Job {
    pub slot: usize,
    pub id: RequestId,
    /// Gone when the request is: nobody keeps a file that nobody waits for.
    pub medium: Weak<Medium>,
    pub cancelled: Arc<AtomicBool>,
}

/// What a medium has become.
pub struct Perceived {
    pub slot: usize,
    pub id: RequestId,
    /// A row for each of its tokens.
    pub rows: Result<Vec<f32>, ChatError>,
}

/// What is needed to see and to hear.
pub struct Equipment {
    pub plan: ProjectorPlan,
    pub file: OwnedFd,
    pub model: &'static Model,
    pub threads: u32,
    /// The worker is ending.
    pub ending: Arc<AtomicBool>,
}

/// The llama thread's hold on the senses' thread, which ends with it.
pub struct Senses {
    orders: SyncSender<Order>,
}

enum Order {
    Perceive(Job),
    /// Give the projector back.
    Rest,
}

impl Senses {
    /// Starts the thread. It loads the projector when the first medium comes.
    pub fn spawn(equipment: Equipment, ready: SyncSender<Turn>) -> Self {
        let (orders, waiting) = sync_channel(MAX_WAITING);
        std::thread::spawn(move || equipment.work(waiting, &ready));
        Self { orders }
    }

    /// Answered by a [`Turn::Perceived`], unless the request ends before.
    pub fn perceive(&self, job: Job) -> Result<(), ChatError> {
        let reason = match self.orders.try_send(Order::Perceive(job)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => format!("more than {MAX_WAITING} pictures and sounds wait"),
            Err(TrySendError::Disconnected(_)) => "nobody looks and listens any more".to_owned(),
        };
        Err(ChatError::Inference { reason })
    }

    /// Has the projector given back, to be loaded again when it is needed.
    pub fn rest(&self) {
        // Where there is no room for this, there is work.
        let _ = self.orders.try_send(Order::Rest);
    }
}

impl Equipment {
    fn work(self, waiting: Receiver<Order>, ready: &SyncSender<Turn>) {
        let mut projector = None;
        loop {
            let order = match projector {
                Some(_) => waiting.recv_timeout(IDLE),
                None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let Job { slot, id, medium, cancelled } = match order {
                Ok(Order::Perceive(job)) => job,
                Ok(Order::Rest) | Err(RecvTimeoutError::Timeout) => {
                    projector = None;
                    llama::trim();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(medium) = medium.upgrade().filter(|_| !cancelled.load(Ordering::Relaxed)) else { continue };
            let rows = self.rows(&mut projector, &medium, &cancelled);
            if ready.send(Turn::Perceived(Box::new(Perceived { slot, id, rows }))).is_err() {
                return;
            }
        }
    }

    fn rows(&self, loaded: &mut Option<Projector>, medium: &Medium, cancelled: &Arc<AtomicBool>) -> Result<Vec<f32>, ChatError> {
        let failed = |reason| ChatError::Inference { reason };
        match &medium.content {
            Content::Picture { file, size } => {
                let pixels = picture::pixels(file, *size).map_err(|reason| medium.refuse(reason))?;
                self.projector(loaded)?.look(&pixels.rgb, pixels.size, medium.tokens, cancelled).map_err(failed)
            }
            Content::Sound(samples) => self.projector(loaded)?.listen(samples, medium.tokens, cancelled).map_err(failed),
        }
    }

    fn projector<'a>(&self, loaded: &'a mut Option<Projector>) -> Result<&'a mut Projector, ChatError> {
        match loaded {
            Some(projector) => Ok(projector),
            None => {
                let projector = Projector::load(&self.file, self.model, self.threads, self.ending.clone());
                let failed = |reason| format!("the projector {} cannot be loaded: {reason}", self.plan.name);
                Ok(loaded.insert(projector.map_err(|reason| ChatError::Inference { reason: failed(reason) })?))
            }
        }
    }
}
