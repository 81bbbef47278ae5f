//! The inputs of the state. Pure.

use std::time::Instant;

use super::Generation;
use crate::backend::Failure;
use crate::chat::{PrincipalId, ServiceTier};
use crate::engine::queue::Kind;
use crate::ipc::Progress;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Legal always. `model` is an installed model's id; `flexible`: another will do if that one cannot
    /// be had.
    Submit {
        id: u64,
        owner: PrincipalId,
        model: String,
        flexible: bool,
        tier: ServiceTier,
        kind: Kind,
    },
    /// Another model's id for a job, or why there is none; answers [`super::Action::Choose`]. None is
    /// chosen twice.
    Chosen {
        id: u64,
        model: Result<String, Failure>,
    },
    /// The worker that is being started for its model is none for this job; legal for one that
    /// waits.
    Refused { id: u64, failure: Failure },
    /// The client left; legal always.
    HangUp { id: u64 },
    /// Legal always; answered by [`super::Action::Unloaded`].
    Unload,
    /// The model's file is being opened for this worker, which may take as long as its disk wants;
    /// until [`Input::Opened`] there is no process.
    Opening {
        generation: Generation,
        file: String,
    },
    /// The opening of this model's files has come to its end, for whichever worker it was begun.
    Opened { model: String },
    /// `slots` requests at once are what this worker takes.
    Loaded { generation: Generation, slots: u32 },
    /// The model's file is at fault, or there is no room for it; the worker is not. Out of memory:
    /// less of it may do.
    LoadFailed {
        generation: Generation,
        failure: Failure,
        out_of_memory: bool,
    },
    /// The first piece of an answer went to its client. `shown`: it cannot be taken back, because
    /// the client does not wait for the whole.
    Begun { id: u64, shown: bool },
    /// The worker lives, and its model cannot answer this job. `of_model`: nor any other.
    Unfit {
        id: u64,
        failure: Failure,
        of_model: bool,
    },
    /// The answer's end went to its client.
    Ended { id: u64 },
    /// The worker is gone, however it went. `out_of_memory`: the kernel took it.
    Exited {
        generation: Generation,
        cause: String,
        out_of_memory: bool,
    },
    /// The worker says how far it is; answers [`super::Action::AskBeat`].
    Beat {
        generation: Generation,
        decoder: Progress,
        encoder: Progress,
    },
    /// Memory is short: the worker ends once it is idle (`true`), or may go on after all. Legal
    /// always; for a loaded one.
    EndWhenIdle(bool),
    /// Memory has run out: the worker ends now. Legal always.
    GiveUp { cause: String },
    /// No more requests; what runs has until `deadline`.
    Drain { deadline: Instant },
    /// Time passed; legal always.
    Tick,
}
