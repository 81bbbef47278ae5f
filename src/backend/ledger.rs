//! What becomes of requests, told to whoever keeps account of it: who asked which model, how much it was, how it ended. Never what
//! it was about.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Failure;
use crate::chat::{ChatEvent, PrincipalId};

/// Keeps account of requests.
pub trait Ledger: Debug + Send + Sync {
    /// One request has ended.
    fn enter(&self, entry: Entry);

    /// What there is of each principal and day, the oldest first.
    fn days(&self) -> Vec<Used>;
}

/// One request, when it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub owner: PrincipalId,
    /// The model that answered; `None` of a request that was refused: a name that means none is the client's own text.
    pub model: Option<String>,
    /// The upstream that answered; `None`: this machine.
    pub upstream: Option<String>,
    pub prompt_tokens: u32,
    /// Of an answer that broke off: the pieces of it that came.
    pub completion_tokens: u32,
    pub took: Duration,
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// Its client has left.
    Left,
    /// The word for what went wrong.
    Failed(&'static str),
}

impl Outcome {
    /// As the log names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Left => "left",
            Self::Failed(word) => word,
        }
    }
}

/// What a principal has used on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Days after the first of 1970, in UTC.
    pub day: u32,
    /// `None`: principals who came when a day had as many as are told apart.
    pub who: Option<PrincipalId>,
    pub requests: u64,
    /// Of these, those that failed; one whose client has left is none.
    pub failed: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// Follows one answer, and enters it when it has ended, or when nobody waits for it any more.
#[derive(Debug)]
pub struct Tally {
    ledger: Arc<dyn Ledger>,
    since: Instant,
    owner: PrincipalId,
    model: watch::Receiver<String>,
    upstream: Arc<OnceLock<String>>,
    prompt_tokens: u32,
    completion_tokens: u32,
    outcome: Outcome,
}

impl Tally {
    pub(super) fn new(
        ledger: &Arc<dyn Ledger>,
        since: Instant,
        owner: PrincipalId,
        model: watch::Receiver<String>,
        upstream: Arc<OnceLock<String>>,
    ) -> Self {
        Self {
            ledger: ledger.clone(),
            since,
            owner,
            model,
            upstream,
            prompt_tokens: 0,
            completion_tokens: 0,
            outcome: Outcome::Left,
        }
    }

    /// Sees what the client gets.
    pub(super) fn see(&mut self, event: &Result<ChatEvent, Failure>) {
        match event {
            Ok(ChatEvent::Started { prompt_tokens, .. }) => self.prompt_tokens = *prompt_tokens,
            Ok(ChatEvent::Restarted) => self.completion_tokens = 0,
            Ok(ChatEvent::Done(done)) => {
                self.prompt_tokens = done.usage.prompt_tokens;
                self.completion_tokens = done.usage.completion_tokens;
                self.outcome = Outcome::Answered;
            }
            Ok(
                ChatEvent::Text { .. }
                | ChatEvent::Thought { .. }
                | ChatEvent::CallArguments { .. },
            ) => self.completion_tokens = self.completion_tokens.saturating_add(1),
            Ok(_) => {}
            Err(failure) => self.outcome = Outcome::Failed(failure.word()),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let model = self.model.borrow().clone();
        self.ledger.enter(Entry {
            owner: self.owner,
            model: Some(model),
            upstream: self.upstream.get().cloned(),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            took: self.since.elapsed(),
            outcome: self.outcome,
        });
    }
}

/// A request that was refused.
pub(super) fn refused(since: Instant, owner: PrincipalId, failure: &Failure) -> Entry {
    Entry {
        owner,
        model: None,
        upstream: None,
        prompt_tokens: 0,
        completion_tokens: 0,
        took: since.elapsed(),
        outcome: Outcome::Failed(failure.word()),
    }
}

impl Failure {
    /// What it is, in one word that quotes nobody.
    pub fn word(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "model_not_found",
            Self::NotPermitted { .. } => "not_permitted",
            Self::NoModels { .. } => "no_models",
            Self::QueueFull { .. } => "queue_full",
            Self::UserQueueFull { .. } => "user_queue_full",
            Self::ShuttingDown => "shutting_down",
            Self::BadModel { .. } => "model_load_failed",
            Self::Unsound { .. } => "model_damaged",
            Self::NoRoom { .. } | Self::NoRoomForFile { .. } => "insufficient_memory",
            Self::NotNow { .. } => "not_now",
            Self::BackingOff { .. } => "backing_off",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::WorkerDied { .. } => "worker_died",
            Self::TimedOut { .. } => "timed_out",
            Self::ClientStalled { .. } => "client_stalled",
            Self::ModelInUse { .. } => "model_in_use",
            Self::Store { .. } => "store",
            Self::Pull { .. } => "not_fetched",
            Self::Upstream { .. } => "upstream",
            Self::Chat(_) => "refused",
        }
    }
}
