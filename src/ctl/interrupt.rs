//! Ctrl-C.
//!
//! A thread of its own waits for it, because the main thread may be stuck in a write to a pager or
//! in a read from a terminal. Outside of `chat` the program ends at once; the connection's end
//! tells the daemon to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::error::{Error, INTERRUPTED};
use super::text::{Stream, Terminal};

/// Who reacts to Ctrl-C.
#[derive(Clone)]
pub struct Interrupts(Arc<State>);

struct State {
    /// An answer is under way that Ctrl-C stops, and has not stopped yet.
    answering: AtomicBool,
    stop: Notify,
}

impl Interrupts {
    /// From here on Ctrl-C ends the program with [`INTERRUPTED`].
    ///
    /// # Errors
    /// When the system refuses a thread or the signal.
    pub fn install(terminal: &Terminal) -> Result<Self, Error> {
        let state = Arc::new(State {
            answering: AtomicBool::new(false),
            stop: Notify::new(),
        });
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Error::Output)?;
        let mut signals = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt()).map_err(Error::Output)?
        };
        let (shared, screen) = (state.clone(), terminal.err);
        let watch = move || {
            while runtime.block_on(signals.recv()).is_some() {
                // A second Ctrl-C, before the first was heard, ends the program too.
                if shared.answering.swap(false, Ordering::SeqCst) {
                    shared.stop.notify_one();
                } else {
                    leave(screen);
                }
            }
        };
        std::thread::Builder::new()
            .name("interrupts".into())
            .spawn(watch)
            .map_err(Error::Output)?;
        Ok(Self(state))
    }

    /// Runs `answer`, or returns `None` as soon as Ctrl-C stops it.
    pub async fn stops<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        self.0.answering.store(true, Ordering::SeqCst);
        let result = tokio::select! {
            result = answer => Some(result),
            () = self.0.stop.notified() => None,
        };
        if result.is_some() && !self.0.answering.swap(false, Ordering::SeqCst) {
            // Ctrl-C came with the last word: it must not stop the next answer.
            self.0.stop.notified().await;
        }
        result
    }
}

/// Takes the terminal out of the colour that it may have been left in, and off the line that was
/// begun. Not through `std::io`, whose locks the main thread may hold.
fn leave(screen: Stream) -> ! {
    if screen.is_terminal {
        let end = screen.uncoloured();
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{end}\n").as_bytes());
    }
    std::process::exit(INTERRUPTED.into())
}
