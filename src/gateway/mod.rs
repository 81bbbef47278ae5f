//! gemmad-gateway: the one program with a listening TCP socket.
//!
//! ```text
//!   serve (accept, seats) ─▶ tls ─▶ inspected (strict) or http2 ─▶ admit ─▶ pass ─▶ the daemon's socket
//! ```
//!
//! It knows no user and no token. It says to the daemon from which address a request came, and
//! passes on the token that came along; who that is and what they may do, the daemon decides. So whoever
//! takes the gateway over has what the tokens allow that pass through it, and no more.

mod admit;
mod http2;
mod inspected;
mod pass;
mod refusal;
mod seats;
mod serve;
mod settings;
mod strict;
mod tls;

pub use settings::Args;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use admit::Rules;
use pass::Bounds;
use seats::Seats;
use serve::Gateway;
use settings::Settings;
use tls::Identity;

use crate::config::one_line;
use crate::sys;

/// Exit codes of `sysexits.h`.
const EX_OSERR: u8 = 71;
const EX_CONFIG: u8 = 78;
/// How long answers may go on after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);

/// Why the gateway could not start.
struct StartError {
    code: u8,
    message: String,
}

fn config_error(message: String) -> StartError {
    StartError {
        code: EX_CONFIG,
        message,
    }
}

fn system_error(what: &str, error: std::io::Error) -> StartError {
    StartError {
        code: EX_OSERR,
        message: format!("{what}: {error}"),
    }
}

/// The program `gemmad-gateway`.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.self_signed {
        Some(folder) => self_signed(folder, &args.name),
        None => start(args.config.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.message.lines() {
                eprintln!("gemmad-gateway: {}", one_line(line));
            }
            ExitCode::from(error.code)
        }
    }
}

/// Makes a certificate, and prints what tells it from all others.
fn self_signed(folder: &Path, names: &[String]) -> Result<(), StartError> {
    let mut names = names.to_vec();
    if names.is_empty() {
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        names.extend(Some(own.trim().to_owned()).filter(|own| !own.is_empty()));
        names.dedup();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let print = tls::make_self_signed(folder, &names, now).map_err(config_error)?;
    println!("{}", folder.join("cert.pem").display());
    println!("for {}", names.join(", "));
    println!("SHA-256 {print}");
    Ok(())
}

fn start(file: Option<&Path>) -> Result<(), StartError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_max_level(tracing::Level::INFO)
        .init();
    let settings = Settings::load(file).map_err(config_error)?;
    if let Err(error) = sys::process::keep_memory_out_of_cores() {
        tracing::warn!(%error, "a crash could write prompts to a core file");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| system_error("the event loop cannot be started", error))?;
    runtime.block_on(run(settings))
}

async fn run(settings: Settings) -> Result<(), StartError> {
    let identity = Identity::find(&settings).map_err(config_error)?;
    let listeners = listeners(&settings)?;
    if identity.is_none() {
        for listener in &listeners {
            let address = listener
                .local_addr()
                .map_err(|error| system_error("a socket has no address", error))?;
            settings
                .check_plaintext(address.ip())
                .map_err(config_error)?;
        }
    }
    provide_descriptors(settings.connections, settings.requests);
    let listen =
        |kind| signal(kind).map_err(|error| system_error("signals cannot be received", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let gateway = Arc::new(Gateway {
        rules: Rules {
            hosts: settings
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            origins: settings.origins,
        },
        daemon: settings.socket,
        bounds: Bounds {
            body_size: settings.body_size,
            stall: settings.client_stall,
        },
        head_time: settings.head_time,
        seats: Seats::new(settings.connections, settings.connections_per_address),
        requests: Seats::new(settings.requests, settings.requests_per_address),
        identity: identity.map(Mutex::new),
    });
    let tls = gateway.identity.is_some();
    let (leave, leaving) = watch::channel(false);
    let mut serving = JoinSet::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls, "serving");
        }
        serving.spawn(serve::serve(gateway.clone(), listener, leaving.clone()));
    }
    notify(NotifyState::Ready);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify(NotifyState::Stopping);
    let _ = leave.send(true);
    let _ = tokio::time::timeout(GRACE, async {
        while serving.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

/// Raises the number of files that may be open to what connections and requests need, each with one to the daemon.
fn provide_descriptors(connections: u32, requests: u32) {
    let wanted = u64::from(connections) + u64::from(requests) + 64;
    let limits = rustix::process::getrlimit(Resource::Nofile);
    if limits.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = Some(limits.maximum.map_or(wanted, |most| most.min(wanted)));
    let raised = Rlimit { current, ..limits };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "few files may be open: some connections may fail");
    }
}

/// systemd's sockets if there are any, else those of the configuration.
fn listeners(settings: &Settings) -> Result<Vec<TcpListener>, StartError> {
    let unusable = |error| system_error("the sockets passed by systemd cannot be used", error);
    let mut listeners = sys::listen_fds::tcp_listeners().map_err(unusable)?;
    if listeners.is_empty() {
        for address in &settings.listen {
            let listener = std::net::TcpListener::bind(address)
                .map_err(|error| system_error(&format!("{address}"), error))?;
            listeners.push(listener);
        }
    }
    let listeners: Vec<_> = listeners
        .into_iter()
        .map(serve::to_tokio)
        .collect::<Result<_, _>>()
        .map_err(unusable)?;
    if listeners.is_empty() {
        return Err(config_error(
            "`listen` in gateway.toml names no address".to_owned(),
        ));
    }
    Ok(listeners)
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
