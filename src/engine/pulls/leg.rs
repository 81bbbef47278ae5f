//! One connection of a download: a worker makes it, and what comes out of its pipe is taken here.
//!
//! The worker is started here, or by systemd where its socket is: the system service has no network, and this side of it
//! never needs one. Either way it has nothing but a socket to this process, the pipe and its connection. Everything that it says is
//! bounded, and believed as little as its server.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::way::Way;
use crate::backend::{Failure, PullFault};
use crate::ipc::frame::{self, Decoder};
use crate::ipc::{Greeting, Protocol, Pull, PullEvent, PullHead, PullRequest};
use crate::sys;

/// How long a connection may take until its server answers.
const FIRST_TIME: Duration = Duration::from_secs(90);
/// The time over which the least rate is measured.
const WINDOW: Duration = Duration::from_secs(10);
/// How soon it is seen that nobody wants it any more.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that are taken at a time, and that the pipe may hold.
const PIECE: usize = 256 << 10;
const PIPE: usize = 1 << 20;
/// Bytes of what a worker says in words.
const MOST_WORDS: usize = 2048;

/// Takes what comes.
pub trait Sink {
    /// What the server says of the file; `false`: this is not what was asked for, and the file must be fetched from its start.
    fn head(&mut self, head: &PullHead) -> Result<bool, Failure>;
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure>;
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// The server has sent what it wanted to.
    Ended,
    Redirected {
        to: String,
        etag: Option<String>,
        bytes: Option<u64>,
    },
    Refused {
        status: u16,
        retry_after: Option<Duration>,
    },
    Broken {
        reason: String,
        distrusted: bool,
    },
    /// See [`Sink::head`].
    FromStart,
    /// Nobody wants it any more.
    Stopped,
}

fn broken(reason: impl Into<String>) -> End {
    End::Broken {
        reason: reason.into(),
        distrusted: false,
    }
}

/// Goes on until the connection has ended.
///
/// # Errors
/// The sink fails.
pub fn run(
    way: &Way,
    request: &PullRequest,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<End, Failure> {
    match Leg::start(way, request) {
        Ok(mut leg) => leg.attend(way, request.most, sink, stop),
        Err(error) => Ok(broken(format!("no worker can be started for it: {error}"))),
    }
}

struct Leg {
    worker: Worker,
    channel: UnixStream,
    decoder: Decoder,
    greeted: bool,
    pipe: File,
    /// Whether the server's head came, and was what was asked for.
    open: bool,
    /// What the worker said last.
    last: Option<PullEvent>,
    taken: u64,
}

/// Ended with the leg.
struct Worker(Option<Child>);

impl Drop for Worker {
    fn drop(&mut self) {
        // One that systemd started ends with its pipe.
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Leg {
    fn start(way: &Way, request: &PullRequest) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // A smaller one does as well.
        let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE);
        let (worker, channel) = match UnixStream::connect(&way.socket) {
            Ok(channel) => (Worker(None), channel),
            Err(_) => spawn(way)?,
        };
        let mut message = vec![];
        frame::encode(request, &mut message).map_err(io::Error::other)?;
        sys::socket::send_all(&channel, &message, &[writer.as_fd()])?;
        // It has the token.
        message.fill(0);
        Ok(Self {
            worker,
            channel,
            decoder: Decoder::with_limit(Pull::LARGEST_EVENT),
            greeted: false,
            pipe: File::from(reader),
            open: false,
            last: None,
            taken: 0,
        })
    }

    fn attend(
        &mut self,
        way: &Way,
        most: u64,
        sink: &mut dyn Sink,
        stop: &AtomicBool,
    ) -> Result<End, Failure> {
        let mut pace = Pace::new(way);
        let mut piece = vec![0; PIECE];
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(End::Stopped);
            }
            if let Some(reason) = pace.is_too_slow(self.open, self.taken) {
                return Ok(broken(reason));
            }
            // The pipe has nothing to say before the server's head is known.
            let done = self.last.is_some();
            let (says, brings) = match self.wait(!done, self.open) {
                Ok(ready) => ready,
                Err(error) => return Ok(broken(error.to_string())),
            };
            if says && let Some(end) = self.listen(sink)? {
                return Ok(end);
            }
            if brings {
                let read = match self.pipe.read(&mut piece) {
                    Ok(read) => read,
                    Err(error) => return Ok(broken(error.to_string())),
                };
                self.taken += read as u64;
                if self.taken > most {
                    return Ok(broken("more bytes came than were asked for"));
                }
                sink.take(&piece[..read])?;
                if read == 0 {
                    self.open = false;
                }
                hold(self.taken, pace.start, pace.most, stop);
            }
            if !self.open
                && let Some(last) = self.last.take()
            {
                return Ok(ended(last));
            }
        }
    }

    /// Waits until the worker says something, or bytes come, but not for long.
    fn wait(&self, says: bool, brings: bool) -> io::Result<(bool, bool)> {
        let flags = |wanted| match wanted {
            true => PollFlags::IN,
            false => PollFlags::empty(),
        };
        let mut fds = vec![];
        if says {
            fds.push(PollFd::new(&self.channel, flags(true)));
        }
        if brings {
            fds.push(PollFd::new(&self.pipe, flags(true)));
        }
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK.as_nanos() as i64,
        };
        match poll(&mut fds, Some(&time)) {
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            polled => polled?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(match (says, brings) {
            (true, true) => (ready[0], ready[1]),
            (true, false) => (ready[0], false),
            (false, true) => (false, ready[0]),
            (false, false) => (false, false),
        })
    }

    /// Hears what the worker says. An end is one that needs no more bytes.
    fn listen(&mut self, sink: &mut dyn Sink) -> Result<Option<End>, Failure> {
        let mut bytes = [0; 4096];
        match self.channel.read(&mut bytes) {
            Ok(0) => return Ok(Some(self.lost())),
            Ok(read) => self.decoder.feed(&bytes[..read]),
            Err(error) => return Ok(Some(broken(error.to_string()))),
        }
        loop {
            let event = match self.next() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(reason) => return Ok(Some(broken(reason))),
            };
            match event {
                PullEvent::Head(head) if !self.open && self.taken == 0 => {
                    if !sink.head(&head)? {
                        return Ok(Some(End::FromStart));
                    }
                    self.open = true;
                }
                PullEvent::Head(_) => return Ok(Some(broken("it said what makes no sense"))),
                last => {
                    self.last = Some(last);
                    return Ok(None);
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<PullEvent>, String> {
        if !self.greeted {
            match self.decoder.next().map_err(|error| error.to_string())? {
                Some(Greeting::OURS) => self.greeted = true,
                Some(Greeting::Hello { .. }) => {
                    return Err("the worker is of another version; an upgrade is half done".into());
                }
                None => return Ok(None),
            }
        }
        self.decoder.next().map_err(|error| error.to_string())
    }

    /// The worker has hung up without a last word.
    fn lost(&mut self) -> End {
        let status = self.worker.0.as_mut().and_then(|child| child.wait().ok());
        broken(match status {
            Some(status) => format!("its worker came to an end: {status}"),
            None => "its worker came to an end".into(),
        })
    }
}

fn ended(last: PullEvent) -> End {
    let brief = |text: String| text.chars().take(MOST_WORDS).collect();
    match last {
        PullEvent::Ended | PullEvent::Head(_) => End::Ended,
        PullEvent::Redirected { to, etag, bytes } => End::Redirected { to, etag, bytes },
        PullEvent::Refused {
            status,
            retry_after,
        } => End::Refused {
            status,
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())),
        },
        PullEvent::Broken { reason, distrusted } => End::Broken {
            reason: brief(reason),
            distrusted,
        },
    }
}

