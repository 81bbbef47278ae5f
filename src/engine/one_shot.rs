//! A worker that is started for one thing and then ends.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::child::{self, WorkerEvent};
use crate::ipc::Protocol;

/// Messages on their way from the worker.
const AHEAD: usize = 8;

/// Why nothing came of it.
#[derive(Debug)]
pub enum Failed {
    /// There was no worker.
    Start(io::Error),
    /// It took longer than it may.
    Late,
    /// It came to an end by itself, or was stopped for what it took.
    Ended,
    /// It said what makes no sense.
    Mistaken,
}

/// Starts a worker with its request and hands over what it says until `each` has enough.
/// Dropping this ends the worker.
pub async fn run<P: Protocol, T>(
    worker: &Path,
    request: &P::Request,
    files: &[&File],
    time: Duration,
    mut each: impl FnMut(P::Event) -> ControlFlow<Result<T, P::Event>>,
) -> Result<T, Failed> {
    let (sender, mut events) = mpsc::channel(AHEAD);
    let child = child::spawn::<P>(worker, 0, request, files, sender).map_err(Failed::Start)?;
    let end = Instant::now() + time;
    let outcome = loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = sleep_until(end) => break Err(Failed::Late),
        };
        let message = match event {
            Some((_, WorkerEvent::Message(message))) => message,
            Some((_, WorkerEvent::OtherVersion(_))) => break Err(Failed::Mistaken),
            Some((_, WorkerEvent::Exited { .. })) | None => break Err(Failed::Ended),
            Some((_, WorkerEvent::NotStarted(failure))) => {
                break Err(Failed::Start(io::Error::other(failure.to_string())));
            }
        };
        match each(message) {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(Ok(value)) => break Ok(value),
            ControlFlow::Break(Err(other)) => {
                tracing::error!(?other, "a worker says what makes no sense");
                break Err(Failed::Mistaken);
            }
        }
    };
    child.kill();
    outcome
}
