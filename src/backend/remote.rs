//! Services on other machines, and when a request goes to one of them instead of staying here.
//!
//! Nothing goes there but what an administrator's policy names: a model, asked for by somebody who may.
//! A request stays with whoever has begun to answer it.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::{Answer, Backends, Failure, HangUpGuard, Phase, Reply};
use crate::chat::{ChatEvent, ChatRequest, Modalities, Part, PrincipalId};

/// Events of an answer on their way.
const AHEAD: usize = 64;

/// Why a request may go to another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No model here has this name.
    Named,
    /// So many requests wait here.
    Overflow(u32),
    /// Nothing here can answer it.
    Failover,
}

/// A model on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteModel {
    /// As clients name it here.
    pub id: String,
    /// The upstream's name.
    pub upstream: String,
}

/// How an upstream fares.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteStatus {
    pub name: String,
    /// As clients name them.
    pub models: Vec<String>,
    /// Requests that it is answering.
    pub running: u32,
    /// Answers that it has ended, and requests that it did not answer, since the start.
    pub served: u64,
    pub failed: u64,
    /// Why it was not asked, or did not answer, last.
    pub cause: Option<String>,
    /// How long it is left alone; zero: not at all.
    pub resting: std::time::Duration,
}

/// Services on other machines.
pub trait Remote: Debug + Send + Sync {
    /// Finds out what `owner` may ask of those that have the model of this name, or of all: the other methods go by it. Takes as long
    /// as the system's lists of users do.
    fn meet<'a>(&'a self, owner: PrincipalId, model: Option<&'a str>) -> BoxFuture<'a, ()>;

    /// Whether one of them may be asked by `owner` for the model of this name, for this reason.
    fn takes(&self, owner: PrincipalId, model: &str, why: Why) -> bool;

    /// Asks one of those that [`Remote::takes`] means.
    fn chat<'a>(
        &'a self,
        owner: PrincipalId,
        model: &'a str,
        why: Why,
        request: ChatRequest,
    ) -> Reply<'a, Answer>;

    /// The models that `owner` may ask for by name.
    fn models(&self, owner: PrincipalId) -> Vec<RemoteModel>;

    fn statuses(&self) -> Vec<RemoteStatus>;
}

impl Failure {
    /// Whether another machine may well answer what failed so.
    fn is_of_this_machine(&self) -> bool {
        matches!(
            self,
            Self::NoModels { .. }
                | Self::QueueFull { .. }
                | Self::UserQueueFull { .. }
                | Self::BadModel { .. }
                | Self::Unsound { .. }
                | Self::NoRoom { .. }
                | Self::NotNow { .. }
                | Self::BackingOff { .. }
                | Self::OutOfMemory { .. }
                | Self::WorkerDied { .. }
        )
    }
}

impl Backends {
    /// The same, with services on other machines.
    pub fn with_remote(self, remote: Arc<dyn Remote>) -> Self {
        Self {
            remote: Some(remote),
            ..self
        }
    }

    /// Services on other machines, if there may be any.
    pub fn remote(&self) -> Option<&dyn Remote> {
        self.remote.as_deref()
    }

    /// Whether requests of `owner` for this model go to another machine because none here has its name.
    pub async fn is_elsewhere(&self, owner: PrincipalId, model: &str) -> bool {
        let Some(remote) = &self.remote else {
            return false;
        };
        remote.meet(owner, Some(model)).await;
        if !remote.takes(owner, model, Why::Named) {
            return false;
        }
        let found = self.local.find(model, Modalities::default()).await;
        matches!(
            found,
            Err(Failure::UnknownModel { .. } | Failure::NoModels { .. })
        )
    }

