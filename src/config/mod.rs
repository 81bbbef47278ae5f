//! `gemmad.toml`: what can be set, what holds when nothing is set.
//!
//! `keys` is the table of all keys with what each allows, `value` reads sizes and times, `load`
//! finds the files and merges them; `line` keeps what they hold to one line of a message.
//! `app`, `oidc` and `upstream` are the tables that there may be several of; `reference` is what manual pages
//! say of the keys, `args` the daemon's command line.

mod app;
mod args;
mod error;
mod keys;
mod line;
mod load;
mod oidc;
mod place;
mod reference;
mod upstream;
mod value;

pub use app::App;
pub use args::{Args, EXIT_STATUS};
pub use error::{Errors, Problem};
pub use line::one_line;
pub use load::{Loaded, closest, load};
pub use oidc::{Grant, Issuer, SCOPES};
pub use place::Place;
pub use reference::{KeyReference, TableReference, introduction, reference};
pub use upstream::{Keeps, Upstream, UpstreamModel};
pub use value::{parse_duration, parse_size};

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::chat::{Networks, Speculation};

/// The group of those who may install models, unless the configuration names another.
pub const INSTALLERS: &str = "gemmad-models";

/// The user that the gateway runs as, unless the configuration names another.
pub const GATEWAY: &str = "gemmad-gateway";

/// What clients ask for that were not told of a model: nothing, the usual word, and the names that
/// are preset in programs for OpenAI's services.
const AUTO_NAMES: [&str; 14] = [
    "",
    "default",
    "gpt-3.5-turbo",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-5",
    "gpt-5-mini",
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-transcribe",
];

/// The whole configuration. Every key is documented in `systemd/gemmad.toml`, the commented sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: Server,
    pub models: Models,
    pub pull: Pull,
    pub inference: Inference,
    pub memory: Memory,
    pub limits: Limits,
    pub access: Access,
    /// Issuers whose tokens are taken besides the daemon's own.
    pub oidc: Vec<Issuer>,
    pub log: Log,
    pub audit: Audit,
    /// Apps that have sockets of their own.
    pub apps: Vec<App>,
    /// In the order of the files.
    pub upstreams: Vec<Upstream>,
}

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub socket_mode: u32,
    /// Group that owns the socket; `None` leaves the daemon's own.
    pub socket_group: Option<String>,
    /// How long running answers may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// How long the daemon may have nothing to do before it leaves; zero: for ever.
    pub exit_when_idle: Duration,
    pub dbus: BusChoice,
}

/// The message bus on which the daemon serves as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusChoice {
    None,
    System,
    Session,
    /// Where a bus listens, as the D-Bus specification writes it: `unix:path=…`.
    Address(String),
}

/// Where models lie and which one is meant by `auto`.
#[derive(Clone, Debug, PartialEq)]
pub struct Models {
    pub directories: Vec<PathBuf>,
    /// `auto`, or a model id.
    pub default: String,
    /// Other names for `auto`, in any case: what clients ask for that know other services.
    pub auto_names: Vec<String>,
    /// Variants that `auto` takes before others, the best first.
    pub prefer: Vec<String>,
    /// The group whose members may install models; empty: none. [`INSTALLERS`] need not exist.
    pub installers: String,
    /// Where catalogs are that are added to the built-in one; it need not exist. `None`: nowhere.
    pub catalog_directory: Option<PathBuf>,
    /// The key that must have signed each of them, in minisign's base64; empty: none.
    pub catalog_key: String,
    /// Whether a request that names a model which is not installed has it fetched, for those who may.
    pub pull_on_demand: bool,
    /// How long a loaded model may have nothing to do before it is unloaded; zero: for ever.
    pub idle_unload: Duration,
    /// How long it may have nothing to do before it gives back what it can; zero: for ever.
    pub idle_release: Duration,
}

/// From where models are fetched, and how.
#[derive(Clone, PartialEq)]
pub struct Pull {
    /// The hub's address, without a slash at its end.
    pub hub: String,
    /// The file with the token that the hub wants; `None`: the credential that systemd passes, if it does.
    pub token_file: Option<PathBuf>,
    /// An `http` address; `none`; empty: what the environment says.
    pub proxy: String,
    /// Connections for each file, where its server sends parts of it.
    pub connections: u32,
    /// Bytes a second at most, of each file that is fetched; 0: no limit.
    pub rate: u64,
    /// Bytes a second below which a connection is given up; 0: never.
    pub least_rate: u64,
    /// Where a server may send those who ask for a file.
    pub redirect_to: Networks,
}

