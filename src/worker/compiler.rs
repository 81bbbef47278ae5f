//! The compiler thread: gives requests their grammars, one request after the other, between the
//! preparer and the server. Accounts take turns: who has many that take long delays another by one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::constraint::{GrammarCompiler, GrammarSources};
use super::link::Writer;
use super::messages::{MAX_WAITING, Prepared, ServerMessage};
use crate::chat::lanes::Lanes;
use crate::chat::{ChatError, PrincipalId};
use crate::ipc::ServeEvent;

/// A request whose grammars are not compiled.
pub struct CompileJob {
    pub prepared: Box<Prepared>,
    pub sources: GrammarSources,
}

/// A handle of the compiler thread, which ends when this is dropped.
pub struct CompilerHandle {
    queue: SyncSender<(PrincipalId, CompileJob)>,
}

/// Starts the thread; what it is sent comes out at `ready` with its grammars.
pub fn spawn(
    compiler: GrammarCompiler,
    ready: SyncSender<ServerMessage>,
    writer: Writer,
) -> CompilerHandle {
    let (queue, jobs) = sync_channel(MAX_WAITING);
    let compiler = Arc::new(compiler);
    super::thread::start(move || {
        in_turns(&jobs, |account, job| {
            compile(&compiler, account, job, &ready, &writer)
        });
    });
    CompilerHandle { queue }
}

impl CompilerHandle {
    /// Queues a request; it comes out ready, or its failure is sent to the supervisor.
    pub fn submit(&self, job: CompileJob) -> Result<(), ChatError> {
        let account = job.prepared.owner.account();
        self.queue
            .try_send((account, job))
            .map_err(|error| match error {
                TrySendError::Full(_) => ChatError::Inference {
                    reason: format!("more than {MAX_WAITING} requests wait for their grammars"),
                },
                TrySendError::Disconnected(_) => ChatError::Inference {
                    reason: "the grammar compiler has ended".into(),
                },
            })
    }
}

/// Does `work` for what comes, one after the other, each time for the account whose turn it is, until
/// nothing can come any more or `work` says that it is in vain (`false`).
fn in_turns<T>(jobs: &Receiver<(PrincipalId, T)>, mut work: impl FnMut(PrincipalId, T) -> bool) {
    let mut lanes = Lanes::new(1);
    while let Ok((mut account, mut job)) = jobs.recv() {
        // Nobody has the turn, so it is there.
        lanes.take(account);
        loop {
            if !work(account, job) {
                return;
            }
            // What came meanwhile; what is above the bound waits in the channel.
            while lanes.waiting() < MAX_WAITING
                && let Ok((account, job)) = jobs.try_recv()
            {
                lanes.wait(account, job);
            }
            match lanes.pass_on(account) {
                Some(next) => (account, job) = next,
                None => break,
            }
        }
    }
}

/// Compiles what one request is held to. `false`: nobody is there any more to take it.
fn compile(
    compiler: &Arc<GrammarCompiler>,
    account: PrincipalId,
    CompileJob {
        mut prepared,
        sources,
    }: CompileJob,
    ready: &SyncSender<ServerMessage>,
    writer: &Writer,
) -> bool {
    if prepared.cancelled() {
        return true;
    }
    match compiler.constraints(&sources, account, &prepared.cancelled) {
        Some(Ok(constraints)) => {
            prepared.constraints = constraints;
            prepared.hand_over(ready, writer).is_ok()
        }
        Some(Err(error)) => writer
            .send(&ServeEvent::Failed {
                id: prepared.id,
                error,
            })
            .is_ok(),
        // The request was cancelled.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_many_delays_another_by_one() {
        let (many, one) = (PrincipalId::User(1), PrincipalId::User(2));
        let (queue, jobs) = sync_channel(MAX_WAITING);
        for number in 0..20 {
            queue.send((many, number)).unwrap();
        }
        let mut queue = Some(queue);
        let mut order = vec![];
        in_turns(&jobs, |account, number| {
            order.push((account, number));
            // While the third is compiled the other's comes.
            if order.len() == 3
                && let Some(queue) = queue.take()
            {
                queue.send((one, 100)).unwrap();
            }
            true
        });
        assert_eq!(order.len(), 21);
        let place = order.iter().position(|(account, _)| *account == one);
        // One of the many was next already.
        assert!(place <= Some(4), "{order:?}");
        let numbers: Vec<_> = order
            .iter()
            .filter(|(account, _)| *account == many)
            .collect();
        assert!(numbers.is_sorted(), "{order:?}");
    }

    #[test]
    fn nothing_is_compiled_for_nobody() {
        let (queue, jobs) = sync_channel(MAX_WAITING);
        for number in 0..5 {
            queue.send((PrincipalId::User(1), number)).unwrap();
        }
        let mut done = 0;
        in_turns(&jobs, |_, _| {
            done += 1;
            done < 2
        });
        assert_eq!(done, 2);
    }
}
