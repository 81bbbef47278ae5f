//! The exit status of a worker, by sysexits.h.

/// Started by hand (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// The model cannot be served (`EX_DATAERR`); the reason went over the channel.
pub const EXIT_LOAD: u8 = 65;
/// The system refused something that every worker needs (`EX_OSERR`).
pub const EXIT_SYSTEM: u8 = 71;
/// The supervisor said something that makes no sense (`EX_PROTOCOL`).
pub const EXIT_PROTOCOL: u8 = 76;
/// The system has no thread left for now (`EX_TEMPFAIL`).
pub const EXIT_SHORTAGE: u8 = crate::ipc::EXIT_SHORTAGE;
