//! What the worker does about a decoder that panics, and what libFuzzer must not do about it.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

/// A decoder's panic is refused like any other damage; one of the target's own ends the run.
pub fn careful<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let ends = take_hook();
    set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("panicked".into()));
    set_hook(ends);
    outcome
}
