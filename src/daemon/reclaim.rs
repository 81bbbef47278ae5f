//! What the daemon gives back when it has nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::access::admission::Admission;
use crate::api::Api;
use crate::backend::{Phase, Status};
use crate::sys;

/// The time from something that freed memory to its being given back, in which more may come.
const TRIM_PAUSE: Duration = Duration::from_secs(2);

/// Gives memory back that requests have freed, each time that a busy spell is over. While nothing
/// happens, nothing wakes this.
pub async fn reclaim_memory(
    mut changes: watch::Receiver<Status>,
    api: Arc<Api>,
    admission: Arc<Admission>,
) {
    loop {
        tokio::select! {
            () = api.given_back() => {}
            () = admission.given_back() => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(TRIM_PAUSE).await;
        // What happened meanwhile is seen with this; what is still going on has an end to come.
        let status = changes.borrow_and_update();
        let is_busy = status.running + status.waiting > 0 || admission.is_holding();
        drop(status);
        if !is_busy {
            sys::allocator::trim();
        }
    }
}

/// Gives back the code that starting took, now and each time that a model is out of memory again.
pub async fn reclaim_code(mut changes: watch::Receiver<Status>) {
    loop {
        if let Err(error) = crate::sys::process::give_back_code() {
            tracing::debug!(%error, "the program's code stays in memory");
        }
        let is_cold = |status: &Status| matches!(status.phase, Phase::Cold);
        // The engine is gone where either fails.
        let Ok(()) = changes.wait_for(|status| !is_cold(status)).await.map(drop) else {
            return;
        };
        let Ok(()) = changes.wait_for(is_cold).await.map(drop) else {
            return;
        };
    }
}
