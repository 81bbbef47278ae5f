//! The protocol of a worker that fetches a part of a model's file over one connection. The bytes go
//! into a pipe, whose writing end comes with the request; everything else is said here.
//!
//! The worker has no file: what a server makes of it can lie about bytes, and cannot change what has
//! been hashed and written.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::chat::Networks;

use super::{Protocol, WorkerKind};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Pull {}

impl Protocol for Pull {
    const KIND: WorkerKind = WorkerKind::Pull;
    type Request = PullRequest;
    type Event = PullEvent;
    const LARGEST_EVENT: usize = 64 << 10;
}

/// Bytes of memory that such a worker may use.
pub const PULL_MEMORY: u64 = 32 << 20;

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullEvent {
    /// The server has it. Bytes follow in the pipe.
    Head(PullHead),
    /// All bytes that were asked for are in the pipe. The worker exits after this.
    Ended,
    /// The file is at this address, which may be relative; `etag` and `bytes` are what the hub says of it (`X-Linked-ETag`,
    /// `X-Linked-Size`). The worker exits after this.
    Redirected {
        to: String,
        etag: Option<String>,
        bytes: Option<u64>,
    },
    /// The server answers something else. `retry_after`: seconds. The worker exits after this.
    Refused {
        status: u16,
        retry_after: Option<u32>,
    },
    /// Continues "… cannot be fetched: ". `distrusted`: the server is not whom it should be, so that trying again is of no
    /// use. The worker exits after this.
    Broken { reason: String, distrusted: bool },
}

/// What a server says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullHead {
    /// Which byte of the file is the pipe's first.
    pub start: u64,
    /// Whether it sends parts of the file, and not the whole whatever it is asked for.
    pub part: bool,
    /// Bytes of the whole file.
    pub total: Option<u64>,
    /// A strong entity tag.
    pub etag: Option<String>,
}

/// What to fetch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// `http` or `https`.
    pub url: String,
    /// The first byte that is wanted.
    pub from: u64,
    /// Bytes that are wanted at most.
    pub most: u64,
    /// Whether a part is asked for even from the first byte on.
    pub part: bool,
    /// The entity tag that the file must have for a part of it to be sent.
    pub etag: Option<String>,
    /// Goes to this server, and no other.
    pub token: Option<String>,
    /// The `http` address of a proxy, with its user and password if it wants them.
    pub proxy: Option<String>,
    /// Where the server may be; `None`: anywhere.
    pub networks: Option<Networks>,
}

/// Addresses can have keys in them.
impl fmt::Debug for PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PullRequest({} bytes from {})", self.most, self.from)
    }
}
