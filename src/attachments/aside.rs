//! Work that would hold up everything else: it is done on another thread. None of the runtime's own,
//! which panics where the system has no thread to give.

use tokio::sync::{Semaphore, oneshot};

use super::not_started;
use crate::backend::Failure;
use crate::chat::ChatError;

/// Threads at the same time.
const THREADS: usize = 16;
/// In messages.
const WHAT: &str = "the request cannot be read";

/// Has `work` done on another thread, once there is one to spare. Dropping this leaves the thread to
/// itself.
///
/// # Errors
///
/// The system has no thread to give, or the work panicked.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    static SPARE: Semaphore = Semaphore::const_new(THREADS);
    let broken = || {
        let reason = format!("{WHAT}: the thread that did it has panicked");
        Failure::Chat(ChatError::Inference { reason })
    };
    let spare = SPARE.acquire().await.map_err(|_| broken())?;
    let (send, done) = oneshot::channel();
    std::thread::Builder::new()
        .name("gemmad-aside".to_owned())
        .spawn(move || {
            // Whoever waited may have left.
            let _ = send.send(work());
            drop(spare);
        })
        .map_err(|error| not_started(WHAT, &error))?;
    done.await.map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_work_than_threads_is_done_and_what_panics_is_an_error() {
        let all = (0..3 * THREADS).map(|i| aside(move || i));
        let all = futures_util::future::join_all(all).await;
        let done: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(done, (0..3 * THREADS).collect::<Vec<_>>());
        for _ in 0..2 * THREADS {
            let failed = aside(|| assert_eq!(1, 2, "on purpose")).await.unwrap_err();
            assert!(failed.to_string().contains("panicked"), "{failed}");
        }
    }
}
