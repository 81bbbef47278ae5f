//! Front door 2: D-Bus, for programs that use this machine's other services in the same way.
//!
//! ```text
//!   /org/gemmad/Gemmad1                      Manager: what is there, load, ask, open; Models: what is installed; Account: the caller's own
//!   /org/gemmad/client/stream_ID             Stream: an answer on its way through a socket
//!   /org/gemmad/client/conversation_ID       Conversation: what was said, kept for its owner
//!   /org/gemmad/client/download_ID           Download: a model that comes, as one who waits sees it
//! ```
//!
//! A method is parse, one call, render. Who calls, the bus says. `Ask` and `Send` make a request of
//! their options; those of `Chat` and `OpenStream` are OpenAI's JSON, as the other door takes them.

mod account;
mod ask;
mod caller;
mod charge;
mod client;
mod conversation;
mod download;
mod error;
mod files;
mod history;
mod manager;
mod models;
mod options;
mod polkit;
mod progress;
mod properties;
pub mod proxy;
mod settings;
mod signals;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{self, DBusProxy, RequestNameFlags};
use zbus::proxy::CacheProperties;

use crate::access::admission::Admission;
use crate::access::quota::Quota;
use crate::attachments::Attachments;
use crate::backend::Backends;
use crate::config::{BusChoice, Limits};
use account::Account;
use client::NameWatch;
use manager::{Manager, MemoryRead};
use models::Models;
use polkit::AuthorityProxy;

/// What others call the service, and where its objects are.
pub const NAME: &str = "org.gemmad.Gemmad1";
pub const PATH: &str = "/org/gemmad/Gemmad1";
/// Where its clients' objects are: beside it, so that whoever may look at the service does not see
/// who has something open. The bus's policy lets nobody list them, and their names cannot be guessed.
const CLIENTS: &str = "/org/gemmad/client";

/// Messages of the bus that wait to be looked at; past this the bus waits.
const QUEUED: usize = 8;
/// A bus that does not answer for so long is not there.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Rest before a bus that is not there is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the objects share.
struct Shared {
    backends: Backends,
    attachments: Attachments,
    admission: Arc<Admission>,
    limits: Limits,
    open: Arc<Quota>,
    names: Arc<NameWatch>,
    /// The bus itself, which knows its users.
    bus: DBusProxy<'static>,
    polkit: AuthorityProxy<'static>,
    memory_read: Mutex<MemoryRead>,
    /// Becomes true when the daemon leaves.
    leaving: watch::Receiver<bool>,
}

/// The door. There is one, whichever bus it leads to, and however often that restarts.
pub struct Door {
    choice: BusChoice,
    backends: Backends,
    attachments: Attachments,
    admission: Arc<Admission>,
    limits: Limits,
    /// Calls, streams and conversations; they count as connections do.
    open: Arc<Quota>,
    /// The bus was asked to read its policies again.
    has_reloaded: AtomicBool,
}

impl Door {
    pub fn new(
        choice: BusChoice,
        backends: Backends,
        attachments: Attachments,
        admission: Arc<Admission>,
        limits: Limits,
    ) -> Self {
        let open = Quota::new(
            limits.connections.into(),
            limits.connections_per_user.into(),
        );
        Self {
            choice,
            backends,
            attachments,
            admission,
            limits,
            open,
            has_reloaded: AtomicBool::new(false),
        }
    }

    /// Whether a call is being answered, or a stream or conversation is open.
    pub fn is_used(&self) -> bool {
        self.open.in_use() > 0
    }

