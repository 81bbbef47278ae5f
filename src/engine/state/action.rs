//! The actions that the state asks of the driver. Pure.

use std::time::Duration;

use super::Generation;
use crate::backend::Failure;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker, so many steps smaller than it could be.
    Spawn {
        generation: Generation,
        model: String,
        downsized: u32,
    },
    /// Have the worker give back what it can.
    Trim,
    /// Close the worker's socket.
    End {
        generation: Generation,
    },
    Kill {
        generation: Generation,
    },
    /// Ask the worker how far it is; answered by [`super::Input::Beat`], or by nothing.
    AskBeat,
    /// The worker has something to do and has done nothing for so long: kill it.
    KillSilent {
        generation: Generation,
        /// What of it is silent, in words.
        what: &'static str,
        silence: Duration,
    },
    /// Hand the request to the worker.
    Send {
        id: u64,
    },
    /// Tell the worker to stop this one; its client has left.
    Cancel {
        id: u64,
    },
    /// The job's model cannot be had, for this reason: choose another. Answered by
    /// [`super::Input::Chosen`] before anything else.
    Choose {
        id: u64,
        failure: Failure,
    },
    /// Tell the client, and forget the job.
    Fail {
        id: u64,
        failure: Failure,
    },
    /// A job that only loads a model is done.
    LoadDone {
        id: u64,
    },
    /// Answer all clients that asked for the model to be unloaded.
    Unloaded,
    Drained,
}
