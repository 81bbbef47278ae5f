//! The viewer thread: looks at pictures through the projector, one after the other, beside the llama thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};

use super::{Sight, decode};
use crate::chat::ChatError;
use crate::ipc::{ProjectorPlan, RequestId};
use crate::worker::inbox::Turn;
use crate::worker::llama::{Model, Projector};

/// Pictures that wait to be looked at. Each slot waits for one at most; what is above that was cancelled.
const MAX_WAITING: usize = 256;

/// A picture that a slot waits for.
pub struct Job {
    pub slot: usize,
    pub id: RequestId,
    /// Gone when the request is: nobody keeps a file for a picture that nobody waits for.
    pub sight: Weak<Sight>,
    pub cancelled: Arc<AtomicBool>,
}

/// What a picture has become.
pub struct Seen {
    pub slot: usize,
    pub id: RequestId,
    /// A row for each of its tokens.
    pub rows: Result<Vec<f32>, ChatError>,
}

/// What is needed to see.
pub struct Lens {
    pub plan: ProjectorPlan,
    pub file: OwnedFd,
    pub model: &'static Model,
    pub threads: u32,
    /// The worker is ending.
    pub ending: Arc<AtomicBool>,
}

/// The llama thread's hold on the viewer thread, which ends with it.
pub struct Viewer {
    jobs: SyncSender<Job>,
}

impl Viewer {
    /// Starts the thread. It loads the projector when the first picture comes.
    pub fn spawn(lens: Lens, ready: SyncSender<Turn>) -> Self {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        std::thread::spawn(move || lens.look(waiting, &ready));
        Self { jobs }
    }

    /// Answered by a [`Turn::Seen`], unless the request ends before.
    pub fn look(&self, job: Job) -> Result<(), ChatError> {
        let reason = match self.jobs.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => format!("more than {MAX_WAITING} pictures wait to be looked at"),
            Err(TrySendError::Disconnected(_)) => "nobody looks at pictures any more".to_owned(),
        };
        Err(ChatError::Inference { reason })
    }
}

impl Lens {
    fn look(self, waiting: Receiver<Job>, ready: &SyncSender<Turn>) {
        let mut projector = None;
        for Job { slot, id, sight, cancelled } in waiting {
            let Some(sight) = sight.upgrade().filter(|_| !cancelled.load(Ordering::Relaxed)) else { continue };
            let rows = self.rows(&mut projector, &sight, &cancelled);
            if ready.send(Turn::Seen(Box::new(Seen { slot, id, rows }))).is_err() {
                return;
            }
        }
    }

    fn rows(&self, loaded: &mut Option<Projector>, sight: &Sight, cancelled: &Arc<AtomicBool>) -> Result<Vec<f32>, ChatError> {
        let pixels = decode::pixels(&sight.file, sight.size).map_err(|reason| sight.refuse(reason))?;
        let failed = |reason| ChatError::Inference { reason };
        let projector = match loaded {
            Some(projector) => projector,
            None => {
                let projector = Projector::load(&self.file, self.model, self.threads, self.ending.clone());
                loaded.insert(projector.map_err(|reason| failed(format!("the projector {} cannot be loaded: {reason}", self.plan.name)))?)
            }
        };
        projector.encode(&pixels.rgb, pixels.size, sight.tokens(), cancelled).map_err(failed)
    }
}
