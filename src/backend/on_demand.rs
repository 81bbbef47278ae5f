//! A request for a model that is not installed and may be had: it is fetched, and then asked. Meanwhile the request
//! waits as others do, and is told of in the same way, whichever door it came through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::pull::listed;
use super::{
    Answer, Failure, HangUpGuard, LocalBackend, Phase, PullAsk, PullFault, PullState, PullStatus,
    Puller, Status,
};
use crate::chat::{ChatEvent, ChatRequest, PrincipalId, Stage, Waiting};

/// Events that wait for the door; the model's backend keeps more.
const EVENTS: usize = 16;
/// Names that are remembered of models that were fetched by them.
const NAMES: usize = 256;

/// Who may have a model fetched by asking it.
pub trait OnDemand: std::fmt::Debug + Send + Sync {
    /// Whether anybody may.
    fn is_on(&self) -> bool;

    /// On whose behalf what `owner` names is fetched; `None`: they may not have it fetched.
    fn puller<'a>(&'a self, owner: PrincipalId, ask: &'a PullAsk) -> BoxFuture<'a, Option<Puller>>;
}

/// What models that were fetched are called here, by the names that they were asked for by: to find out what a repository's name means
/// its hub has to be asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetched(Arc<Mutex<BTreeMap<String, String>>>);

impl Fetched {
    /// The id of the model that was fetched by this name, if it is still installed.
    pub fn id(&self, name: &str, status: &Status) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = names.get(name)?;
        let is_it = |model: &super::ModelInfo| model.id == *id;
        status.models.iter().any(is_it).then(|| id.clone())
    }

    fn remember(&self, name: &str, id: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(name.to_owned(), id.to_owned());
    }
}

/// What is to be fetched for a request.
#[derive(Debug)]
pub(super) struct Wanted {
    pub ask: PullAsk,
    pub by: Puller,
    /// Why the model cannot be asked as it is.
    pub missing: Failure,
}

impl Wanted {
    /// Whether a name of which nothing is installed could be fetched by: what a catalog knows, a repository or an address.
    /// Not `auto` and the like, and not a file that is there and is passed over.
    pub fn is_named(missing: &Failure, name: &str) -> bool {
        match missing {
            Failure::UnknownModel {
                asked,
                passed_over: None,
                hint,
                ..
            } => asked == name && (hint.is_some() || name.contains('/')),
            Failure::NoModels { .. } => name.contains('/'),
            _ => false,
        }
    }

    /// The answer of the model, once it is here. Dropping it stops neither the download, which is its puller's, nor those who wait
    /// for it as well.
    pub fn answer(
        self,
        local: Arc<dyn LocalBackend>,
        fetched: Fetched,
        owner: PrincipalId,
        request: ChatRequest,
    ) -> Answer {
        let (model, known_model) = watch::channel(self.ask.model.clone());
        let (waiting, told) = watch::channel(Some(stands(0, None, 0)));
        let (events, receiver) = mpsc::channel(EVENTS);
        // Nobody has to be told of it: the events' end says that the client has left.
        let (hang_ups, _) = mpsc::unbounded_channel();
        let relay = Relay {
            local,
            model,
            waiting,
            events,
        };
        tokio::spawn(async move {
            let left = relay.events.clone();
            let work = async {
                if let Err(failure) = relay.run(self, &fetched, owner, request).await {
                    let _ = relay.events.send(Err(failure)).await;
                }
            };
            tokio::select! {
                () = work => {}
                () = left.closed() => {}
            }
        });
        Answer {
            model: known_model,
            events: receiver,
            guard: HangUpGuard {
                request: 0,
                hang_ups,
            },
            relaxed: vec![],
            waiting: told,
            // Models are fetched for this machine.
            upstream: Arc::default(),
            tally: None,
            cut: None,
        }
    }
}

/// What the door hears.
struct Relay {
    local: Arc<dyn LocalBackend>,
    model: watch::Sender<String>,
    waiting: watch::Sender<Option<Waiting>>,
    events: mpsc::Sender<Result<ChatEvent, Failure>>,
}

impl Relay {
    async fn run(
        &self,
        wanted: Wanted,
        fetched: &Fetched,
        owner: PrincipalId,
        request: ChatRequest,
    ) -> Result<(), Failure> {
        let name = wanted.ask.model.clone();
        let mut leaving = self.local.changes();
        let leaves = leaving.wait_for(|status| status.phase == Phase::Draining);
        let id = tokio::select! {
            id = self.fetch(wanted) => id?,
            _ = leaves => return Err(Failure::ShuttingDown),
        };
        fetched.remember(&name, &id);
        self.model.send_replace(id.clone());
        let answer = self.local.chat(owner, &id, request).await?;
        self.relay(answer).await;
        Ok(())
    }