/// How a model is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Inference {
    /// Tokens of context for each slot; `None`: as many as requests need.
    pub context: Option<u32>,
    /// The smallest context that is of use, where memory is short.
    pub least_context: u32,
    /// The most that one request gets where it is as many as it needs.
    pub most_context: u32,
    /// Requests answered at the same time; `None`: as many as memory and CPUs are good for.
    pub slots: Option<u32>,
    /// 0: one thread for each fast core that the worker may use, within the quota.
    pub threads: u32,
    /// Tokens computed in one step of reading a prompt.
    pub batch: u32,
    /// How long a running answer waits for its next token while prompts of others are read.
    pub step_time: Duration,
    /// Whether tokens of answers are tried ahead where a request does not say.
    pub speculation: Speculation,
    /// Whether the KV cache has numbers of 8 bits in place of 16.
    pub small_kv: bool,
    /// Files of system prompts that everybody goes on from, whoever has sent them first.
    pub system_prompts: Vec<PathBuf>,
    /// The worker program; `None` is `gemmad-worker` beside the daemon's own program.
    pub worker: Option<PathBuf>,
}

/// Tokens of context for each slot for which a model should have memory where requests get as many as
/// they need.
const USUAL_CONTEXT: u32 = 8192;
/// Slots for which a model should have memory where it may have more.
const USUAL_SLOTS: u32 = 2;

impl Inference {
    /// Tokens of context that are counted for each slot, where memory is not short.
    pub fn counted_context(&self) -> u32 {
        let usual = || USUAL_CONTEXT.max(self.least_context).min(self.most_context);
        self.context.unwrap_or_else(usual)
    }

    /// Slots that a model has at least.
    pub fn least_slots(&self) -> u32 {
        self.slots.unwrap_or(USUAL_SLOTS)
    }
}

/// What is kept in memory, and on the disk so that it need not be.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Where packed weights are kept from one start to the next; `None`: in memory.
    pub cache_directory: Option<PathBuf>,
    /// Bytes that they may have there.
    pub cache_size: u64,
    /// Bytes of that directory's disk that prompts which were read may have besides; 0: they are
    /// forgotten with their worker.
    pub prompt_cache_size: u64,
    /// The file with the key of prompts that outlive the daemon; `None`: none does.
    pub prompt_cache_key: Option<PathBuf>,
    /// Bytes that are left to other programs; `None`: a part of the RAM.
    pub reserve: Option<u64>,
    /// Whether a model may be loaded whose weights do not fit.
    pub allow_overcommit: bool,
    /// Bytes of Per-Layer Embeddings that may stay in memory.
    pub per_layer: u64,
    /// Whether packed weights that come from the cache and that every token needs are locked in
    /// memory.
    pub lock_weights: bool,
}

/// The limits that keep one client from harming the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub connections: u32,
    pub connections_per_user: u32,
    /// Bytes of one request's body.
    pub body_bytes: u64,
    /// Requests that wait for a slot.
    pub queue: u32,
    pub queue_per_user: u32,
    /// Tokens of one answer.
    pub output_tokens: u32,
    /// From a request's arrival to its end.
    pub request_time: Duration,
    /// How long a sound may last that is transcribed.
    pub sound_time: Duration,
    /// How long a client may leave its answer unread.
    pub client_stall: Duration,
    /// From the start of a worker to its model being loaded.
    pub load_time: Duration,
    /// How long a worker that has something to do may compute nothing. The longest step that is known
    /// to be sound is the head of the largest model, read from a slow card: 800 MB, which take more
    /// than a minute.
    pub worker_silence: Duration,
    /// Responses of one user that are kept because they were asked to be; 0 keeps none.
    pub stored_responses: u32,
    /// Bytes of one user's kept responses.
    pub stored_bytes: u64,
    /// How long a response is kept.
    pub stored_time: Duration,
    /// Bytes of a user's files that were sent to be used by their ids.
    pub files_bytes: u64,
    /// How long such a file is kept.
    pub files_time: Duration,
}

