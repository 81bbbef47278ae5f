//! Threads without which a worker is of no use.

use std::thread::{Builder, JoinHandle};

use super::exit::EXIT_SHORTAGE;

/// Starts one. Where the system has none to give the worker ends and says so: the supervisor starts
/// another when there may be some.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().spawn(work).unwrap_or_else(|error| {
        eprintln!("gemmad-worker ends: no thread can be started: {error}");
        std::process::exit(EXIT_SHORTAGE.into())
    })
}
