//! The protocol of a worker that sends one request to a service on another machine, over one
//! connection, and passes on what comes back. It ends with the connection, and when the supervisor
//! hangs up.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Protocol, WorkerKind};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub enum Relay {}

impl Protocol for Relay {
    const KIND: WorkerKind = WorkerKind::Relay;
    type Request = RelayRequest;
    type Event = RelayEvent;
    const LARGEST_EVENT: usize = RELAY_PIECE + (64 << 10);
}

/// Bytes of memory that such a worker may use: a body, its frame, and the two sides of TLS.
pub const RELAY_MEMORY: u64 = 192 << 20;

/// Bytes of an answer in one message at most.
pub const RELAY_PIECE: usize = 16 << 10;

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayEvent {
    /// The service answers. `retry_after`: seconds.
    Head {
        status: u16,
        retry_after: Option<u32>,
    },
    /// Bytes of the answer's body, in order.
    Piece(#[serde(with = "serde_bytes")] Vec<u8>),
    /// There are no more. The worker exits after this.
    Ended,
    /// Continues "… cannot be asked: ". `distrusted`: the service is not whom it should be, so that trying again is of no use.
    /// The worker exits after this.
    Broken { reason: String, distrusted: bool },
}

/// What to send.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRequest {
    /// `http` or `https`.
    pub url: String,
    /// The API key, as a bearer token.
    pub key: Option<String>,
    /// JSON.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Milliseconds that the service may take to be reached, to begin its answer, and to go on.
    pub patience_ms: u32,
}

/// It holds a key and a prompt.
impl fmt::Debug for RelayRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayRequest({} bytes)", self.body.len())
    }
}
