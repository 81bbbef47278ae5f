//! One worker process: its start, its messages, its end.
//!
//! A task of its own carries messages both ways and reports everything to the driver as
//! [`WorkerEvent`]s; the last one is always [`WorkerEvent::Exited`], after the last message that the worker
//! managed to send.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child as Process, ChildStderr, Command};
use tokio::sync::mpsc;

use super::state::Generation;
use crate::backend::Failure;
use crate::config::one_line;
use crate::ipc::frame::{self, Decoder, FrameError};
use crate::ipc::{EXIT_SHORTAGE, Greeting, Protocol};
use crate::sys;

/// Messages to the worker that wait to be written; a worker this far behind is wedged.
const OUTBOX: usize = 512;
/// Lines of the worker's standard error kept for the report of its death, and bytes of each.
const LAST_LINES: usize = 8;
const LINE_BYTES: usize = 400;
/// How long the socket may outlive the process's end.
const LINGER: Duration = Duration::from_secs(2);

/// Turns of an OpenMP thread's waiting loop (libgomp's `GOMP_SPINCOUNT`) before it sleeps. Long
/// enough for the usual wait at a barrier, and so as fast as spinning while the CPUs are free;
/// short enough to give the CPU to the thread that the others are waiting for when they are not.
/// `docs/measuring.md` has the numbers.
const SPIN_COUNT: &str = "1000";

/// What a worker's task reports to the driver.
#[derive(Debug)]
pub enum WorkerEvent<E> {
    Message(E),
    /// The worker is of another version than [`crate::ipc::VERSION`].
    OtherVersion(u32),
    /// There was no process at all, or none that could begin, for a reason that is not its own; [`WorkerEvent::Exited`] follows.
    NotStarted(Failure),
    /// The process is gone; `cause` says how, with the end of its standard error.
    Exited {
        cause: String,
        /// By a SIGKILL that was not ours.
        killed_externally: bool,
    },
}

/// The driver's hold on a worker. Dropping it closes the worker's socket, which tells it to exit.
#[derive(Debug)]
pub struct Child<P: Protocol> {
    pub generation: Generation,
    pub pid: u32,
    outbox: mpsc::Sender<P::Request>,
    kill: mpsc::Sender<()>,
}

impl<P: Protocol> Child<P> {
    /// Hands a message over; `false` if the worker does not read any more.
    pub fn send(&self, message: P::Request) -> bool {
        self.outbox.try_send(message).is_ok()
    }

    /// SIGKILL. Its [`WorkerEvent::Exited`] follows.
    pub fn kill(&self) {
        // A full channel means that the kill was asked for already.
        let _ = self.kill.try_send(());
    }

    /// Closes the worker's socket: it gives up what it has and exits.
    pub fn end(&mut self) {
        self.outbox = mpsc::channel(1).0;
    }
}

/// Starts a worker and hands it its first message, with the descriptors that this speaks of.
pub fn spawn<P: Protocol>(
    program: &Path,
    generation: Generation,
    first: &P::Request,
    files: &[&File],
    events: mpsc::Sender<(Generation, WorkerEvent<P::Event>)>,
) -> io::Result<Child<P>> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let mut message = Vec::new();
    frame::encode(first, &mut message).map_err(io::Error::other)?;
    // The buffer of a new socket has room for this frame: it does not block.
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    sys::socket::send_all(&ours, &message, &files)?;
    ours.set_nonblocking(true)?;
    let socket = UnixStream::from_std(ours)?;

    // What it is to have it gets over the socket.
    sys::process::keep_descriptors();
    let process = Command::new(program)
        .arg(P::KIND.name())
        .env_clear()
        .env("GOMP_SPINCOUNT", SPIN_COUNT)
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = process.id().unwrap_or_default();
    let (outbox, messages) = mpsc::channel(OUTBOX);
    let (kill, killed) = mpsc::channel(1);
    tokio::spawn(attend::<P>(
        process, socket, generation, messages, killed, events,
    ));
    Ok(Child {
        generation,
        pid,
        outbox,
        kill,
    })
}

