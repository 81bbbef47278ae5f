//! The thread that hands states over to the supervisor and gets them back, one at a time.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ipc::RequestId;
use crate::ipc::prompts::{
    KeptPrefix, Prefix, PrefixId, PromptReply, PromptRequest, receive, send,
};
use crate::sys::socket;
use crate::worker::messages::ServerMessage;
use crate::worker::sequences::SavedState;

/// States that wait to be handed over; they are in memory meanwhile.
pub const WAITING: usize = 2;
/// Between two tries to say something to who has no room for it.
const PAUSE: Duration = Duration::from_millis(5);

/// What the thread is to do.
pub enum Job {
    Keep {
        prefix: Prefix,
        states: Vec<SavedState>,
        /// Unless something of the same lineage was kept since.
        replaces: Option<PrefixId>,
        /// Comes back with [`KeeperDone::Kept`].
        lineage: Lineage,
        /// See [`PromptRequest::Keep`].
        sent: u64,
    },
    Fetch {
        kept: KeptPrefix,
        /// Comes back with [`KeeperDone::Fetched`].
        request: RequestId,
    },
    /// Tell of the trials that are over.
    Tell,
    /// There are no more jobs.
    End,
}

/// Trials that are over, of which the supervisor was not told: whether what was fetched is usable.
type Trials = Arc<Mutex<Vec<(PrefixId, bool)>>>;

/// What was fetched is being tried. It is over when this is dropped; a process that dies drops nothing.
pub struct Trial {
    id: PrefixId,
    usable: bool,
    over: Trials,
    jobs: SyncSender<Job>,
}

impl Trial {
    /// llama.cpp did not take it.
    pub fn failed(mut self) {
        self.usable = false;
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told_of = !over.is_empty();
        over.push((self.id, self.usable));
        drop(over);
        if !is_told_of {
            // Where there is no room the thread looks before its next job.
            let _ = self.jobs.try_send(Job::Tell);
        }
    }
}

/// Which state of which sequence was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    pub sequence: usize,
    /// `None`: it is no conversation's, but where several go on.
    pub epoch: Option<u64>,
}

/// What it has done.
pub enum KeeperDone {
    Kept {
        lineage: Lineage,
        /// `None` where the supervisor has no room for it.
        kept: Option<KeptPrefix>,
        /// What it has taken the place of.
        replaced: Option<PrefixId>,
        time: Duration,
    },
    Fetched {
        request: RequestId,
        kept: KeptPrefix,
        /// `None` where the supervisor no longer has it.
        states: Option<Vec<SavedState>>,
        time: Duration,
    },
}

/// The server's end. Once the channel has failed nothing is kept.
pub struct Keeper {
    jobs: SyncSender<Job>,
    /// The server listens no more.
    ending: Arc<AtomicBool>,
    /// The channel has failed.
    failed: Arc<AtomicBool>,
    trials: Trials,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the thread; what it has done is said at `done`.
    pub fn spawn(channel: OwnedFd, done: SyncSender<ServerMessage>) -> Self {
        // One place is for `Job::Tell`, which is there once at most.
        let (jobs, queue) = sync_channel(WAITING + 1);
        let (ending, failed) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let trials = Trials::default();
        let thread = Thread {
            channel: Some(Channel(channel)),
            done,
            ending: ending.clone(),
            failed: failed.clone(),
            trials: trials.clone(),
            latest: HashMap::new(),
        };
        Self {
            jobs,
            ending,
            failed,
            trials,
            thread: std::thread::spawn(move || thread.attend(&queue)),
        }
    }

    /// Has something done, unless too much waits for that already.
    pub fn has_done(&self, job: Job) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Has something done when there is room for it.
    pub fn has_done_at_last(&self, job: Job) {
        // It fails when the thread has panicked; then nothing is kept.
        let _ = self.jobs.send(job);
    }

    /// Whether nothing can be kept any more.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// What was fetched is to be tried.
    pub fn trial(&self, id: PrefixId) -> Trial {
        Trial {
            id,
            usable: true,
            over: self.trials.clone(),
            jobs: self.jobs.clone(),
        }
    }

