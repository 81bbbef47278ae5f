//! What the front doors hold: whatever answers, behind one trait.
//!
//! [`crate::engine::Engine`] is the backend of this machine. A door knows what is here and nothing
//! of a backend's inside.

mod answer;
mod failure;
mod keep;
mod ledger;
mod on_demand;
mod pull;
mod remote;
mod report;
#[cfg(test)]
pub(crate) mod scripted;
mod status;

pub use answer::{Answer, Cut, HangUpGuard};
pub use failure::{Failure, UpstreamFault};
pub use keep::{
    Hashed, Import, Imported, ModelPart, Removed, StoreFault, Unused, UnusedKind, Verdict,
    VerifiedFile,
};
pub use ledger::{Entry, Ledger, Outcome, Used};
pub use on_demand::OnDemand;
pub use pull::{
    LISTED, PullAsk, PullBackend, PullFault, PullMemory, PullPlan, PullRights, PullState,
    PullStatus, PullWatch, PulledFile, Puller, listed,
};
pub use remote::{Remote, RemoteModel, RemoteStatus, Why};
pub use report::{
    CacheReport, CachedFile, CatalogEntry, CatalogMemory, CatalogReport, ContextSpan, DeviceModule,
    DeviceReport, FoundBackend, FoundDevice, KeptFor, KeptPrompt, Member, MemoryReport,
    ModelDetails, PlanReport, PlannedContext, PlannedModel, VariantThere, WorkerMemory,
};
pub use status::{
    Change, Found, Level, MemoryState, ModelInfo, Phase, Rejected, Status, WaitingUser,
};

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::chat::{ChatRequest, Modalities, PrincipalId, TextAnswer, TextTask};
use ledger::Tally;
use on_demand::{Fetched, Wanted};

pub use crate::gemma::layout::{Class, Kind};
pub use crate::gemma::picture::Size as PictureSize;
pub use crate::gemma::sound::RATE as SOUND_RATE;
pub use crate::ipc::{Device, DeviceKind, FileMemory, FileRole, MemorySnapshot, Packing, Part};
pub use crate::sandbox::Support as Confinement;

/// What comes of a call, or why nothing does.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// Something that answers requests.
pub trait Backend: Debug + Send + Sync {
    /// What is known right now.
    fn status(&self) -> Status;

    /// What is known, and each change of it.
    fn changes(&self) -> watch::Receiver<Status>;

    /// The model that a chat with this `name` and these `modalities` would get now; fails as that
    /// would.
    fn find<'a>(&'a self, name: &'a str, modalities: Modalities) -> Reply<'a, Found>;

    /// Queues a request. The answer's first event may be long in coming: a model may have to be
    /// loaded first.
    fn chat<'a>(
        &'a self,
        owner: PrincipalId,
        model: &'a str,
        request: ChatRequest,
    ) -> Reply<'a, Answer>;

    /// Asks what the model's vocabulary and template alone can tell: counts, tokens, texts.
    fn text<'a>(
        &'a self,
        owner: PrincipalId,
        model: &'a str,
        task: TextTask,
    ) -> Reply<'a, TextAnswer>;
}

/// A backend whose models are in this machine's memory and on its disk.
pub trait LocalBackend: Backend + PullBackend {
    /// Loads a model, ending the one that is loaded; returns when it is up.
    fn load<'a>(&'a self, owner: PrincipalId, model: &'a str) -> Reply<'a, ModelInfo>;

    /// Ends the worker once it is idle; every byte it had is back when this returns.
    fn unload(&self) -> Reply<'_, ()>;

    /// What is in memory. Loads nothing.
    fn memory(&self) -> BoxFuture<'_, MemoryReport>;

    /// What each model would take: of what is free now or of `ram` bytes, in several contexts or in
    /// one of `context` tokens.
    fn plan(&self, context: Option<u32>, ram: Option<u64>) -> Reply<'_, PlanReport>;