/// Carries messages both ways until the process is gone, and reports its end.
async fn attend<P: Protocol>(
    mut process: Process,
    socket: UnixStream,
    generation: Generation,
    messages: mpsc::Receiver<P::Request>,
    mut killed: mpsc::Receiver<()>,
    events: mpsc::Sender<(Generation, WorkerEvent<P::Event>)>,
) {
    let stderr = process.stderr.take();
    let (reader, writer) = socket.into_split();
    let writing = tokio::spawn(write_all::<P>(writer, messages));
    let tail = tokio::spawn(stderr_tail(stderr));
    let mut reading = std::pin::pin!(read_all::<P>(reader, generation, events.clone()));
    let (mut read, mut killed_by_us) = (false, false);
    let status = loop {
        tokio::select! {
            status = process.wait() => break status,
            end = &mut reading, if !read => {
                read = true;
                // Nothing that it says from now on is heard: it would live on, and wait, for ever.
                if end == ChannelEnd::Broken {
                    killed_by_us = true;
                    let _ = process.start_kill();
                }
            }
            Some(()) = killed.recv() => {
                killed_by_us = true;
                let _ = process.start_kill();
            }
        }
    };
    if !read {
        let _ = tokio::time::timeout(LINGER, &mut reading).await;
    }
    writing.abort();
    let stderr_tail = tokio::time::timeout(LINGER, tail)
        .await
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default();
    if status.as_ref().is_ok_and(found_no_thread) {
        let failure = Failure::NotNow {
            what: "no worker can be started",
            cause: "the system has no thread for it".to_owned(),
        };
        let not_started = WorkerEvent::NotStarted(failure);
        let _ = events.send((generation, not_started)).await;
    }
    let exited = WorkerEvent::Exited {
        killed_externally: !killed_by_us && status.as_ref().is_ok_and(was_killed),
        cause: describe(status, &stderr_tail),
    };
    let _ = events.send((generation, exited)).await;
}

async fn write_all<P: Protocol>(
    mut socket: OwnedWriteHalf,
    mut messages: mpsc::Receiver<P::Request>,
) {
    while let Some(message) = messages.recv().await {
        let mut frame = Vec::new();
        if let Err(error) = frame::encode(&message, &mut frame) {
            tracing::error!(%error, "a message to the worker cannot be sent");
            return;
        }
        if send_all(&mut socket, &frame, &P::descriptors(&message))
            .await
            .is_err()
        {
            return;
        }
    }
    let _ = socket.shutdown().await;
}

/// Sends all of `bytes`, with the descriptors on the first of them.
async fn send_all(
    socket: &mut OwnedWriteHalf,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let stream: &UnixStream = (*socket).as_ref();
    let first = || sys::socket::send(stream, bytes, files);
    let sent = match files {
        [] => 0,
        _ => stream.async_io(Interest::WRITABLE, first).await?,
    };
    socket.write_all(&bytes[sent..]).await
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelEnd {
    /// The worker has closed it, or nobody listens.
    Closed,
    /// The worker sent what cannot be read.
    Broken,
}

async fn read_all<P: Protocol>(
    mut socket: OwnedReadHalf,
    generation: Generation,
    events: mpsc::Sender<(Generation, WorkerEvent<P::Event>)>,
) -> ChannelEnd {
    let (mut decoder, mut greeted) = (Decoder::with_limit(P::LARGEST_EVENT), false);
    let mut chunk = vec![0; 16 << 10];
    loop {
        let n = match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return ChannelEnd::Closed,
            Ok(n) => n,
        };
        decoder.feed(&chunk[..n]);
        // It may hold an answer.
        chunk[..n].fill(0);
        loop {
            let event = match next(&mut decoder, &mut greeted) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the worker sent what cannot be read");
                    return ChannelEnd::Broken;
                }
            };
            let is_last = matches!(event, WorkerEvent::OtherVersion(_));
            if events.send((generation, event)).await.is_err() || is_last {
                return ChannelEnd::Closed;
            }
        }
    }
}

