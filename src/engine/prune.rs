//! What lies on the disk and serves no installed model.

use super::{Command, Engine, thread};
use crate::backend::{Failure, Unused, UnusedKind};

/// Lists it, and takes it away if told to.
pub(super) async fn prune(engine: &Engine, remove: bool) -> Result<Vec<Unused>, Failure> {
    let packed = engine.ask(move |reply| Command::Cache {
        unused: true,
        clear: remove,
        reply,
    });
    let packed = packed.await?.files.into_iter().map(|file| Unused {
        kind: UnusedKind::PackedWeights,
        name: file.name,
        bytes: file.bytes,
    });
    let mut found: Vec<Unused> = packed.collect();
    let pulls = engine.pulls.clone();
    let kept = thread::run(move || pulls.prune(remove)).await;
    found.extend(kept.map_err(|error| Failure::NotNow {
        what: "the disk cannot be looked at",
        cause: error.to_string(),
    })??);
    Ok(found)
}