    /// What could be had, and what it would take here.
    fn catalog(&self) -> Reply<'_, CatalogReport>;

    /// All that there is to know of the installed model that a name means.
    fn details<'a>(&'a self, name: &'a str) -> Reply<'a, ModelDetails>;

    /// Takes an installed model of exactly this id away, with what belongs to it alone. Fails while it is in use.
    fn remove<'a>(&'a self, id: &'a str) -> Reply<'a, Removed>;

    /// Hashes the files of the installed model that a name means; returns its id. Stops when nobody is `told` any more.
    fn verify<'a>(
        &'a self,
        name: &'a str,
        told: watch::Sender<Hashed>,
    ) -> Reply<'a, (String, Vec<VerifiedFile>)>;

    /// Begins to take in a file of so many bytes, in a folder of the model directory if one is named.
    fn import<'a>(
        &'a self,
        folder: Option<&'a str>,
        name: &'a str,
        bytes: u64,
    ) -> Reply<'a, Import>;

    /// What ggml could compute on beside the CPU. Starts processes, which end with this.
    fn devices(&self) -> Reply<'_, DeviceReport>;

    /// What packed weights are kept on the disk.
    fn cache(&self) -> Reply<'_, CacheReport>;

    /// Returns once the backend has come to it: that it is alive. Fails when it has ended.
    fn beat(&self) -> Reply<'_, ()>;

    /// Deletes all packed weights; says which. A worker keeps those that it uses until it ends.
    fn clear_cache(&self) -> Reply<'_, CacheReport>;

    /// What lies on the disk and serves no installed model. `remove`: it is taken away.
    fn prune(&self, remove: bool) -> Reply<'_, Vec<Unused>>;

    /// Prompts of `owner`, or of everybody, that are kept beyond their worker.
    fn prompts(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt>;

    /// Forgets them; says which. What a worker has of them in memory stays there.
    fn clear_prompts(&self, owner: Option<PrincipalId>) -> Vec<KeptPrompt>;
}

/// What is known of principals that may not ask every model.
pub trait Permits: Debug + Send + Sync {
    /// Which models this principal may ask.
    fn of(&self, owner: PrincipalId) -> Permit;

    /// What breaks off the answers of this principal before their end; `None`: nothing does.
    fn cut(&self, owner: PrincipalId) -> Option<Cut>;
}

/// Which models a principal may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    All,
    /// Those with these ids, of which the first is meant by `auto`.
    Only(Vec<String>),
    /// None any more.
    Nothing,
}

/// This machine's backend and services on others, for the doors. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Backends {
    local: Arc<dyn LocalBackend>,
    /// Services on other machines, if there may be any.
    remote: Option<Arc<dyn Remote>>,
    /// `None`: everybody may ask every model.
    permits: Option<Arc<dyn Permits>>,
    /// `None`: nothing is fetched for a request.
    on_demand: Option<Arc<dyn OnDemand>>,
    fetched: Fetched,
    /// `None`: nobody keeps account.
    ledger: Option<Arc<dyn Ledger>>,
}

impl Backends {
    /// This machine's alone.
    pub fn new(local: Arc<dyn LocalBackend>) -> Self {
        Self {
            local,
            remote: None,
            permits: None,
            on_demand: None,
            fetched: Fetched::default(),
            ledger: None,
        }
    }

    /// The same, of which account is kept.
    pub fn with_ledger(self, ledger: Arc<dyn Ledger>) -> Self {
        Self {
            ledger: Some(ledger),
            ..self
        }
    }

    /// What each principal has used, where account of it is kept.
    pub fn used(&self) -> Vec<Used> {
        self.ledger.as_ref().map_or(vec![], |ledger| ledger.days())
    }

    /// The same, for principals of which some may ask one model only.
    pub fn with_permits(self, permits: Arc<dyn Permits>) -> Self {
        Self {
            permits: Some(permits),
            ..self
        }
    }

