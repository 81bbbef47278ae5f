//! gemmad's own API: the state of the daemon, of its models and of the memory, and what
//! administrators may do about it.

pub mod admin;
pub mod cache;
pub mod catalog;
pub mod devices;
pub mod keep;
pub mod memory;
pub mod metrics;
pub mod plan;
pub mod pull;
pub mod status;
pub mod tokens;
pub mod usage;
pub mod verify;
