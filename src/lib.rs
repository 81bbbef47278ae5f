//! gemmad: the Gemma 4 family for every program on a small machine.
//!
//! Four programs share this library: `gemmad` (the supervisor), `gemmad-worker` (one model),
//! `gemmactl` (the command line) and `gemmad-gateway` (TCP and TLS). `src/worker` belongs to
//! `gemmad-worker` alone and is compiled there, so that llama.cpp cannot get into the others. `docs/architecture.md` is the map.

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
pub mod gateway;
pub mod gemma;
pub mod ipc;
pub mod memory;
pub mod sandbox;
pub mod store;
pub mod sys;
mod upstream;
mod usage;
