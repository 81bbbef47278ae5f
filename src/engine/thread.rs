//! Threads for work that may hang with its disk. They are none of the runtime's, whose number is
//! bounded and which panics where the system has no thread to give.

use std::io;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Has `work` done on a thread of its own. Dropping this leaves the thread to itself.
///
/// # Errors
///
/// The system has no thread to give, or the work panicked.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (send, done) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("gemmad-disk".to_owned())
        .spawn(move || {
            // What is made to watch folders belongs to the runtime.
            let _entered = runtime.enter();
            // Whoever waited may have left.
            let _ = send.send(work());
        })
        .map_err(|error| {
            io::Error::new(error.kind(), format!("no thread can be started: {error}"))
        })?;
    done.await
        .map_err(|_| io::Error::other("the thread that did it has panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::inotify::FolderWatch;

    #[tokio::test]
    async fn what_panics_is_an_error_and_the_rest_is_done() {
        assert_eq!(run(|| 7).await.unwrap(), 7);
        let watched = run(|| FolderWatch::new([std::env::temp_dir().as_path()], [])).await;
        watched.unwrap().unwrap();
        let failed = run(|| assert_eq!(1, 2, "on purpose")).await.unwrap_err();
        assert!(failed.to_string().contains("panicked"), "{failed}");
    }
}
