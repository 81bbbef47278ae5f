//! A worker that is started for one thing and then ends.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::child::{self, WorkerEvent};
use crate::backend::Failure;
use crate::ipc::Protocol;
use crate::memory::reserved::Reservation;
pub use crate::sys::shortage::is_shortage;

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
    /// Something else than this process or a limit of its own ended it: an administrator, or the
    /// kernel, for lack of memory.
    Killed,
    /// It was ended because memory ran short.
    Revoked,
    /// It said what makes no sense.
    Mistaken,
}

/// Starts a worker with its request and hands over what it says until `each` has enough, its `time`
/// is over, or the memory that is reserved for it is revoked. Dropping this ends the worker.
pub async fn run<P: Protocol, T>(
    worker: &Path,
    request: &P::Request,
    files: &[&File],
    time: Duration,
    memory: &Reservation,
    mut each: impl FnMut(P::Event) -> ControlFlow<Result<T, P::Event>>,
) -> Result<T, Failed> {
    let (sender, mut events) = mpsc::channel(AHEAD);
    let child = child::spawn::<P>(worker, 0, request, files, sender).map_err(Failed::Start)?;
    let end = Instant::now() + time;
    let outcome = loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = sleep_until(end) => break Err(Failed::Late),
            () = memory.revoked() => break Err(Failed::Revoked),
        };
        let message = match event {
            Some((_, WorkerEvent::Message(message))) => message,
            Some((_, WorkerEvent::OtherVersion(_))) => break Err(Failed::Mistaken),
            Some((
                _,
                WorkerEvent::Exited {
                    killed_externally: true,
                    ..
                },
            )) => break Err(Failed::Killed),
            Some((_, WorkerEvent::Exited { .. })) | None => break Err(Failed::Ended),
            Some((_, WorkerEvent::NotStarted(failure))) => {
                // What `is_shortage` takes for one.
                let kind = match failure {
                    Failure::NotNow { .. } => io::ErrorKind::WouldBlock,
                    _ => io::ErrorKind::Other,
                };
                break Err(Failed::Start(io::Error::new(kind, failure.to_string())));
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ipc::{DocumentKind, Extract, ExtractRequest, Look};
    use crate::memory::reserved::ReservedMemory;

    /// Runs a script as the worker, with this memory.
    async fn run_script(script: &str, memory: &ReservedMemory) -> Result<(), Failed> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("worker");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let reservation = memory.reserve(1, 1).unwrap();
        run::<Extract, ()>(
            &program,
            &ExtractRequest {
                kind: DocumentKind::Html,
                look: Look {
                    pages: 0,
                    tokens: 280,
                    room: None,
                },
            },
            &[],
            Duration::from_secs(300),
            &reservation,
            |_| ControlFlow::Continue(()),
        )
        .await
    }

    #[tokio::test]
    async fn a_worker_whose_memory_is_revoked_is_ended() {
        let memory = ReservedMemory::default();
        let revoke = async { memory.revoke() };
        let (outcome, revoked) = tokio::join!(run_script("exec sleep 600", &memory), revoke);
        assert!(matches!(outcome, Err(Failed::Revoked)), "{outcome:?}");
        assert_eq!(revoked, 1);
    }

    #[tokio::test]
    async fn a_worker_that_something_else_ends_is_told_from_one_that_fails() {
        let memory = ReservedMemory::default();
        let killed = run_script("kill -9 $$", &memory).await;
        assert!(matches!(killed, Err(Failed::Killed)), "{killed:?}");
        let shortage = run_script("exit 75", &memory).await;
        let is_shortage =
            |error: &Failed| matches!(error, Failed::Start(error) if is_shortage(error));
        assert!(shortage.as_ref().is_err_and(is_shortage), "{shortage:?}");
        for script in ["kill -6 $$", "kill -24 $$", "exit 65"] {
            let ended = run_script(script, &memory).await;
            assert!(matches!(ended, Err(Failed::Ended)), "{script}: {ended:?}");
        }
    }
}
