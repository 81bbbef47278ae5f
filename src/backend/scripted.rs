//! A backend whose answers a test gives.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::*;
use crate::chat::{ChatEvent, PrincipalId};

/// What was asked of a [`Scripted`] backend, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Call {
    Find {
        name: String,
        reply: oneshot::Sender<Result<Found, Failure>>,
    },
    Chat {
        model: String,
        request: Box<ChatRequest>,
        reply: oneshot::Sender<Result<Answer, Failure>>,
    },
    Load {
        model: String,
        reply: oneshot::Sender<Result<ModelInfo, Failure>>,
    },
}

#[derive(Debug)]
pub(crate) struct Scripted {
    calls: mpsc::Sender<Call>,
    status: watch::Receiver<Status>,
}

impl Scripted {
    /// A backend, what is asked of it, and the means to change its status.
    pub fn new(status: Status) -> (Self, mpsc::Receiver<Call>, watch::Sender<Status>) {
        let (calls, asked) = mpsc::channel(16);
        let (publish, status) = watch::channel(status);
        (Self { calls, status }, asked, publish)
    }

    fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Call + Send + 'static,
    ) -> Reply<'static, T> {
        let calls = self.calls.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let _ = calls.send(call(reply)).await;
            answer.await.unwrap_or(Err(Failure::ShuttingDown))
        })
    }
}

impl Backends {
    /// A single scripted backend; see [`Scripted::new`].
    pub(crate) fn scripted(status: Status) -> (Self, mpsc::Receiver<Call>, watch::Sender<Status>) {
        let (backend, asked, publish) = Scripted::new(status);
        (Self::new(Arc::new(backend)), asked, publish)
    }
}

impl Backend for Scripted {
    fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    fn changes(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    fn find<'a>(&'a self, name: &'a str, _: Modalities) -> Reply<'a, Found> {
        let name = name.to_owned();
        self.ask(move |reply| Call::Find { name, reply })
    }

    fn chat<'a>(
        &'a self,
        _: PrincipalId,
        model: &'a str,
        request: ChatRequest,
    ) -> Reply<'a, Answer> {
        let (model, request) = (model.to_owned(), Box::new(request));
        self.ask(|reply| Call::Chat {
            model,
            request,
            reply,
        })
    }

    fn text<'a>(&'a self, _: PrincipalId, _: &'a str, task: TextTask) -> Reply<'a, TextAnswer> {
        unscripted(task)
    }
}

impl PullBackend for Scripted {
    fn pull_rights<'a>(&'a self, ask: &'a PullAsk) -> Reply<'a, Vec<PullRights>> {
        unscripted(ask)
    }

    fn plan_pull<'a>(&'a self, ask: &'a PullAsk, _by: &'a Puller) -> Reply<'a, PullPlan> {
        unscripted(ask)
    }

    fn pull<'a>(&'a self, ask: &'a PullAsk, _by: &'a Puller) -> Reply<'a, PullWatch> {
        unscripted(ask)
    }

    fn pulls(&self) -> Vec<PullStatus> {
        unscripted("pulls")
    }

    fn cancel_pull<'a>(
        &'a self,
        id: &'a str,
        _account: Option<PrincipalId>,
    ) -> Reply<'a, PullStatus> {
        unscripted(id)
    }
}

impl LocalBackend for Scripted {
    fn load<'a>(&'a self, _: PrincipalId, model: &'a str) -> Reply<'a, ModelInfo> {
        let model = model.to_owned();
        self.ask(|reply| Call::Load { model, reply })
    }

    fn unload(&self) -> Reply<'_, ()> {
        unscripted("unload")
    }

    fn memory(&self) -> BoxFuture<'_, MemoryReport> {
        unscripted("memory")
    }

    fn plan(&self, context: Option<u32>, ram: Option<u64>) -> Reply<'_, PlanReport> {
        unscripted((context, ram))
    }

    fn details<'a>(&'a self, name: &'a str) -> Reply<'a, ModelDetails> {
        unscripted(name)
    }

    fn remove<'a>(&'a self, id: &'a str) -> Reply<'a, Removed> {
        unscripted(id)
    }

    fn verify<'a>(
        &'a self,
        name: &'a str,
        _: watch::Sender<Hashed>,
    ) -> Reply<'a, (String, Vec<VerifiedFile>)> {
        unscripted(name)
    }

    fn import<'a>(&'a self, _: Option<&'a str>, name: &'a str, _: u64) -> Reply<'a, Import> {
        unscripted(name)
    }

    fn catalog(&self) -> Reply<'_, CatalogReport> {
        unscripted("catalog")
    }

    fn devices(&self) -> Reply<'_, DeviceReport> {
        unscripted("devices")
    }

    fn cache(&self) -> Reply<'_, CacheReport> {
        unscripted("cache")
    }

    /// At once, as long as somebody reads what is asked; else never.
    fn beat(&self) -> Reply<'_, ()> {
        if self.calls.is_closed() {
            return Box::pin(std::future::pending());
        }
        Box::pin(async { Ok(()) })
    }

    fn prune(&self, remove: bool) -> Reply<'_, Vec<Unused>> {
        unscripted(remove)
    }

    fn clear_cache(&self) -> Reply<'_, CacheReport> {
        unscripted("clear_cache")
    }

    fn prompts(&self, _: Option<PrincipalId>) -> Vec<KeptPrompt> {
        unscripted("prompts")
    }

    fn clear_prompts(&self, _: Option<PrincipalId>) -> Vec<KeptPrompt> {
        unscripted("clear_prompts")
    }
}

fn unscripted<T>(call: impl Debug) -> T {
    panic!("no script answers {call:?}")
}

impl Answer {
    /// An answer whose events are sent by the test; the sender is closed when the answer is
    /// dropped.
    pub(crate) fn scripted(model: &str) -> (Self, mpsc::Sender<Result<ChatEvent, Failure>>) {
        let (send, events) = mpsc::channel(8);
        let (hang_ups, _) = mpsc::unbounded_channel();
        let (_, model) = watch::channel(model.to_owned());
        let (_, waiting) = watch::channel(None);
        let guard = HangUpGuard {
            request: 0,
            hang_ups,
        };
        (
            Self {
                model,
                events,
                guard,
                relaxed: vec![],
                waiting,
                upstream: Arc::default(),
                tally: None,
                cut: None,
            },
            send,
        )
    }
}
