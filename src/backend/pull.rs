//! What is told of models that are fetched.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::{Reply, Status};
use crate::chat::PrincipalId;

/// How long it is waited for that the list of models has what came, and no more what went.
pub const LISTED: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullAsk {
    /// As it was typed.
    pub model: String,
    /// `vision`, `audio` and `drafter`, with commas, or `none`; `None`: what belongs to the model.
    pub with: Option<String>,
    /// A type of weights.
    pub quantization: Option<String>,
    /// Even if it takes more memory than this machine has.
    pub force: bool,
}

/// Who may fetch from one place, besides administrators: by names or numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullRights {
    pub users: Vec<String>,
    pub groups: Vec<String>,
}

/// On whose behalf models are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Puller {
    /// Fetches anything, and has all downloads.
    Administrator,
    /// Fetches what catalogs let them, and has the downloads that they began. `rights`: those by which they were let in.
    User {
        who: PrincipalId,
        rights: Vec<PullRights>,
    },
}

impl Puller {
    /// On whose account it is; `None`: on that of the machine.
    pub fn account(&self) -> Option<PrincipalId> {
        match self {
            Self::Administrator => None,
            Self::User { who, .. } => Some(who.account()),
        }
    }
}

/// What would be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullPlan {
    /// What the model will be called.
    pub model: String,
    /// The model directory that it goes into.
    pub directory: String,
    pub files: Vec<PulledFile>,
    /// Bytes that have to be fetched still; `None` where a server does not say.
    pub download: Option<u64>,
    /// Bytes that the disk has free.
    pub disk: u64,
    /// What belongs to the model and finds no room on the disk.
    pub left_out: Vec<&'static str>,
    pub memory: Option<PullMemory>,
}

/// What the model would take here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullMemory {
    pub fits: bool,
    /// Bytes that it takes.
    pub needs: u64,
    /// Bytes that it may take now.
    pub budget: u64,
    /// What `auto` would fetch.
    pub automatic: Option<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledFile {
    /// `model`, `projector` or `drafter`
    pub role: &'static str,
    pub name: String,
    /// Where it comes from, without what could be a key.
    pub source: String,
    pub bytes: Option<u64>,
    /// What it must hash to, in hexadecimal digits; `None`: nobody says.
    pub sha256: Option<String>,
    /// Bytes that are here, and hashed.
    pub received: u64,
    /// Whether it is whole and what it should be.
    pub done: bool,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullState {
    /// Bytes come.
    Downloading,
    /// Another attempt follows; says after what.
    Waiting {
        cause: String,
        seconds: u64,
    },
    /// Bytes that came earlier are hashed again.
    Verifying,
    Done,
    /// It ended; `resumable`: what is here is kept, and asking again goes on from there.
    Failed {
        cause: String,
        resumable: bool,
    },
    Cancelled,
}

impl PullState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Waiting { .. } => "waiting",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it has ended and what came is kept.
    pub fn is_kept(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                resumable: true,
                ..
            }
        )
    }

    /// Whether nothing follows.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. } | Self::Cancelled)
    }
}

/// A model that is fetched, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullStatus {
    pub id: String,
    pub model: String,
    pub state: PullState,
    pub files: Vec<PulledFile>,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Who may stop it besides administrators: who began it, while nobody else waits for it.
    pub owner: Option<PrincipalId>,
}

impl PullStatus {
    /// Bytes of all files; `None` where a server has not said.
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Bytes that are here, and hashed.
    pub fn received(&self) -> u64 {
        self.files.iter().map(|file| file.received).sum()
    }

    /// Why it has come to nothing, if it is over and has.
    pub fn failure(&self) -> Option<String> {
        match &self.state {
            PullState::Failed { cause, resumable } => Some(match resumable {
                true => format!("{cause}; what came is kept: pull again to go on"),
                false => cause.clone(),
            }),
            PullState::Cancelled => Some("the download was cancelled".into()),
            _ => None,
        }
    }
}

/// Waits until a model that was fetched is among those that are installed: whoever hears that it is
/// there may ask it at once.
pub async fn listed(last: &PullStatus, mut models: watch::Receiver<Status>) {
    if last.state != PullState::Done {
        return;
    }
    let is_there = |status: &Status| status.models.iter().any(|model| model.id == last.model);
    // A disk that does not answer keeps nobody from hearing that the file is whole.
    let _ = timeout(LISTED, models.wait_for(is_there)).await;
}

/// A model that is fetched, as it goes on.
pub type PullWatch = watch::Receiver<PullStatus>;

/// Whose fault it is that nothing is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFault {
    /// Nobody has it.
    Unknown,
    /// It cannot be used here, or at all.
    Refused,
    /// The hub wants a token, or another one.
    Gated,
    /// The server, or the way to it.
    Server,
    /// The disk has no room.
    Full,
    /// The model directory cannot be written.
    Directory,
    /// There is no such download.
    NoJob,
    /// Too many at once.
    Busy,
}

/// Something that fetches models onto this machine.
pub trait PullBackend {
    /// Who may fetch this besides administrators, for each place that it comes from. Asks no server.
    fn pull_rights<'a>(&'a self, ask: &'a PullAsk) -> Reply<'a, Vec<PullRights>>;

    /// What a pull would fetch. Asks servers.
    fn plan_pull<'a>(&'a self, ask: &'a PullAsk, by: &'a Puller) -> Reply<'a, PullPlan>;

    /// Begins to fetch a model, or goes on with it; fails early where it is known that nothing can come of it.
    fn pull<'a>(&'a self, ask: &'a PullAsk, by: &'a Puller) -> Reply<'a, PullWatch>;

    /// What is fetched, what was since the daemon started, and what is kept of downloads that failed.
    fn pulls(&self) -> Vec<PullStatus>;

    /// Stops fetching, if it goes on, and forgets what came; returns what was stopped. `account`: whose it must be; `None`:
    /// anybody's.
    fn cancel_pull<'a>(
        &'a self,
        id: &'a str,
        account: Option<PrincipalId>,
    ) -> Reply<'a, PullStatus>;
}
