//! The supervisor's life, from start to end.

mod descriptors;
mod idle;
mod listen;
mod log;
mod on_demand;
mod permits;
mod reclaim;
mod reload;
mod rights;
mod service;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::access::admission::Admission;
use crate::access::oidc::{Fetching, KeySource, Oidc};
use crate::access::token::Tokens;
use crate::access::{Policy, user_of_subject};
use crate::api::{self, Api};
use crate::attachments::Attachments;
use crate::backend::{Backend, Backends, PullRights};
use crate::bus;
use crate::chat::PrincipalId;
use crate::config::{self, Args, BusChoice, Config, Place};
use crate::engine::{Engine, Installers, PromptCache, Setup};
use crate::memory::reserved::ReservedMemory;
use crate::sys;
use crate::upstream::{Upstreams, Way};
use crate::usage::Books;
use on_demand::FetchedOnDemand;
use permits::TheirModels;

/// Exit codes of `sysexits.h`.
const EX_SOFTWARE: u8 = 70;
const EX_OSERR: u8 = 71;
const EX_CONFIG: u8 = 78;

/// How long connections may take to close once every answer has ended.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// What the sockets are called behind which systemd starts workers that may use the network.
const PULL_SOCKET: &str = "pull.sock";
const RELAY_SOCKET: &str = "relay.sock";

/// How long the start waits for the bus. It is joined later as well.
const BUS_TIME: Duration = Duration::from_secs(2);

/// Why the daemon could not start, or had to end.
struct StartError {
    code: u8,
    message: String,
}

/// The program `gemmad`.
pub fn main() -> ExitCode {
    sys::allocator::keep_large_blocks_apart();
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One for each problem.
            for line in error.message.lines() {
                eprintln!("gemmad: {}", config::one_line(line));
            }
            ExitCode::from(error.code)
        }
    }
}

fn start(args: &Args) -> Result<(), StartError> {
    let place = args.place().map_err(|message| StartError {
        code: EX_CONFIG,
        message,
    })?;
    let file = args.config.as_deref();
    let loaded = config::load(file, &place).map_err(|errors| StartError {
        code: EX_CONFIG,
        message: errors.to_string(),
    })?;
    let level = log::start(&loaded.config.log);
    if let Err(error) = crate::sys::process::keep_memory_out_of_cores() {
        tracing::warn!(%error, "a crash could write prompts to a core file");
    }
    let runtime = event_loop()?;
    let result = runtime.block_on(run(loaded.config, file, &place, level));
    // A scan of a dead network mount must not keep the daemon from leaving.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run(
    config: Config,
    file: Option<&Path>,
    place: &Place,
    level: log::Handle,
) -> Result<(), StartError> {
    let (policy, installers) = rights(&config)?;
    let oidc = issuers(&config)?;
    let worker = worker_program(&config)?;
    let mut signals = Signals::new()?;
    let listeners = listen::listeners(&config.server, &config.apps)?;
    let exit_when_idle = exit_when_idle(&listeners, &config);
    let books = books(&config)?;
    let parts = Parts::start(&config, (policy, oidc, installers), worker, books).await;
    parts.admission.apps.set_passed(listeners.passed_apps);
    parts.resume_pulls().await;
    let (leave, leaving) = watch::channel(false);
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners.sockets {
        servers.spawn(api::serve(parts.api.clone(), listener, leaving.clone()));
    }
    if config.server.dbus != BusChoice::None {
        let (tried, first) = oneshot::channel();
        servers.spawn(serve_bus(parts.door.clone(), leaving.clone(), tried)?);
        // Whoever had the bus start the daemon finds its name there when it is ready.
        let _ = tokio::time::timeout(BUS_TIME, first).await;
    }
    service::notify(&[NotifyState::Ready]);
    service::attend(&parts.engine);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        models = parts.engine.status().models.len(),
        "serving"
    );
    parts.reclaim();

    let mut config = config;
    loop {
        let action = tokio::select! {
            action = signals.next() => action,
            () = parts.engine.ended() => {
                // Whoever started the daemon is to start it again: systemd does.
                return Err(StartError {
                    code: EX_SOFTWARE,
                    message: "the engine has ended, and nothing can be answered any more; the log says why".to_owned(),
                });
            }
            () = idle::idle(&parts.engine, || parts.is_used(), exit_when_idle) => {
                tracing::info!("nobody needs the daemon");
                break;
            }
        };
        let SignalAction::Reload = action else { break };
        service::reloading();
        config = reload::reload(config, file, place, &parts, &level).await;
        service::notify(&[NotifyState::Ready]);
    }

    let grace = config.server.shutdown_grace;
    tracing::info!(grace_s = grace.as_secs(), "leaving");
    service::notify(&[NotifyState::Stopping]);
    let _ = leave.send(true);
    service::patiently(parts.engine.drain(grace)).await;
    let closed = async { while servers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(CLOSE_TIME, closed).await;
    parts.books.close().await;
    drop(listeners.files);
    Ok(())
}

