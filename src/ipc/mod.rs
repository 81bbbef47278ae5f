//! What the supervisor and a worker say to each other. There are seven kinds of workers, and each
//! has a [`Protocol`] of its own: [`Serve`] for a model, [`Extract`] for the text of a file,
//! [`Decode`] for pictures and sounds, [`Fetch`] for a file on the network, [`Pull`] for a
//! model's file, [`Relay`] for a request to a service on another machine, [`Devices`] for what ggml
//! can compute on. The worker is told its kind as its only argument.
//!
//! ```text
//!   supervisor                                   worker
//!       │   ◀──────────────── Hello ────────────────  │   whichever kind it is
//!       │   ──── the first request ──────────────▶    │   with the descriptors that it speaks of
//!       │   ◀──────────────── events ───────────────  │
//! ```
//!
//! The channel is the worker's standard input, a stream socket. [`frame`] says how a message lies
//! on it.

mod decode;
mod devices;
mod extract;
mod fetch;
pub mod frame;
pub mod kind;
mod memory;
pub mod prompts;
mod pull;
mod relay;
mod serve;

pub use decode::{
    DECODE_MEMORY, DECODE_MEMORY_MOST, DECODED_MOST, Decode, DecodeEvent, DecodeRequest,
    DecodedMedium, EncodedMedium, MediumKind, SAMPLE, SOUND_RATE, SoundPlace,
};
pub use devices::{
    DEVICE_TEXT, DEVICES_MEMORY, DEVICES_MOST, Device, DeviceBackend, DeviceKind, Devices,
    DevicesEvent, DevicesRequest, MODULES_MOST, Modules, is_module,
};
pub use extract::{
    DocumentKind, EXTRACT_MEMORY, EXTRACT_PAGES, EXTRACT_PICTURES, EXTRACT_TEXT, Extent, Extract,
    ExtractEvent, ExtractRequest, Look, Page, Shows, Sight, Unseen,
};
pub use fetch::{FETCH_MEMORY, FETCH_PIECE, Fetch, FetchEvent, FetchRequest};
pub use memory::{
    FileMemory, FileRole, MemoryPlan, MemorySnapshot, PackedPlan, Packing, Part, Repack,
};
pub use pull::{PULL_MEMORY, Pull, PullEvent, PullHead, PullRequest};
pub use relay::{RELAY_MEMORY, RELAY_PIECE, Relay, RelayEvent, RelayRequest};
pub use serve::{
    ANSWER_ROOM, ContextUse, DrafterPlan, LoadPlan, LoadedModel, MAX_SYSTEM_PROMPT_BYTES,
    MAX_SYSTEM_PROMPTS, Progress, ProjectorPlan, RequestId, Serve, ServeEvent, ServeRequest,
    TemplateSource,
};

use std::fmt::Debug;
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of all protocols; they change together with it. Supervisor and worker are installed
/// together, so a difference means a half-done upgrade and the worker is refused.
pub const VERSION: u32 = 23;

/// The exit status of a worker that found no thread to start (`EX_TEMPFAIL` of sysexits.h): neither its model nor its
/// request is at fault, and another worker may be started later.
pub const EXIT_SHORTAGE: u8 = 75;

/// What is said to one kind of worker, and what it says.
pub trait Protocol: Send + 'static {
    const KIND: WorkerKind;
    /// From the supervisor to the worker.
    type Request: Debug + Send + Serialize + DeserializeOwned;
    /// From the worker to the supervisor.
    type Event: Debug + Send + Serialize + DeserializeOwned;
    /// Bytes of an event's frame: one that says it is larger ends the channel before its bytes are
    /// taken.
    const LARGEST_EVENT: usize;

    /// The descriptors that a request takes along, the first one apart.
    fn descriptors(_: &Self::Request) -> Vec<BorrowedFd<'_>> {
        vec![]
    }
}

/// What a worker is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    Serve,
    Extract,
    Decode,
    Fetch,
    Pull,
    Relay,
    Devices,
}

impl WorkerKind {
    const ALL: [Self; 7] = [
        Self::Serve,
        Self::Extract,
        Self::Decode,
        Self::Fetch,
        Self::Pull,
        Self::Relay,
        Self::Devices,
    ];

    /// The argument that says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Extract => "extract",
            Self::Decode => "decode",
            Self::Fetch => "fetch",
            Self::Pull => "pull",
            Self::Relay => "relay",
            Self::Devices => "devices",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A worker's first message, whatever its kind. An enum, so that it lies on the channel as it did in
/// every version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    Hello { version: u32 },
}

impl Greeting {
    /// This version's.
    pub const OURS: Self = Self::Hello { version: VERSION };
}
