//! What the doors may ask of downloads: questions to servers and disks wait on threads of their own.

use std::time::Duration;

use futures_util::FutureExt;

use super::super::{Engine, thread};
use crate::backend::{
    Failure, LocalBackend, PullAsk, PullBackend, PullPlan, PullRights, PullStatus, PullWatch,
    Puller, Reply,
};
use crate::chat::PrincipalId;

/// How long the start waits for the disk to say what was being fetched.
const RESUME_TIME: Duration = Duration::from_secs(2);

impl Engine {
    /// Goes on with the downloads that an earlier daemon began. A disk that does not answer is not waited for.
    ///
    /// `may`: whether somebody may still fetch from places for which these are the rights.
    pub async fn resume_pulls(
        &self,
        may: impl Fn(PrincipalId, &[PullRights]) -> bool + Send + 'static,
    ) {
        let pulls = self.pulls.clone();
        let resumed = async {
            let basis = self.pull_basis().await?;
            thread::run(move || pulls.resume(&basis, &may))
                .await
                .map_err(|error| not_now(&error))
        };
        let resumed = tokio::time::timeout(RESUME_TIME, resumed).await;
        if !matches!(resumed, Ok(Ok(()))) {
            tracing::warn!("what was being fetched goes on when its disk answers");
        }
    }

    /// Whether models are fetched.
    pub fn is_pulling(&self) -> bool {
        self.pulls.is_busy()
    }
}

impl PullBackend for Engine {
    fn pull_rights<'a>(&'a self, ask: &'a PullAsk) -> Reply<'a, Vec<PullRights>> {
        async move { self.pulls.rights(ask, &self.pull_basis().await?) }.boxed()
    }

    fn plan_pull<'a>(&'a self, ask: &'a PullAsk, by: &'a Puller) -> Reply<'a, PullPlan> {
        async move {
            let (basis, report) = (self.pull_basis().await?, self.catalog().await?);
            let (pulls, ask, by) = (self.pulls.clone(), ask.clone(), by.clone());
            of_servers(move || pulls.plan(&ask, &by, &basis, &report)).await
        }
        .boxed()
    }

    fn pull<'a>(&'a self, ask: &'a PullAsk, by: &'a Puller) -> Reply<'a, PullWatch> {
        async move {
            let (basis, report) = (self.pull_basis().await?, self.catalog().await?);
            let (pulls, ask, by) = (self.pulls.clone(), ask.clone(), by.clone());
            of_servers(move || pulls.pull(&ask, &by, &basis, &report)).await
        }
        .boxed()
    }

    fn pulls(&self) -> Vec<PullStatus> {
        self.pulls.list()
    }

    fn cancel_pull<'a>(
        &'a self,
        id: &'a str,
        account: Option<PrincipalId>,
    ) -> Reply<'a, PullStatus> {
        async move {
            let (pulls, id) = (self.pulls.clone(), id.to_owned());
            let mut watched = of_servers(move || pulls.cancel(&id, account)).await?;
            // Its sender lives as long as it is told of.
            let _ = watched.wait_for(|status| status.state.is_over()).await;
            Ok(watched.borrow().clone())
        }
        .boxed()
    }
}

/// What is asked of servers and disks is asked on a thread that waits for them.
async fn of_servers<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    thread::run(work)
        .await
        .unwrap_or_else(|error| Err(not_now(&error)))
}

fn not_now(error: &impl std::fmt::Display) -> Failure {
    Failure::NotNow {
        what: "models cannot be fetched",
        cause: error.to_string(),
    }
}