/// Serves the bus on a thread of its own, until the returned future's end: everybody may send
/// messages to a service on the system bus, and a flood of them is to delay no token.
fn serve_bus(
    door: Arc<bus::Door>,
    leaving: watch::Receiver<bool>,
    tried: oneshot::Sender<()>,
) -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
    let (done, ended) = oneshot::channel::<()>();
    let runtime = event_loop()?;
    std::thread::Builder::new()
        .name("gemmad-bus".to_owned())
        .spawn(move || {
            runtime.block_on(door.serve(leaving, tried));
            runtime.shutdown_background();
            drop(done);
        })
        .map_err(no_thread)?;
    Ok(async move { drop(ended.await) })
}

fn event_loop() -> Result<Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_thread)
}

fn no_thread(error: io::Error) -> StartError {
    StartError {
        code: EX_OSERR,
        message: format!("the event loop cannot be started: {error}"),
    }
}

/// Who may do what, and whose model files are used.
fn rights(config: &Config) -> Result<(Policy, Installers), StartError> {
    let own = rustix::process::geteuid().as_raw();
    let rights = || {
        let policy = Policy::new(&config.access, own)?;
        let installers = installers(&policy, config)?;
        Ok((policy, installers))
    };
    rights().map_err(|message| StartError {
        code: EX_CONFIG,
        message,
    })
}

/// Whose tokens are taken besides the daemon's own.
fn issuers(config: &Config) -> Result<Oidc, StartError> {
    let oidc = Oidc::default();
    let set = oidc.set(&config.oidc, user_of_subject);
    set.map(|()| oidc).map_err(|message| StartError {
        code: EX_CONFIG,
        message,
    })
}

/// What is kept of requests.
fn books(config: &Config) -> Result<Arc<Books>, StartError> {
    Books::open(&config.audit).map_err(|message| StartError {
        code: EX_OSERR,
        message,
    })
}

/// What the daemon is made of, all of it running.
struct Parts {
    engine: Engine,
    upstreams: Upstreams,
    attachments: Attachments,
    admission: Arc<Admission>,
    on_demand: Arc<FetchedOnDemand>,
    api: Arc<Api>,
    door: Arc<bus::Door>,
    books: Arc<Books>,
}

impl Parts {
    /// Goes on with downloads, on behalf of those who may still fetch what they began.
    async fn resume_pulls(&self) {
        let admission = self.admission.clone();
        let may = move |who: PrincipalId, rights: &[PullRights]| {
            let Some(who) = who.uid().map(|uid| admission.absent(uid)) else {
                return false;
            };
            admission.may_administer(&who) || api::native::pull::lets_fetch(&who, rights)
        };
        self.engine.resume_pulls(may).await;
    }

    /// Starts the engine and what stands before it. Nothing is served yet.
    async fn start(
        config: &Config,
        (policy, oidc, installers): (Policy, Oidc, Installers),
        worker: PathBuf,
        books: Arc<Books>,
    ) -> Self {
        let reserved = ReservedMemory::default();
        let setup = Setup {
            unsound: Default::default(),
            catalogs: Default::default(),
            cache_space: Default::default(),
            prompts: PromptCache::new(given_key()),
            models: config.models.clone(),
            inference: config.inference.clone(),
            memory: config.memory.clone(),
            limits: config.limits.clone(),
            installers,
            reserved: reserved.clone(),
            worker: worker.clone(),
            pull: config.pull.clone(),
            // Beside the daemon's own socket: a user's daemon, and one of a test, has none there and starts its workers itself.
            pull_socket: config.server.socket.with_file_name(PULL_SOCKET),
        };
        let engine = service::patiently(Engine::start(setup)).await;
        let tokens = tokens(config);
        oidc.fetch_with(Arc::new(KeysOfIssuers(engine.clone())));
        let admission = Admission::new(policy, config.limits.body_bytes, tokens, oidc);
        admission.apps.set(&config.apps);
        let permits = Arc::new(TheirModels(admission.clone()));
        let on_demand = FetchedOnDemand::new(&engine, &admission, config.models.pull_on_demand);
        let on_demand = Arc::new(on_demand);
        let upstreams = upstreams(config, &worker, &admission);
        let backends = Backends::new(Arc::new(engine.clone()))
            .with_permits(permits)
            .with_on_demand(on_demand.clone())
            .with_remote(Arc::new(upstreams.clone()))
            .with_ledger(books.clone());
        let attachments = Attachments::new(
            backends.clone(),
            worker,
            config.access.fetch_from.clone(),
            reserved,
            config.limits.request_time,
        );
        let mut limits = config.limits.clone();
        descriptors::provide(&mut limits);
        let api = Arc::new(Api::new(
            backends.clone(),
            attachments.clone(),
            limits.clone(),
            admission.clone(),
        ));
        let door = Arc::new(bus::Door::new(
            config.server.dbus.clone(),
            backends,
            attachments.clone(),
            admission.clone(),
            limits,
        ));
        Self {
            engine,
            upstreams,
            attachments,
            admission,
            on_demand,
            api,
            door,
            books,
        }
    }