/// The next message that the driver has to know of.
fn next<E: DeserializeOwned>(
    decoder: &mut Decoder,
    greeted: &mut bool,
) -> Result<Option<WorkerEvent<E>>, FrameError> {
    if !*greeted {
        match decoder.next()? {
            Some(Greeting::OURS) => *greeted = true,
            Some(Greeting::Hello { version }) => {
                return Ok(Some(WorkerEvent::OtherVersion(version)));
            }
            None => return Ok(None),
        }
    }
    Ok(decoder.next()?.map(WorkerEvent::Message))
}

/// Passes the worker's lines on to the log and keeps the last ones.
async fn stderr_tail(stderr: Option<ChildStderr>) -> VecDeque<String> {
    let mut tail = VecDeque::new();
    let Some(stderr) = stderr else { return tail };
    let mut lines = BufReader::with_capacity(1024, stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without end comes in pieces.
        match (&mut lines).take(4096).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return tail,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES)]);
                // llama.cpp says what a model file holds.
                let text = one_line(text.trim_end()).into_owned();
                tracing::warn!(target: "gemmad::worker", "{text}");
                if tail.len() == LAST_LINES {
                    tail.pop_front();
                }
                tail.push_back(text);
            }
        }
    }
}

/// By SIGKILL; a shell around the worker says 128 and the signal's number.
fn was_killed(status: &ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(128 + 9)
}

fn found_no_thread(status: &ExitStatus) -> bool {
    status.code() == Some(EXIT_SHORTAGE.into())
}

fn describe(status: io::Result<ExitStatus>, stderr_tail: &VecDeque<String>) -> String {
    let how = match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("killed by {}", signal_name(signal)),
            (_, Some(code)) => format!("ended with status {code}"),
            _ => status.to_string(),
        },
        Err(error) => format!("lost: {error}"),
    };
    let lines: Vec<_> = stderr_tail
        .iter()
        .map(|line| without_build_places(line))
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return how;
    }
    format!("{how}; last lines: {}", lines.join(" | "))
}

/// A line as clients may see it: a place in llama.cpp's source is left out, one in a Rust source has
/// no folders of the machine that compiled it. A path with a line number is such a place; the log has
/// it whole.
fn without_build_places(line: &str) -> String {
    let brief = |word: &str| match (source_kind(word), word.rsplitn(3, '/').collect::<Vec<_>>()) {
        (Some("c" | "cc" | "cpp" | "cxx" | "h" | "hpp"), _) => None,
        (Some(_), parts) if parts.len() == 3 => Some(format!("{}/{}", parts[1], parts[0])),
        _ => Some(word.to_owned()),
    };
    let words: Vec<_> = line.split(' ').filter_map(brief).collect();
    words.join(" ")
}

/// What kind of source file a place in one is in, by the file's extension.
fn source_kind(word: &str) -> Option<&str> {
    let file = word.rsplit('/').next()?;
    let (name, line) = file.split_once(':')?;
    let (_, kind) = name.rsplit_once('.')?;
    line.starts_with(|c: char| c.is_ascii_digit())
        .then_some(kind)
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_see_no_place_of_the_machine_that_compiled_the_program() {
        for (line, expected) in [
            (
                "gemmad-worker panicked at /home/me/.cargo/registry/src/crates-1/rustix-1.1.6/src/param/auxv.rs:269:9",
                "gemmad-worker panicked at param/auxv.rs:269:9",
            ),
            (
                "/b/ggml/src/ggml.c:1712: GGML_ASSERT(a /b) failed",
                "GGML_ASSERT(a /b) failed",
            ),
            ("/b/llama.cpp/src/llama-model.cpp:99: fatal", "fatal"),
            ("/b/llama.cpp/src/llama-model.cpp:99:", ""),
            (
                "/proc/self/fd/9 cannot be opened: /m/x.gguf",
                "/proc/self/fd/9 cannot be opened: /m/x.gguf",
            ),
            ("ggml.c:7: no", "no"),
            ("src/worker/mod.rs:7", "worker/mod.rs:7"),
            ("", ""),
        ] {
            assert_eq!(without_build_places(line), expected);
        }
    }
}
