//! gemmad: the Gemma 4 family for every program on a small machine.
//!
//! Three programs share this library: `gemmad` (the supervisor), `gemmad-worker` (one model) and
//! `gemmactl` (the command line). `src/worker` belongs to `gemmad-worker` alone and is compiled
//! there, so that llama.cpp cannot get into the other two. `docs/architecture.md` is the map.

#[cfg(test)]
#[path = "../tests/harness/skip.rs"]
mod skip;

pub mod access;
pub mod api;
pub mod attachments;
pub mod backend;
pub mod bus;
pub mod chat;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod engine;
pub mod gemma;
pub mod ipc;
pub mod memory;
pub mod sandbox;
pub mod store;
pub mod sys;