    /// The server listens no more.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Waits until all is done, after [`Keeper::end`].
    pub fn finish(self) {
        // Trials may have the sender as well: they say when it is over.
        let _ = self.jobs.send(Job::End);
        let _ = self.thread.join();
    }
}

struct Thread {
    /// `None` once it has failed: then nothing is kept, and nothing there.
    channel: Option<Channel>,
    done: SyncSender<ServerMessage>,
    ending: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    trials: Trials,
    /// What was kept last of each sequence, and its epoch: the server may not have heard of it yet.
    latest: HashMap<usize, (u64, PrefixId)>,
}

impl Thread {
    /// Until there are no more jobs.
    fn attend(mut self, queue: &Receiver<Job>) {
        for job in queue {
            self.tell();
            let start = Instant::now();
            match job {
                Job::Tell => {}
                Job::End => return,
                Job::Fetch { kept, request } => {
                    let states = self.tried(|channel| fetch(channel, &kept));
                    self.say(KeeperDone::Fetched {
                        request,
                        states,
                        kept,
                        time: start.elapsed(),
                    });
                }
                Job::Keep {
                    prefix,
                    states,
                    replaces,
                    lineage,
                    sent,
                } => {
                    let replaces = self.latest(lineage).or(replaces);
                    let id = self.tried(|channel| {
                        let request = PromptRequest::Keep {
                            prefix: prefix.clone(),
                            replaces,
                            sent,
                        };
                        keep(channel, &request, &states)
                    });
                    if let (Some(epoch), Some(id)) = (lineage.epoch, id) {
                        self.latest.insert(lineage.sequence, (epoch, id));
                    }
                    self.say(KeeperDone::Kept {
                        lineage,
                        kept: id.map(|id| KeptPrefix { id, prefix }),
                        replaced: replaces.filter(|_| id.is_some()),
                        time: start.elapsed(),
                    });
                }
            }
        }
    }

    /// What was kept last of a lineage.
    fn latest(&self, lineage: Lineage) -> Option<PrefixId> {
        let (epoch, id) = self.latest.get(&lineage.sequence)?;
        (Some(*epoch) == lineage.epoch).then_some(*id)
    }

    /// Tells the supervisor of the trials that are over.
    fn tell(&mut self) {
        let over = std::mem::take(&mut *self.trials.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, usable) in over {
            self.tried(|channel| send(channel, &PromptRequest::Tried { id, usable }).map(Some));
        }
    }

    fn tried<T>(&mut self, ask: impl FnOnce(&mut Channel) -> io::Result<Option<T>>) -> Option<T> {
        ask(self.channel.as_mut()?).unwrap_or_else(|error| {
            eprintln!("prompts are no longer kept: {error}");
            self.channel = None;
            self.failed.store(true, Ordering::Relaxed);
            None
        })
    }

    /// Waits while there is no room, unless nobody listens any more.
    fn say(&self, done: KeeperDone) {
        let mut message = ServerMessage::Kept(Box::new(done));
        while let Err(TrySendError::Full(same)) = self.done.try_send(message) {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            message = same;
            std::thread::sleep(PAUSE);
        }
    }
}

/// Hands states over, behind what says so; `None` where there is no room for them.
fn keep(
    channel: &mut Channel,
    request: &PromptRequest,
    states: &[SavedState],
) -> io::Result<Option<PrefixId>> {
    send(channel, request)?;
    for state in states {
        channel.write_all(&state.bytes)?;
    }
    match receive(channel)? {
        Some(PromptReply::Kept { id }) => Ok(id),
        reply => Err(unexpected(reply)),
    }
}

/// Gets states back; `None` where they are no longer there.
fn fetch(channel: &mut Channel, kept: &KeptPrefix) -> io::Result<Option<Vec<SavedState>>> {
    send(channel, &PromptRequest::Fetch { id: kept.id })?;
    let bytes = match receive(channel)? {
        Some(PromptReply::Fetched { bytes: Some(bytes) }) => bytes,
        Some(PromptReply::Fetched { bytes: None }) => return Ok(None),
        reply => return Err(unexpected(reply)),
    };
    if kept.prefix.bytes() != Some(bytes) {
        return Err(io::Error::other("the supervisor has other states"));
    }
    let states = kept.prefix.states.iter().map(|state| {
        let mut bytes = vec![0; state.bytes as usize];
        channel.read_exact(&mut bytes)?;
        Ok(SavedState {
            tokens: state.tokens as usize,
            bytes,
        })
    });
    states.collect::<io::Result<_>>().map(Some)
}

