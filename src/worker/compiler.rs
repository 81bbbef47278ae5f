//! The compiler thread: gives requests their grammars, one request after the other, between the
//! preparer and the server.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::constraint::{GrammarCompiler, GrammarSources};
use super::link::Writer;
use super::messages::{MAX_WAITING, Prepared, ServerMessage};
use crate::chat::ChatError;
use crate::ipc::ServeEvent;

/// A request whose grammars are not compiled.
pub struct CompileJob {
    pub prepared: Box<Prepared>,
    pub sources: GrammarSources,
}

/// A handle of the compiler thread, which ends when this is dropped.
pub struct CompilerHandle {
    queue: SyncSender<CompileJob>,
}

/// Starts the thread; what it is sent comes out at `ready` with its grammars.
pub fn spawn(
    compiler: GrammarCompiler,
    ready: SyncSender<ServerMessage>,
    writer: Writer,
) -> CompilerHandle {
    let (queue, jobs) = sync_channel(MAX_WAITING);
    thread::spawn(move || run(&Arc::new(compiler), &jobs, &ready, &writer));
    CompilerHandle { queue }
}

impl CompilerHandle {
    /// Queues a request; it comes out ready, or its failure is sent to the supervisor.
    pub fn submit(&self, job: CompileJob) -> Result<(), ChatError> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => ChatError::Inference {
                reason: format!("more than {MAX_WAITING} requests wait for their grammars"),
            },
            TrySendError::Disconnected(_) => ChatError::Inference {
                reason: "the grammar compiler has ended".into(),
            },
        })
    }
}

fn run(
    compiler: &Arc<GrammarCompiler>,
    jobs: &Receiver<CompileJob>,
    ready: &SyncSender<ServerMessage>,
    writer: &Writer,
) {
    for CompileJob {
        mut prepared,
        sources,
    } in jobs
    {
        let outcome = match compiler.constraints(&sources, &prepared.cancelled) {
            Some(Ok(constraints)) => {
                prepared.constraints = constraints;
                ready.send(ServerMessage::Prepared(prepared)).map_err(drop)
            }
            Some(Err(error)) => writer
                .send(&ServeEvent::Failed {
                    id: prepared.id,
                    error,
                })
                .map_err(drop),
            // The request was cancelled.
            None => Ok(()),
        };
        if outcome.is_err() {
            return;
        }
    }
}