/// Who may do more than ask, and what may come from elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Users, besides root and the daemon's own, who may do what is for administrators.
    pub admins: Vec<String>,
    /// Groups whose members may as well.
    pub admin_groups: Vec<String>,
    /// From where files may be fetched that requests name by their addresses.
    pub fetch_from: Networks,
    /// The user whose requests are those of whoever has the token that comes along; empty: there is none.
    /// [`GATEWAY`] need not exist.
    pub gateway: String,
    /// Where the keys of tokens are kept, and what was issued; `None`: there are no tokens.
    pub token_file: Option<PathBuf>,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// What is kept of requests: who, when, which model, how much. Never what they were about.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    pub log: AuditLog,
    /// Bytes of the log's file before another one is begun.
    pub log_size: u64,
    /// Files that it was before, which are kept.
    pub log_files: u32,
    /// Where the sums of each principal and day outlive the daemon; `None`: nowhere.
    pub usage_file: Option<PathBuf>,
    /// Days of which they are kept.
    pub usage_days: u32,
}

/// Where a line for each request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditLog {
    #[default]
    None,
    Journal,
    File(PathBuf),
}

/// Under this name these lines are in the log, whatever its level.
pub const AUDIT_TARGET: &str = "gemmad::audit";

impl Default for Audit {
    fn default() -> Self {
        Self {
            log: AuditLog::None,
            log_size: 10 << 20,
            log_files: 5,
            usage_file: Some("/var/lib/gemmad/usage.json".into()),
            usage_days: 62,
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self {
            admins: vec![],
            admin_groups: vec![],
            fetch_from: Networks::default(),
            gateway: GATEWAY.into(),
            token_file: Some("/var/lib/gemmad/tokens.json".into()),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            socket: "/run/gemmad/api.sock".into(),
            socket_mode: 0o660,
            socket_group: None,
            shutdown_grace: Duration::from_secs(30),
            exit_when_idle: Duration::ZERO,
            dbus: BusChoice::System,
        }
    }
}

impl Default for Models {
    fn default() -> Self {
        Self {
            directories: vec!["/var/lib/gemmad/models".into()],
            default: "auto".into(),
            auto_names: AUTO_NAMES.map(Into::into).into(),
            prefer: vec![],
            installers: INSTALLERS.into(),
            catalog_directory: Some("/etc/gemmad/catalog.d".into()),
            catalog_key: String::new(),
            pull_on_demand: false,
            idle_unload: Duration::from_secs(600),
            idle_release: Duration::from_secs(120),
        }
    }
}

/// A proxy's address may have a password.
impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pull({})", self.hub)
    }
}

impl Default for Pull {
    fn default() -> Self {
        Self {
            hub: "https://huggingface.co".into(),
            token_file: None,
            proxy: String::new(),
            connections: 4,
            rate: 0,
            least_rate: 1 << 10,
            redirect_to: Networks::public(),
        }
    }
}

impl Default for Inference {
    fn default() -> Self {
        Self {
            context: None,
            least_context: 2048,
            most_context: 262_144,
            slots: Some(USUAL_SLOTS),
            threads: 0,
            batch: 256,
            step_time: Duration::from_millis(250),
            speculation: Speculation::Auto,
            small_kv: false,
            system_prompts: vec![],
            worker: None,
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            cache_directory: Some("/var/cache/gemmad".into()),
            cache_size: 32 << 30,
            prompt_cache_size: 2 << 30,
            prompt_cache_key: Some("/var/lib/gemmad/prompt-cache.key".into()),
            reserve: None,
            allow_overcommit: false,
            per_layer: 64 << 20,
            lock_weights: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            connections_per_user: 1280,
            body_bytes: 32 << 20,
            queue: 64,
            queue_per_user: 16,
            output_tokens: 8192,
            request_time: Duration::from_secs(3600),
            sound_time: Duration::from_secs(3600),
            client_stall: Duration::from_secs(10),
            load_time: Duration::from_secs(300),
            worker_silence: Duration::from_secs(180),
            stored_responses: 128,
            stored_bytes: 16 << 20,
            stored_time: Duration::from_secs(3600),
            files_bytes: 32 << 20,
            files_time: Duration::from_secs(3600),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
        }
    }
}
