//! The one map from everything that can go wrong to error names on the bus.

use std::time::Duration;

use zbus::DBusError;

use crate::access::quota::Full;
use crate::api::Invalid;
use crate::api::error::ApiError;
use crate::api::generation::Unread;
use crate::api::openai::chat::fields;
use crate::attachments::Refused;
use crate::backend::{Failure, PullFault, StoreFault, UpstreamFault};
use crate::chat::{self, ChatError, Place};

/// `org.gemmad.Error.…`; the text is for people.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.gemmad.Error")]
pub enum BusError {
    /// The bus itself; callers see it as `org.freedesktop.zbus.Error`.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// The request cannot be answered as it is; the text names what is to blame.
    InvalidRequest(String),
    /// The caller may not do this.
    NotAuthorized(String),
    /// The request is larger than what is taken.
    TooLarge(String),
    /// Too much is waiting or open already; to be tried again.
    Busy(String),
    /// No such model.
    UnknownModel(String),
    /// No model is installed.
    NoModels(String),
    /// The model's file cannot be used.
    BadModel(String),
    /// There is not enough memory.
    InsufficientMemory(String),
    /// The worker died, or keeps dying.
    WorkerFailed(String),
    /// It took longer than the limit.
    TimedOut(String),
    /// The caller has ended it.
    Cancelled(String),
    /// The daemon is leaving; a call starts it again where the bus activates it.
    ShuttingDown(String),
    /// A server does not give the model, or cannot be reached.
    DownloadFailed(String),
    /// The disk has no room, or the model directory cannot be written.
    DiskFailed(String),
    /// The answer was not read.
    Stalled(String),
}

impl From<Refused> for BusError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failure(failure) => failure.into(),
            Refused::Full(full) => Self::bodies(full),
        }
    }
}

impl From<Failure> for BusError {
    fn from(failure: Failure) -> Self {
        let text = match &failure {
            Failure::Chat(error) => error.describe(fields::field),
            failure => failure.to_string(),
        };
        match failure {
            Failure::UnknownModel { .. } => Self::UnknownModel(text),
            Failure::NotPermitted { .. } | Failure::TokenRevoked => Self::NotAuthorized(text),
            Failure::NoModels { .. } => Self::NoModels(text),
            Failure::QueueFull { .. } | Failure::UserQueueFull { .. } | Failure::NotNow { .. } => {
                Self::Busy(text)
            }
            Failure::ShuttingDown => Self::ShuttingDown(text),
            Failure::BadModel { .. } | Failure::Unsound { .. } => Self::BadModel(text),
            Failure::NoRoom { .. }
            | Failure::NoRoomForFile { .. }
            | Failure::OutOfMemory { .. } => Self::InsufficientMemory(text),
            Failure::BackingOff { .. }
            | Failure::WorkerDied { .. }
            | Failure::Chat(ChatError::Inference { .. }) => Self::WorkerFailed(text),
            Failure::TimedOut { .. } => Self::TimedOut(text),
            Failure::ClientStalled { .. } => Self::Stalled(text),
            Failure::ModelInUse { .. } => Self::Busy(text),
            Failure::Pull { fault, .. } => match fault {
                PullFault::Unknown => Self::UnknownModel(text),
                PullFault::Refused | PullFault::NoJob => Self::InvalidRequest(text),
                PullFault::Gated | PullFault::Server => Self::DownloadFailed(text),
                PullFault::Full | PullFault::Directory => Self::DiskFailed(text),
                PullFault::Busy => Self::Busy(text),
            },
            Failure::Store { fault, .. } => match fault {
                StoreFault::BadFile | StoreFault::Exists => Self::InvalidRequest(text),
                StoreFault::Full | StoreFault::Disk => Self::DiskFailed(text),
            },
            Failure::Upstream { fault, .. } => match fault {
                UpstreamFault::NotSent | UpstreamFault::Refused => Self::InvalidRequest(text),
                UpstreamFault::Unavailable => Self::WorkerFailed(text),
            },
            Failure::Chat(_) => Self::InvalidRequest(text),
        }
    }
}

impl From<ApiError> for BusError {
    /// What the doors have in common and is no backend's, by the family of its status.
    fn from(error: ApiError) -> Self {
        let text = error.message;
        match error.status.as_u16() {
            401 | 403 => Self::NotAuthorized(text),
            429 | 503 => Self::Busy(text),
            500.. => Self::DiskFailed(text),
            _ => Self::InvalidRequest(text),
        }
    }
}

impl From<Unread> for BusError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Invalid(invalid) => invalid.into(),
            Unread::Failure(failure) => failure.into(),
        }
    }
}

impl From<Invalid> for BusError {
    fn from(invalid: Invalid) -> Self {
        Self::InvalidRequest(invalid.to_string())
    }
}

impl From<chat::Invalid> for BusError {
    /// A request that was made of options, which it calls by their names.
    fn from(invalid: chat::Invalid) -> Self {
        let option = |place| match place {
            Place::MaxTokens => "max-tokens".to_owned(),
            place => fields::field(place),
        };
        Invalid::at(invalid, option).into()
    }
}

impl BusError {
    /// Too many bytes of requests wait at the same time.
    pub fn bodies(full: Full) -> Self {
        let (Full::User { limit } | Full::Total { limit }) = full;
        Self::Busy(format!(
            "the requests that wait have more than {limit} bytes together; try again when some are answered"
        ))
    }

    /// Too many calls, streams and conversations.
    pub fn open(full: Full) -> Self {
        Self::Busy(match full {
            Full::User { limit } => format!(
                "you have {limit} calls, streams and conversations open, which is the limit; end some"
            ),
            Full::Total { limit } => format!(
                "{limit} calls, streams and conversations are open, which is the limit; try again"
            ),
        })
    }

    /// A call is not done within the time that its caller waits.
    pub fn late(limit: Duration) -> Self {
        Self::TimedOut(format!(
            "it is not done after {} s; a model may have to be loaded first (see `State`). The option `timeout` allows more seconds, \
             and the caller's library must wait as long; `OpenStream` answers at once",
            limit.as_secs()
        ))
    }
}
