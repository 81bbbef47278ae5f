//! What the daemon gives back when it has nothing to do.

use tokio::sync::watch;

use crate::backend::{Phase, Status};

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
