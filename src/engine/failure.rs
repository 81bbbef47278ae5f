//! Everything that can go wrong with a request, as reasons that someone reacts to. Pure.

use std::fmt;
use std::time::Duration;

use crate::chat::ChatError;

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such model; names those there are.
    UnknownModel { asked: String, known: Vec<String> },
    /// No model is installed at all; names where one is looked for.
    NoModels { directories: Vec<String> },
    /// The queue is full for everyone.
    QueueFull { limit: u32, retry_after: Duration },
    /// This user has too many requests waiting.
    UserQueueFull { limit: u32, retry_after: Duration },
    /// The daemon is stopping.
    ShuttingDown,
    /// The model's file is damaged, is not a Gemma 4, or llama.cpp refuses it.
    BadModel { model: String, reason: String },
    /// It would not fit into the memory that is free, however small it is run: bytes that it needs,
    /// that are free, and that are left to other programs; what sets the bound; another model that
    /// would fit.
    NoRoom {
        model: String,
        needs: u64,
        free: u64,
        reserve: u64,
        bound: String,
        instead: Option<String>,
    },
    /// There is no memory for a worker that reads or fetches a file: bytes that it needs, and that
    /// are free.
    NoRoomForFile { needs: u64, free: u64 },
    /// Workers died again and again; no new one is started before the time is over.
    BackingOff {
        cause: String,
        retry_after: Duration,
    },
    /// Memory ran out while it was answered; the next worker is smaller.
    OutOfMemory { cause: String },
    /// The worker died while it answered.
    WorkerDied { cause: String },
    /// The request took longer than the limit.
    TimedOut { limit: Duration },
    /// The client left more of its answer unread than is kept for it.
    ClientStalled { unread: usize },
    /// The worker refused this request.
    Chat(ChatError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel { asked, known } => write!(
                f,
                "there is no model `{asked}`; installed: {}",
                known.join(", ")
            ),
            Self::NoModels { directories } => write!(
                f,
                "no model is installed; put a Gemma 4 GGUF file into {}",
                directories.join(" or ")
            ),
            Self::QueueFull { limit, retry_after } => write!(
                f,
                "{limit} requests are waiting already; try again in {} s",
                whole_seconds(*retry_after)
            ),
            Self::UserQueueFull { limit, retry_after } => write!(
                f,
                "{limit} of your requests are waiting already; try again in {} s",
                whole_seconds(*retry_after)
            ),
            Self::ShuttingDown => f.write_str("the daemon is shutting down"),
            Self::BadModel { model, reason } => {
                write!(f, "model `{model}` cannot be loaded: {reason}")
            }
            Self::NoRoom { .. } => self.fmt_no_room(f),
            Self::NoRoomForFile { needs, free } => write!(
                f,
                "reading a file needs {} MiB of memory, and {} MiB are free; try again later",
                needs >> 20,
                free >> 20
            ),
            Self::BackingOff { cause, retry_after } => write!(
                f,
                "the worker keeps failing ({cause}); the next attempt is in {} s",
                whole_seconds(*retry_after)
            ),
            Self::OutOfMemory { cause } => write!(
                f,
                "memory ran out ({cause}), and the answer with it; what is asked now is answered with less context"
            ),
            Self::WorkerDied { cause } => write!(f, "the worker died while it answered: {cause}"),
            Self::TimedOut { limit } => {
                write!(f, "the request took longer than {} s", limit.as_secs())
            }
            Self::ClientStalled { unread } => {
                write!(f, "{unread} events of the answer were left unread")
            }
            Self::Chat(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// [`Failure::NoRoom`] and its remedy; nothing for any other.
    fn fmt_no_room(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NoRoom {
            model,
            needs,
            free,
            reserve,
            bound,
            instead,
        } = self
        else {
            return Ok(());
        };
        let mib = |bytes: &u64| bytes >> 20;
        let (needs, free, reserve) = (mib(needs), mib(free), mib(reserve));
        write!(
            f,
            "`{model}` needs {needs} MiB at least; {free} MiB are {bound}, and {reserve} MiB of them are left to other programs"
        )?;
        match instead {
            Some(other) => write!(f, "; `{other}` would fit"),
            None => f.write_str(
                "; free memory, install a smaller variant, or set `allow-overcommit` in gemmad.toml for answers that come slowly",
            ),
        }
    }
}

/// Seconds to wait, for a message: never 0.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}