    /// Asks here or there.
    pub(super) async fn ask(
        &self,
        owner: PrincipalId,
        model: &str,
        request: ChatRequest,
    ) -> Result<Answer, Failure> {
        let Some(remote) = &self.remote else {
            return self.local.chat(owner, model, request).await;
        };
        if self.is_elsewhere(owner, model).await {
            return remote.chat(owner, model, Why::Named, request).await;
        }
        // What became pixels and samples of a model here is no file any more.
        if is_decoded(&request) {
            return self.local.chat(owner, model, request).await;
        }
        let status = self.local.status();
        let overflow = Why::Overflow(status.waiting);
        let is_up = matches!(status.phase, Phase::Ready { .. } | Phase::Loading { .. });
        if is_up && remote.takes(owner, model, overflow) {
            match remote.chat(owner, model, overflow, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    tracing::warn!(reason = %failure.without_words(), "the overflow stays here");
                }
            }
        }
        if !remote.takes(owner, model, Why::Failover) {
            return self.local.chat(owner, model, request).await;
        }
        let again = request.clone();
        let attempt = Attempt {
            remote: remote.clone(),
            owner,
            model: model.to_owned(),
            request: again,
        };
        match self.local.chat(owner, model, request).await {
            Ok(local) => Ok(attempt.begin(local)),
            Err(failure) if failure.is_of_this_machine() => attempt.instead_of(failure).await,
            Err(failure) => Err(failure),
        }
    }
}

fn is_decoded(request: &ChatRequest) -> bool {
    let is_decoded = |part: &Part| matches!(part, Part::Pixels(_) | Part::Samples(_));
    request.parts().any(|(_, _, part)| is_decoded(part))
}

/// What is asked elsewhere if this machine fails before it has said anything.
struct Attempt {
    remote: Arc<dyn Remote>,
    owner: PrincipalId,
    model: String,
    request: ChatRequest,
}

impl Attempt {
    async fn instead_of(self, local: Failure) -> Result<Answer, Failure> {
        let Self {
            remote,
            owner,
            model,
            request,
        } = self;
        tracing::info!(reason = %local.without_words(), "another machine is asked");
        let asked = remote.chat(owner, &model, Why::Failover, request).await;
        asked.map_err(|failure| failure.beside(&local))
    }

    /// The local answer, or, if that fails before its first event, another machine's.
    fn begin(self, mut local: Answer) -> Answer {
        let (events, received) = mpsc::channel(AHEAD);
        let (model, model_seen) = watch::channel(local.model());
        let (hang_ups, mut hung_up) = mpsc::unbounded_channel();
        let upstream = Arc::new(OnceLock::new());
        let answer = Answer {
            model: model_seen,
            events: received,
            guard: HangUpGuard {
                request: 0,
                hang_ups,
            },
            relaxed: vec![],
            waiting: local.waiting.clone(),
            upstream: upstream.clone(),
            tally: None,
        };
        tokio::spawn(async move {
            let work = async {
                let first = local.next().await;
                let mut answer = match first {
                    Some(Err(failure)) if failure.is_of_this_machine() => {
                        drop(local);
                        match self.instead_of(failure).await {
                            Ok(answer) => answer,
                            Err(failure) => {
                                let _ = events.send(Err(failure)).await;
                                return;
                            }
                        }
                    }
                    first => {
                        drop(self);
                        let _ = model.send(local.model());
                        pass(first, &events).await;
                        local
                    }
                };
                if let Some(name) = answer.upstream() {
                    let _ = upstream.set(name.to_owned());
                    let _ = model.send(answer.model());
                }
                while let Some(event) = answer.next().await {
                    if !pass(Some(event), &events).await {
                        return;
                    }
                }
            };
            tokio::select! {
                () = work => {}
                _ = hung_up.recv() => {}
            }
        });
        answer
    }
}

/// Hands an event on; `false` if nobody takes any more.
async fn pass(
    event: Option<Result<ChatEvent, Failure>>,
    events: &mpsc::Sender<Result<ChatEvent, Failure>>,
) -> bool {
    match event {
        Some(event) => events.send(event).await.is_ok(),
        None => false,
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