    /// Gives back, from now on, memory that is not needed any more, and writes down what was used.
    fn reclaim(&self) {
        let books = self.books.clone();
        tokio::spawn(async move { books.attend().await });
        tokio::spawn(reclaim::reclaim_code(self.engine.changes()));
        tokio::spawn(reclaim::reclaim_memory(
            self.engine.changes(),
            self.api.clone(),
            self.admission.clone(),
        ));
    }

    /// Whether a client is there.
    fn is_used(&self) -> bool {
        self.api.is_connected() || self.door.is_used() || self.engine.is_pulling()
    }
}

/// Issuers' keys are fetched as models are.
#[derive(Debug)]
struct KeysOfIssuers(Engine);

impl KeySource for KeysOfIssuers {
    fn fetch(&self, url: String, first: String) -> Fetching {
        let engine = self.0.clone();
        Box::pin(async move { engine.document(&url, &first).await })
    }
}

/// Services on other machines, for those whom the configuration names.
fn upstreams(config: &Config, worker: &Path, admission: &Arc<Admission>) -> Upstreams {
    let way = Way {
        worker: worker.to_owned(),
        socket: config.server.socket.with_file_name(RELAY_SOCKET),
    };
    Upstreams::new(&config.upstreams, way, rights::by_lists(admission))
}

/// The key of prompts that outlive the daemon, if the service manager keeps it.
fn given_key() -> Option<PathBuf> {
    Some(credentials()?.join("prompt-cache.key")).filter(|key| key.exists())
}

/// The tokens, signed with the key that the service manager keeps, if it does.
fn tokens(config: &Config) -> Tokens {
    let tokens = Tokens::open(config.access.token_file.clone());
    match credentials() {
        Some(folder) => tokens.with_credentials(&folder),
        None => tokens,
    }
}

/// Where the service manager has put what it keeps for us, if it does.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// After how long without anything to do the daemon leaves; never without a socket that systemd
/// keeps.
fn exit_when_idle(listeners: &listen::Listeners, config: &Config) -> Option<Duration> {
    let time = Some(config.server.exit_when_idle).filter(|time| !time.is_zero())?;
    if listeners.kept_by_systemd() {
        return Some(time);
    }
    tracing::warn!("`exit-when-idle` needs a socket that systemd keeps; the daemon stays");
    None
}

/// What a signal asks for.
enum SignalAction {
    Reload,
    Exit,
}

struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let listen = |kind| {
            signal(kind).map_err(|error| StartError {
                code: EX_OSERR,
                message: format!("signals cannot be received: {error}"),
            })
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.hangup.recv() => SignalAction::Reload,
            _ = self.terminate.recv() => SignalAction::Exit,
            _ = self.interrupt.recv() => SignalAction::Exit,
        }
    }
}

/// Whose model files are used.
fn installers(policy: &Policy, config: &Config) -> Result<Installers, String> {
    let (users, groups) = policy.installers(&config.models)?;
    Ok(Installers { users, groups })
}

/// The worker lies beside the daemon, unless the configuration says otherwise.
fn worker_program(config: &Config) -> Result<PathBuf, StartError> {
    if let Some(worker) = &config.inference.worker {
        return Ok(worker.clone());
    }
    let own = std::env::current_exe().map_err(|error| StartError {
        code: EX_SOFTWARE,
        message: format!(
            "the daemon's own program cannot be found: {error}; set `worker` in gemmad.toml"
        ),
    })?;
    Ok(own.with_file_name("gemmad-worker"))
}
