//! The protocol of a worker that fetches one file over one connection: it sends the file in pieces
//! and ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Protocol, WorkerKind};
use crate::chat::Networks;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Fetch {}

impl Protocol for Fetch {
    const KIND: WorkerKind = WorkerKind::Fetch;
    type Request = FetchRequest;
    type Event = FetchEvent;
    const LARGEST_EVENT: usize = FETCH_PIECE + (64 << 10);
}

/// Bytes of memory that such a worker may use.
pub const FETCH_MEMORY: u64 = 64 << 20;

/// Bytes of the file in one message at most.
pub const FETCH_PIECE: usize = 64 << 10;

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchEvent {
    /// Bytes of the file, in order.
    Piece(#[serde(with = "serde_bytes")] Vec<u8>),
    /// There are no more bytes. The worker exits after this.
    Fetched,
    /// The file is at this address, which may be relative. The worker exits after this.
    Redirected { to: String },
    /// Continues "the file …". The worker exits after this.
    Rejected { reason: String },
}

/// What to fetch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// `http` or `https`.
    pub url: String,
    /// From where it may come.
    pub networks: Networks,
    /// Bytes that it may have.
    pub most: u64,
}

/// An address may say as much as a prompt.
impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchRequest({} bytes at most)", self.most)
    }
}
