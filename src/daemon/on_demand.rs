//! Who may have a model fetched by asking it: whoever may fetch it otherwise, if the configuration has it so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::access::Principal;
use crate::access::admission::Admission;
use crate::api::native::pull::by_catalogs;
use crate::attachments::aside;
use crate::backend::{OnDemand, PullAsk, PullBackend, Puller};
use crate::chat::PrincipalId;
use crate::engine::Engine;

/// `pull-on-demand`, and who it is for.
#[derive(Debug)]
pub struct FetchedOnDemand {
    engine: Engine,
    admission: Arc<Admission>,
    is_on: AtomicBool,
}

impl FetchedOnDemand {
    pub fn new(engine: &Engine, admission: &Arc<Admission>, is_on: bool) -> Self {
        Self {
            engine: engine.clone(),
            admission: admission.clone(),
            is_on: is_on.into(),
        }
    }

    /// Whether models are fetched for requests from now on.
    pub fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Whose rights count: those that the system's lists give a user now.
    async fn principal(&self, owner: PrincipalId) -> Option<Principal> {
        let admission = self.admission.clone();
        if let PrincipalId::Token { id, .. } = owner {
            let record = admission.tokens.record(id)?;
            return Some(admission.holder(Arc::new(record)));
        }
        if let PrincipalId::Subject { .. } = owner {
            // What an issuer's token is for is known while its request is there, and not from its number.
            return None;
        }
        let user = owner.uid()?;
        aside(move || admission.absent(user)).await.ok()
    }
}

impl OnDemand for FetchedOnDemand {
    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    fn puller<'a>(&'a self, owner: PrincipalId, ask: &'a PullAsk) -> BoxFuture<'a, Option<Puller>> {
        async move {
            let who = self.principal(owner).await?;
            if !self.admission.may_manage_models(&who) {
                return by_catalogs(&self.engine, &who, ask).await;
            }
            // What cannot be had is refused as ever.
            self.engine.pull_rights(ask).await.ok()?;
            Some(Puller::Administrator)
        }
        .boxed()
    }
}