    /// Fetches the model; returns its id.
    async fn fetch(&self, wanted: Wanted) -> Result<String, Failure> {
        let Wanted { ask, by, missing } = wanted;
        let mut watched = match self.local.pull(&ask, &by).await {
            // Its hub does not have it either, and clients know many names. What a catalog has and the hub has not is told.
            Err(Failure::Pull {
                fault: PullFault::Unknown,
                ..
            }) if !is_known(&missing) => return Err(missing),
            watched => watched?,
        };
        loop {
            let status = watched.borrow_and_update().clone();
            let told = stands(status.received(), status.bytes(), status.rate);
            self.waiting.send_replace(Some(told));
            if status.state.is_over() {
                return self.over(status).await;
            }
            // Its sender lives as long as it is told of.
            let _ = watched.changed().await;
        }
    }

    async fn over(&self, status: PullStatus) -> Result<String, Failure> {
        let fault = match status.state {
            PullState::Cancelled => PullFault::Busy,
            _ => PullFault::Server,
        };
        if let Some(text) = status.failure() {
            let text = format!("`{}` was not fetched: {text}", status.model);
            return Err(Failure::Pull { fault, text });
        }
        listed(&status, self.local.changes()).await;
        Ok(status.model)
    }

    /// Tells what the model's backend tells.
    async fn relay(&self, mut answer: Answer) {
        loop {
            let event = tokio::select! {
                biased;
                event = answer.events.recv() => event,
                Ok(()) = answer.waiting.changed() => {
                    let waiting = *answer.waiting.borrow_and_update();
                    self.waiting.send_replace(waiting);
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.model.send_replace(answer.model());
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Whether a catalog has what is missing: there is a command that fetches it.
fn is_known(missing: &Failure) -> bool {
    matches!(missing, Failure::UnknownModel { hint: Some(_), .. })
}

/// How far a download is.
fn stands(received: u64, bytes: Option<u64>, rate: u64) -> Waiting {
    let missing = bytes.map(|bytes| bytes.saturating_sub(received));
    let left = missing.filter(|_| rate > 0).map(|missing| missing / rate);
    Waiting {
        stage: Stage::Fetching { received, bytes },
        left: left.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_names_is_fetched_and_nothing_else() {
        let unknown = |asked: &str, hint: Option<&str>| Failure::UnknownModel {
            asked: asked.into(),
            known: vec![],
            passed_over: None,
            hint: hint.map(Into::into),
        };
        let none = Failure::no_models(&["/m".into()], &[]);
        for (missing, name, is_named) in [
            (unknown("e2b", Some("pull it")), "e2b", true),
            (unknown("gpt-4o", None), "gpt-4o", false),
            (unknown("acme/x", None), "acme/x", true),
            // What the configuration calls `auto`.
            (unknown("e2b", Some("pull it")), "auto", false),
            (none.clone(), "auto", false),
            (none.clone(), "https://h.example/x.gguf", true),
            (Failure::ShuttingDown, "acme/x", false),
        ] {
            assert_eq!(Wanted::is_named(&missing, name), is_named, "{name}");
        }
        let passed_over = Failure::UnknownModel {
            asked: "e2b".into(),
            known: vec![],
            passed_over: Some(super::super::Rejected {
                path: "/m/e2b.gguf".into(),
                reason: "a reason".into(),
                hides: false,
            }),
            hint: Some("pull it".into()),
        };
        assert!(!Wanted::is_named(&passed_over, "e2b"));
    }

    #[test]
    fn the_time_left_follows_from_the_rate() {
        assert_eq!(stands(10, Some(40), 0).left, None);
        assert_eq!(stands(10, None, 3).left, None);
        let half = stands(10, Some(40), 3);
        assert_eq!(half.left, Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_name_is_remembered_while_its_model_is_there() {
        let fetched = Fetched::default();
        let status = Status::first(vec![super::super::ModelInfo::example("mine")], vec![], None);
        fetched.remember("acme/x:Q4_0", "mine");
        fetched.remember("acme/y", "gone");
        assert_eq!(fetched.id("acme/x:Q4_0", &status).as_deref(), Some("mine"));
        assert_eq!(fetched.id("acme/y", &status), None);
        assert_eq!(fetched.id("acme/z", &status), None);
    }
}