/// Starts a worker of this daemon's own, which ends with the calling thread.
fn spawn(way: &Way) -> io::Result<(Worker, UnixStream)> {
    let (mut command, ours) = sys::process::networked_worker(&way.worker, Pull::KIND.name())?;
    Ok((Worker(Some(command.spawn()?)), ours))
}

/// How fast it is, and may be.
struct Pace {
    start: Instant,
    /// Bytes a second; 0: no limit.
    most: u64,
    least: u64,
    window: Instant,
    taken_before: u64,
}

impl Pace {
    fn new(way: &Way) -> Self {
        let (most, least) = (way.pull.rate, way.pull.least_rate);
        Self {
            start: Instant::now(),
            most,
            // What is held back is not slow.
            least: if most > 0 { least.min(most / 2) } else { least },
            window: Instant::now(),
            taken_before: 0,
        }
    }

    fn is_too_slow(&mut self, open: bool, taken: u64) -> Option<String> {
        if !open && taken == 0 {
            let late = self.start.elapsed() > FIRST_TIME;
            self.window = Instant::now();
            return late.then(|| "its server does not answer".into());
        }
        if self.window.elapsed() < WINDOW {
            return None;
        }
        let came = taken - self.taken_before;
        (self.window, self.taken_before) = (Instant::now(), taken);
        (came < self.least * WINDOW.as_secs())
            .then(|| format!("only {came} bytes came in {} s", WINDOW.as_secs()))
    }
}

/// Waits until `came` bytes since `start` are no more than `rate` bytes per second, 0 for any: the
/// pipe fills, and then the server has to wait. Returns early when told to stop.
pub fn hold(came: u64, start: Instant, rate: u64, stop: &AtomicBool) {
    if rate == 0 {
        return;
    }
    let due = Duration::from_secs_f64(came as f64 / rate as f64);
    while !stop.load(Ordering::Relaxed) {
        let early = due.saturating_sub(start.elapsed());
        if early.is_zero() {
            return;
        }
        std::thread::sleep(early.min(LOOK));
    }
}

/// That the server, or the way to it, is at fault.
pub fn server(text: impl Into<String>) -> Failure {
    Failure::Pull {
        fault: PullFault::Server,
        text: text.into(),
    }
}
