//! Everything that can go wrong with a request, as reasons that someone reacts to. Pure.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{PullFault, Rejected, StoreFault};
use crate::chat::ChatError;

/// Files that are passed over, of which a failure tells.
const SHOWN: usize = 3;

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such model; names those there are, and the file that would be it, were it not passed over, or
    /// a directory that may have it. `hint`: what to do, or why nothing can be done, if a catalog knows the name.
    UnknownModel {
        asked: String,
        known: Vec<String>,
        passed_over: Option<Rejected>,
        hint: Option<Box<str>>,
    },
    /// Whoever asks may not ask this model; says why.
    NotPermitted { text: String },
    /// The token of whoever asks was revoked meanwhile.
    TokenRevoked,
    /// No model is installed at all; names where one is looked for, and what lies there instead.
    NoModels {
        directories: Vec<String>,
        passed_over: Vec<Rejected>,
    },
    /// The queue is full for everyone.
    QueueFull { limit: u32, retry_after: Duration },
    /// This user has too many requests waiting.
    UserQueueFull { limit: u32, retry_after: Duration },
    /// The daemon is stopping.
    ShuttingDown,
    /// The model's file is damaged, is not a Gemma 4, or llama.cpp refuses it.
    BadModel { model: String, reason: String },
    /// The model was loaded, and its output is not a number.
    Unsound { model: String },
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
    /// The system has no descriptor, thread or process for this, or something else ended the worker that
    /// read, decoded or fetched a file: what was sent is not at fault. `what` cannot be done, in words.
    NotNow { what: &'static str, cause: String },
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
    /// The model is loaded, or is being loaded, and is not taken away from those who use it.
    ModelInUse { model: String },
    /// A file is not taken into a model directory, or not taken away; says why, with its path.
    Store { fault: StoreFault, text: String },
    /// A model is not fetched; says why.
    Pull { fault: PullFault, text: String },
    /// A service on another machine does not answer; says which, and why.
    Upstream { fault: UpstreamFault, text: String },
    /// The worker refused this request.
    Chat(ChatError),
}

/// What keeps an upstream from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFault {
    /// The request has what is not sent to other machines.
    NotSent,
    /// The service refuses the request.
    Refused,
    /// It cannot be reached, is too busy, broke off, or speaks something else.
    Unavailable,
}

impl Failure {
    /// That no model is installed in `directories`, of which these files are `passed_over`.
    pub fn no_models(directories: &[PathBuf], passed_over: &[Rejected]) -> Self {
        Self::NoModels {
            directories: directories
                .iter()
                .map(|directory| directory.display().to_string())
                .collect(),
            // One more than is shown says that there are more.
            passed_over: passed_over.iter().take(SHOWN + 1).cloned().collect(),
        }
    }
}

impl Failure {
    /// Whether another upstream would refuse it as well.
    pub fn is_of_the_request(&self) -> bool {
        matches!(
            self,
            Self::Upstream {
                fault: UpstreamFault::Refused | UpstreamFault::NotSent,
                ..
            }
        )
    }

    /// Why an upstream did not answer what this machine could not, both in one.
    pub(super) fn beside(self, local: &Self) -> Self {
        let fault = match &self {
            Self::Upstream { fault, .. } => *fault,
            _ => UpstreamFault::Unavailable,
        };
        Self::Upstream {
            fault,
            text: format!("{self}; and here: {local}"),
        }
    }

    /// What it is, for log lines: without what a service says, which may quote a prompt.
    pub(super) fn without_words(&self) -> String {
        match self {
            Self::Upstream { fault, .. } => format!("{fault:?}"),
            other => other.to_string(),
        }
    }

    /// Whether the model had too little memory.
    pub fn is_of_memory(&self) -> bool {
        matches!(self, Self::NoRoom { .. } | Self::OutOfMemory { .. })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel {
                asked,
                known,
                passed_over,
                hint,
            } => fmt_unknown(f, asked, known, passed_over.as_ref(), hint.as_deref()),
            Self::NotPermitted { text } => f.write_str(text),
            Self::TokenRevoked => f.write_str("the token was revoked, and the answer ends with it"),
            Self::NoModels {
                directories,
                passed_over,
            } => fmt_no_models(f, directories, passed_over),
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
            Self::Unsound { model } => write!(
                f,
                "the output of model `{model}` is not a number: its file is probably damaged; fetch it again, or ask for another model"
            ),
            Self::NoRoom { .. } => self.fmt_no_room(f),
            Self::NoRoomForFile { needs, free } => write!(
                f,
                "reading a file needs {} MiB of memory, and {} MiB are free; try again later",
                needs >> 20,
                free >> 20
            ),
            Self::NotNow { what, cause } => {
                write!(f, "{what} now: {cause}; try again later")
            }
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
            Self::ModelInUse { model } => write!(
                f,
                "model `{model}` is in use; `gemmactl unload {model}` ends that"
            ),
            Self::Store { text, .. } | Self::Pull { text, .. } | Self::Upstream { text, .. } => {
                f.write_str(text)
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

/// [`Failure::UnknownModel`]
fn fmt_unknown(
    f: &mut fmt::Formatter<'_>,
    asked: &str,
    known: &[String],
    passed_over: Option<&Rejected>,
    hint: Option<&str>,
) -> fmt::Result {
    write!(f, "there is no model `{asked}`")?;
    match passed_over.map(|one| (one, one.path.display())) {
        Some((Rejected { reason, hides, .. }, path)) if *hides => {
            write!(
                f,
                ", unless it lies in {path}, which is passed over: {reason}"
            )?;
        }
        Some((Rejected { reason, .. }, path)) => {
            write!(f, ": the file {path} is passed over: {reason}")?;
        }
        None => {}
    }
    if let Some(hint) = hint {
        write!(f, "; {hint}")?;
    }
    match known {
        [] => f.write_str("; installed: none"),
        known => write!(f, "; installed: {}", known.join(", ")),
    }
}

/// [`Failure::NoModels`]
fn fmt_no_models(
    f: &mut fmt::Formatter<'_>,
    directories: &[String],
    passed_over: &[Rejected],
) -> fmt::Result {
    write!(
        f,
        "no model is installed; `gemmactl pull auto` fetches one, or put a Gemma 4 GGUF file into {}",
        directories.join(" or ")
    )?;
    for Rejected { path, reason, .. } in passed_over.iter().take(SHOWN) {
        write!(f, "; {} is passed over: {reason}", path.display())?;
    }
    if passed_over.len() > SHOWN {
        f.write_str("; so are others, which `gemmactl models` lists")?;
    }
    Ok(())
}

/// Seconds to wait, for a message: never 0.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}