    /// The same, which have models fetched that are asked and not installed, for those who may.
    pub fn with_on_demand(self, on_demand: Arc<dyn OnDemand>) -> Self {
        Self {
            on_demand: Some(on_demand),
            ..self
        }
    }

    /// What has to be fetched before `owner` can ask the model of this name; `None` where it is there, or is not fetched.
    async fn wanted(&self, owner: PrincipalId, name: &str) -> Option<Wanted> {
        let on_demand = self.on_demand.as_ref().filter(|all| all.is_on())?;
        let missing = self.find(name, Modalities::default()).await.err()?;
        if !Wanted::is_named(&missing, name) {
            return None;
        }
        let ask = PullAsk {
            model: name.to_owned(),
            ..PullAsk::default()
        };
        let by = on_demand.puller(owner, &ask).await?;
        Some(Wanted { ask, by, missing })
    }

    /// What `owner` asks who names a model so: fails if that is not the one that they may ask.
    async fn permitted(&self, owner: PrincipalId, model: &str) -> Result<String, Failure> {
        let permit = self.permits.as_ref().map(|all| all.of(owner));
        let only = match permit.unwrap_or(Permit::All) {
            Permit::All => return Ok(model.to_owned()),
            Permit::Only(only) => only,
            Permit::Nothing => {
                let text = "the right to ask has ended since it was asked".to_owned();
                return Err(Failure::NotPermitted { text });
            }
        };
        let is_auto = ["", "auto"].contains(&model);
        let named = only
            .iter()
            .find(|id| is_auto || model.eq_ignore_ascii_case(id));
        let named = match named {
            Some(id) => id.clone(),
            None => self.find(model, Modalities::default()).await?.model.id,
        };
        // By its id from here on: what else the name may mean is not for them.
        if only.contains(&named) {
            return Ok(named);
        }
        Err(Failure::NotPermitted {
            text: format!(
                "`{model}` is not for you: ask for {} or `auto`",
                only.iter()
                    .map(|id| format!("`{id}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
    }

    /// This machine's own.
    pub fn local(&self) -> &dyn LocalBackend {
        &*self.local
    }

    /// See [`Backend::find`].
    ///
    /// # Errors
    ///
    /// This machine has no such model.
    pub async fn find(&self, name: &str, modalities: Modalities) -> Result<Found, Failure> {
        self.local.find(name, modalities).await
    }

    /// Whether what `owner` names can be asked about these media, as far as that is known: of a model that is fetched first it is not.
    ///
    /// # Errors
    ///
    /// There is no such model, or none that takes them.
    pub async fn takes(
        &self,
        owner: PrincipalId,
        name: &str,
        modalities: Modalities,
    ) -> Result<(), Failure> {
        let name = &self.here(name);
        match self.find(name, modalities).await {
            Err(failure) if self.wanted(owner, name).await.is_none() => Err(failure),
            _ => Ok(()),
        }
    }

    /// See [`Backend::chat`]. A model that is not installed is fetched first, if its owner may have it fetched.
    ///
    /// # Errors
    ///
    /// Why the request is not taken; what goes wrong later is the answer's last event.
    pub async fn chat(
        &self,
        owner: PrincipalId,
        model: &str,
        request: ChatRequest,
    ) -> Result<Answer, Failure> {
        let since = Instant::now();
        let cut = self.permits.as_ref().and_then(|all| all.cut(owner));
        let asked = self.chat_unaccounted(owner, model, request).await;
        let asked = asked.map(|answer| Answer { cut, ..answer });
        let Some(ledger) = &self.ledger else {
            return asked;
        };
        match asked {
            Ok(mut answer) => {
                let (model, upstream) = (answer.model.clone(), answer.upstream.clone());
                answer.tally = Some(Tally::new(ledger, since, owner, model, upstream).into());
                Ok(answer)
            }
            Err(failure) => {
                ledger.enter(ledger::refused(since, owner, &failure));
                Err(failure)
            }
        }
    }

    async fn chat_unaccounted(
        &self,
        owner: PrincipalId,
        model: &str,
        request: ChatRequest,
    ) -> Result<Answer, Failure> {
        let model = &self.here(&self.permitted(owner, model).await?);
        if let Some(wanted) = self.wanted(owner, model).await
            && !self.is_elsewhere(owner, model).await
        {
            let (local, fetched) = (self.local.clone(), self.fetched.clone());
            return Ok(wanted.answer(local, fetched, owner, request));
        }
        self.ask(owner, model, request).await
    }

    /// What a name means by which a model was fetched for a request; else the name.
    fn here(&self, name: &str) -> String {
        let fetched = self.on_demand.as_ref().and_then(|_| {
            let status = self.local.changes();
            self.fetched.id(name, &status.borrow())
        });
        fetched.unwrap_or_else(|| name.to_owned())
    }

    /// See [`LocalBackend::load`].
    ///
    /// # Errors
    ///
    /// Why it is not loaded.
    pub async fn load(&self, owner: PrincipalId, model: &str) -> Result<ModelInfo, Failure> {
        let model = &self.permitted(owner, model).await?;
        self.local.load(owner, model).await
    }

    /// See [`Backend::text`].
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn text(
        &self,
        owner: PrincipalId,
        model: &str,
        task: TextTask,
    ) -> Result<TextAnswer, Failure> {
        let model = &self.permitted(owner, model).await?;
        if self.is_elsewhere(owner, model).await {
            return Err(Failure::Upstream {
                fault: UpstreamFault::NotSent,
                text: format!(
                    "`{model}` is a model of an upstream, whose tokens and template are not known here"
                ),
            });
        }
        self.local.text(owner, model, task).await
    }
}

#[cfg(test)]
mod tests {
    use super::scripted::{Call, Scripted};
    use super::*;

    #[derive(Debug)]
    struct OneModel(Permit);

    impl Permits for OneModel {
        fn of(&self, owner: PrincipalId) -> Permit {
            match owner {
                PrincipalId::Token { .. } => self.0.clone(),
                _ => Permit::All,
            }
        }

        fn cut(&self, _: PrincipalId) -> Option<Cut> {
            None
        }
    }

    #[tokio::test]
    async fn who_may_ask_one_model_asks_no_other() {
        let token = PrincipalId::Token { id: 1, owner: 1000 };
        let permitted = async |permit: Permit, owner, name: &'static str| {
            let (local, mut asked) = backend(&["mine", "other"]);
            tokio::spawn(async move {
                while let Some(Call::Find { name, reply, .. }) = asked.recv().await {
                    // A name that means another one.
                    let id = if name == "alias" { "mine" } else { "other" };
                    reply.send(Ok(Found::example(id))).unwrap();
                }
            });
            let backends = Backends::new(local).with_permits(Arc::new(OneModel(permit)));
            backends.permitted(owner, name).await
        };
        let only = || Permit::Only(vec!["mine".to_owned(), "second".to_owned()]);
        for name in ["mine", "Mine", "auto", "", "alias"] {
            assert_eq!(permitted(only(), token, name).await, Ok("mine".to_owned()));
        }
        assert_eq!(
            permitted(only(), token, "second").await,
            Ok("second".into())
        );
        let refused = permitted(only(), token, "other").await.unwrap_err();
        assert!(matches!(refused, Failure::NotPermitted { text } if text.contains("`mine`")));
        let user = PrincipalId::User(1000);
        assert_eq!(permitted(only(), user, "other").await, Ok("other".into()));
        assert!(permitted(Permit::Nothing, token, "mine").await.is_err());
    }

    fn backend(models: &[&str]) -> (Arc<Scripted>, tokio::sync::mpsc::Receiver<Call>) {
        let models = models.iter().map(|id| ModelInfo::example(id)).collect();
        let (backend, calls, _) = Scripted::new(Status::first(models, vec![], None));
        (Arc::new(backend), calls)
    }
}