fn unexpected(reply: Option<PromptReply>) -> io::Error {
    match reply {
        None => io::ErrorKind::UnexpectedEof.into(),
        Some(_) => io::Error::other("the supervisor answered something else"),
    }
}

/// The worker may send and receive, and nothing else with a socket.
struct Channel(OwnedFd);

impl Read for Channel {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        socket::recv(&self.0, bytes, &mut vec![])
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(&self.0, bytes, &[])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::chat::{PrincipalId, Retention};
    use crate::ipc::prompts::{Owner, State};

    fn job(sequence: usize, epoch: u64) -> Job {
        let state = State {
            tokens: 7,
            digest: [1; 32],
            bytes: 3,
        };
        Job::Keep {
            prefix: Prefix {
                owner: Owner::One(PrincipalId::User(1000)),
                retention: Retention::InMemory,
                is_fork: false,
                states: vec![state],
            },
            states: vec![SavedState {
                tokens: 7,
                bytes: vec![9; 3],
            }],
            replaces: None,
            lineage: Lineage {
                sequence,
                epoch: Some(epoch),
            },
            sent: 0,
        }
    }

    /// Takes a prefix as the supervisor does; says what it is to take the place of.
    fn take(supervisor: &mut UnixStream, id: PrefixId) -> Option<PrefixId> {
        let Some(PromptRequest::Keep { replaces, .. }) = receive(supervisor).unwrap() else {
            panic!("nothing is handed over");
        };
        supervisor.read_exact(&mut [0; 3]).unwrap();
        send(supervisor, &PromptReply::Kept { id: Some(id) }).unwrap();
        replaces
    }

    fn keeper() -> (Keeper, UnixStream, Receiver<ServerMessage>) {
        let (supervisor, worker) = UnixStream::pair().unwrap();
        supervisor
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let (done, ready) = sync_channel(8);
        (Keeper::spawn(worker.into(), done), supervisor, ready)
    }

    #[test]
    fn what_is_kept_twice_before_the_first_reply_leaves_no_orphan() {
        let (keeper, mut supervisor, ready) = keeper();
        assert!(keeper.has_done(job(0, 1)) && keeper.has_done(job(0, 1)));
        assert_eq!(take(&mut supervisor, 5), None);
        assert_eq!(take(&mut supervisor, 6), Some(5));
        // Another conversation takes nothing's place.
        for (sequence, epoch) in [(0, 2), (1, 1)] {
            keeper.has_done_at_last(job(sequence, epoch));
            assert_eq!(take(&mut supervisor, 7), None);
        }
        keeper.finish();
        let replaced = ready.iter().map(|message| match message {
            ServerMessage::Kept(done) => match *done {
                KeeperDone::Kept { replaced, .. } => replaced,
                KeeperDone::Fetched { .. } => panic!("nothing was fetched"),
            },
            _ => panic!("the keeper says nothing else"),
        });
        assert_eq!(replaced.collect::<Vec<_>>(), [None, Some(5), None, None]);
    }

    #[test]
    fn trials_are_told_of_once() {
        let (keeper, mut supervisor, _ready) = keeper();
        keeper.trial(3).failed();
        drop(keeper.trial(4));
        for told in [(3, false), (4, true)] {
            match receive(&mut supervisor).unwrap() {
                Some(PromptRequest::Tried { id, usable }) => assert_eq!((id, usable), told),
                other => panic!("{other:?}"),
            }
        }
        keeper.finish();
        assert_eq!(receive::<PromptRequest>(&mut supervisor).unwrap(), None);
    }

    #[test]
    fn once_the_channel_has_failed_that_is_known() {
        let (keeper, supervisor, ready) = keeper();
        drop(supervisor);
        assert!(keeper.has_done(job(0, 1)));
        assert!(matches!(ready.recv(), Ok(ServerMessage::Kept(_))));
        assert!(keeper.has_failed());
        keeper.finish();
    }
}
