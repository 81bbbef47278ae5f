//! What the doors may ask of downloads: questions to servers and disks wait on threads of their own.

use std::time::Duration;

use futures_util::FutureExt;

use super::super::{Engine, thread};
use crate::backend::{
    Failure, LocalBackend, PullAsk, PullBackend, PullPlan, PullRights, PullStatus, PullWatch, Reply,
};

/// How long the start waits for the disk to say what was being fetched.
const RESUME_TIME: Duration = Duration::from_secs(2);

impl Engine {
    /// Goes on with the downloads that an earlier daemon began. A disk that does not answer is not waited for.
    pub async fn resume_pulls(&self) {
        let pulls = self.pulls.clone();
        let resumed = thread::run(move || pulls.resume());
        if tokio::time::timeout(RESUME_TIME, resumed).await.is_err() {
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

    fn plan_pull<'a>(&'a self, ask: &'a PullAsk) -> Reply<'a, PullPlan> {
        async move {
            let (basis, report) = (self.pull_basis().await?, self.catalog().await?);
            let (pulls, ask) = (self.pulls.clone(), ask.clone());
            of_servers(move || pulls.plan(&ask, &basis, &report)).await
        }
        .boxed()
    }

    fn pull<'a>(&'a self, ask: &'a PullAsk) -> Reply<'a, PullWatch> {
        async move {
            let (basis, report) = (self.pull_basis().await?, self.catalog().await?);
            let (pulls, ask) = (self.pulls.clone(), ask.clone());
            of_servers(move || pulls.pull(&ask, &basis, &report)).await
        }
        .boxed()
    }

    fn pulls(&self) -> Vec<PullStatus> {
        self.pulls.list()
    }

    fn cancel_pull<'a>(&'a self, id: &'a str) -> Reply<'a, PullStatus> {
        async move {
            let mut watched = self.pulls.cancel(id)?;
            // Its sender lives as long as it is told of.
            let _ = watched.wait_for(|status| status.state.is_over()).await;
            Ok(watched.borrow().clone())
        }
        .boxed()
    }
}

/// What is asked of servers is asked on a thread that waits for them.
async fn of_servers<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    thread::run(work).await.unwrap_or_else(|error| {
        Err(Failure::NotNow {
            what: "models cannot be fetched",
            cause: error.to_string(),
        })
    })
}