    /// Serves on the bus until `shutdown` becomes true and everything that is open has ended. A bus
    /// that is not there, or goes away, is looked for again. `tried` hears of the first attempt,
    /// however it ends.
    pub async fn serve(
        self: Arc<Self>,
        mut shutdown: watch::Receiver<bool>,
        attempted: oneshot::Sender<()>,
    ) {
        let (mut pause, mut missed) = (FIRST_PAUSE, false);
        let mut attempted = Some(attempted);
        loop {
            let connected = timeout(CONNECT_TIME, self.connect(&shutdown))
                .await
                .unwrap_or(Err(zbus::Error::InputOutput(Arc::new(
                    std::io::Error::from(std::io::ErrorKind::TimedOut),
                ))));
            // Nobody may wait for it.
            attempted.take().map(|attempted| attempted.send(()));
            match connected {
                Ok(connection) => {
                    info!(name = NAME, "on the bus");
                    (pause, missed) = (FIRST_PAUSE, false);
                    tokio::select! {
                        () = connection.closed() => warn!("the bus has hung up"),
                        () = requested(&mut shutdown) => return self.drain(&connection).await,
                    }
                }
                // Once for each time that it is away: it may last.
                Err(error) if !std::mem::replace(&mut missed, true) => {
                    warn!(%error, "not on the bus; it is tried again")
                }
                Err(error) => debug!(%error, "not on the bus"),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = requested(&mut shutdown) => return,
            }
        }
    }

    /// Connects and takes the service's name.
    async fn connect(&self, shutdown: &watch::Receiver<bool>) -> zbus::Result<Connection> {
        let builder = match &self.choice {
            BusChoice::None => return Err(zbus::Error::Address("no bus is configured".into())),
            BusChoice::System => Builder::system()?,
            BusChoice::Session => Builder::session()?,
            BusChoice::Address(address) => Builder::address(address.as_str())?,
        };
        let connection = builder.max_queued(QUEUED).build().await?;
        let bus = DBusProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let names = Arc::new(NameWatch::default());
        // Only of those who leave: their name has no owner any more.
        let departures = bus.receive_name_owner_changed_with_args(&[(2, "")]).await?;
        let shared = Shared {
            backends: self.backends.clone(),
            attachments: self.attachments.clone(),
            admission: self.admission.clone(),
            limits: self.limits.clone(),
            open: self.open.clone(),
            names: names.clone(),
            bus: bus.clone(),
            polkit: AuthorityProxy::builder(&connection)
                .cache_properties(CacheProperties::No)
                .build()
                .await?,
            memory_read: Mutex::default(),
            leaving: shutdown.clone(),
        };
        let (shared, server) = (Arc::new(shared), connection.object_server());
        server.at(PATH, Models::new(shared.clone())).await?;
        server.at(PATH, Account::new(shared.clone())).await?;
        server.at(PATH, Manager::new(shared)).await?;
        // Last: whoever sees the name finds everything there.
        self.take_name(&connection, &bus).await?;
        tokio::spawn(async move { names.watch(departures).await });
        tokio::spawn(signals::emit(
            connection.clone(),
            self.backends.local().changes(),
        ));
        Ok(connection)
    }

    /// Takes the service's name. A bus looks up the users and groups of its policies when it reads
    /// them: where that was before the service's user was made, they hold from the next time on.
    async fn take_name(&self, connection: &Connection, bus: &DBusProxy<'_>) -> zbus::Result<()> {
        let request =
            || connection.request_name_with_flags(NAME, RequestNameFlags::DoNotQueue.into());
        let refused = match request().await {
            Ok(_) => return Ok(()),
            Err(error) if is_denied(&error) => error,
            Err(error) => return Err(error),
        };
        // dbus-daemon does that for everybody, dbus-broker for root alone.
        let is_first = !self.has_reloaded.swap(true, Ordering::Relaxed);
        if is_first && bus.reload_config().await.is_ok() {
            return request().await.map(|_| ());
        }
        if is_first {
            warn!(
                "the bus does not let this user have the service's name; if the user was made after \
                 the bus had read its policies, `systemctl reload dbus` helps"
            );
        }
        Err(refused)
    }

    /// Takes no more calls and lets those that are being answered finish. The caller bounds how
    /// long that may take.
    async fn drain(&self, connection: &Connection) {
        // From now on the bus starts another daemon, if it is told how.
        let _ = connection.release_name(NAME).await;
        while self.is_used() {
            tokio::select! {
                () = connection.closed() => return,
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }
}

fn is_denied(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::FDO(error) => matches!(**error, fdo::Error::AccessDenied(_)),
        zbus::Error::MethodError(name, ..) => {
            name.as_str() == "org.freedesktop.DBus.Error.AccessDenied"
        }
        _ => false,
    }
}

async fn requested(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say so.
    let _ = shutdown.wait_for(|leave| *leave).await;
}
