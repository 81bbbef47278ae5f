//! An answer on its way from a backend to a door.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, watch};

use super::Failure;
use super::ledger::Tally;
use crate::chat::{ChatEvent, Waiting};

/// An answer on its way. Dropping it stops the generation.
#[derive(Debug)]
pub struct Answer {
    /// The id of the model that answers.
    pub model: watch::Receiver<String>,
    /// Ends with `Done` or a failure.
    pub events: mpsc::Receiver<Result<ChatEvent, Failure>>,
    pub guard: HangUpGuard,
    /// What of the request's schemas the answer is not held to; known with the first event.
    pub relaxed: Vec<String>,
    /// How far the request is, until its answer begins; `None` before that is known.
    pub waiting: watch::Receiver<Option<Waiting>>,
    /// The upstream that answers, once one does.
    pub upstream: Arc<OnceLock<String>>,
    /// Keeps account of it, where somebody does.
    pub tally: Option<Box<Tally>>,
}

/// Tells the backend, when it is dropped, that nobody waits for a request any more.
#[derive(Debug)]
pub struct HangUpGuard {
    pub request: u64,
    pub hang_ups: mpsc::UnboundedSender<u64>,
}

impl Drop for HangUpGuard {
    fn drop(&mut self) {
        // Nobody to tell when the backend is gone already.
        let _ = self.hang_ups.send(self.request);
    }
}

impl Answer {
    /// The model that answers. While the request waits another may be chosen; with the first event
    /// this is settled, or at the end of an answer that is not streamed.
    pub fn model(&self) -> String {
        self.model.borrow().clone()
    }

    /// The upstream that answers; `None`: this machine does, or it is not known yet. With the first event this is settled.
    pub fn upstream(&self) -> Option<&str> {
        self.upstream.get().map(String::as_str)
    }

    /// The next event; `None` after `Done` or a failure.
    pub async fn next(&mut self) -> Option<Result<ChatEvent, Failure>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same, for one who waits for several.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ChatEvent, Failure>>> {
        let event = ready!(self.events.poll_recv(context));
        if let Some(Ok(ChatEvent::Accepted { relaxed })) = &event {
            self.relaxed.clone_from(relaxed);
        }
        if let (Some(event), Some(tally)) = (&event, &mut self.tally) {
            tally.see(event);
        }
        Poll::Ready(event)
    }
}
