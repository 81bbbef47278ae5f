//! `org.gemmad.Gemmad1.Download`: a model that is being downloaded, as one of those who wait for it
//! sees it. The download itself is the daemon's: it goes on when they leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::{InterfaceRef, SignalEmitter};
use zbus::zvariant::{OwnedObjectPath, Value};
use zbus::{Connection, fdo, interface};

use super::client::Client;
use super::error::BusError;
use super::{CLIENTS, Shared, requested};
use crate::api::id;
use crate::backend::{PullState, PullStatus, PullWatch, listed};

const INTERFACE: &str = "org.gemmad.Gemmad1.Download";
/// Changes within this time become one signal.
const PAUSE: Duration = Duration::from_millis(250);
/// How long it is told what became of one that is over.
const KEPT: Duration = Duration::from_secs(60);

pub struct Download {
    shared: Arc<Shared>,
    owner: Arc<Client>,
    watched: PullWatch,
}

/// What the properties say.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    state: &'static str,
    error: String,
    received: u64,
    total: u64,
    speed: u64,
}

impl Seen {
    fn of(status: &PullStatus) -> Self {
        let error = match &status.state {
            PullState::Waiting { cause, .. } | PullState::Failed { cause, .. } => cause.clone(),
            _ => String::new(),
        };
        Self {
            state: status.state.name(),
            error,
            received: status.received(),
            total: status.bytes().unwrap_or(0),
            speed: status.rate,
        }
    }

    fn values(&self) -> [(&'static str, Value<'_>); 5] {
        [
            ("State", self.state.into()),
            ("Error", self.error.as_str().into()),
            ("Received", self.received.into()),
            ("Total", self.total.into()),
            ("Speed", self.speed.into()),
        ]
    }
}

#[interface(name = "org.gemmad.Gemmad1.Download")]
impl Download {
    /// Stops the download and deletes what came. For administrators, and for who began it while nobody
    /// else waits for it.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), BusError> {
        self.owner.is(&header)?;
        let id = self.watched.borrow().id.clone();
        self.shared.cancel_pull(&header, &id).await
    }

    /// What CancelPull takes.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<String> {
        self.read(header, |status| status.id.clone())
    }

    /// The id that the model will have.
    #[zbus(property(emits_changed_signal = "const"))]
    fn model(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<String> {
        self.read(header, |status| status.model.clone())
    }

    /// downloading, waiting, verifying, done, failed or cancelled.
    #[zbus(property)]
    fn state(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<String> {
        self.read(header, |status| status.state.name().to_owned())
    }

    /// Why it waits or has failed; else empty.
    #[zbus(property)]
    fn error(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<String> {
        self.read(header, |status| Seen::of(status).error)
    }

    /// Bytes that are here and hashed.
    #[zbus(property)]
    fn received(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<u64> {
        self.read(header, PullStatus::received)
    }

    /// Bytes of all files; 0 where a server has not said.
    #[zbus(property)]
    fn total(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<u64> {
        self.read(header, |status| status.bytes().unwrap_or(0))
    }

    /// Bytes a second, lately.
    #[zbus(property)]
    fn speed(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<u64> {
        self.read(header, |status| status.rate)
    }

    /// It is over: State is now `state`, Error is `error`. When it is done, the model can be asked.
    /// The object stays for a minute.
    #[zbus(signal)]
    async fn finished(emitter: &SignalEmitter<'_>, state: &str, error: &str) -> zbus::Result<()>;
}

impl Download {
    fn read<T>(
        &self,
        header: Option<Header<'_>>,
        of: impl FnOnce(&PullStatus) -> T,
    ) -> fdo::Result<T> {
        match header.filter(|header| self.owner.is(header).is_ok()) {
            Some(_) => Ok(of(&self.watched.borrow())),
            None => Err(fdo::Error::AccessDenied(
                "this download was asked for by another program".to_owned(),
            )),
        }
    }
}

/// Shows a download to its owner, until a while after its end, or until the owner leaves the bus.
pub async fn open(
    shared: &Arc<Shared>,
    connection: &Connection,
    owner: Client,
    watched: PullWatch,
) -> Result<OwnedObjectPath, BusError> {
    let path = format!("{CLIENTS}/{}", id::random("download_"));
    let path = OwnedObjectPath::try_from(path).map_err(zbus::Error::from)?;
    let owner = Arc::new(owner);
    let download = Download {
        shared: shared.clone(),
        owner: owner.clone(),
        watched: watched.clone(),
    };
    connection.object_server().at(&path, download).await?;
    let (shared, connection, place) = (shared.clone(), connection.clone(), path.clone());
    tokio::spawn(async move {
        let mut leaving = shared.leaving.clone();
        tokio::select! {
            // An error: the bus is gone, and whoever listened with it.
            _ = tell(&shared, &connection, &place, &owner, watched) => {}
            () = owner.gone() => {}
            // A download ends with the daemon; the next one goes on with it.
            () = requested(&mut leaving) => {}
        }
        let server = connection.object_server();
        let _ = server.remove::<Download, _>(&place).await;
    });
    Ok(path)
}

/// Signals what changes, to the owner alone: a signal to everybody would show others the object.
async fn tell(
    shared: &Shared,
    connection: &Connection,
    path: &OwnedObjectPath,
    owner: &Client,
    mut watched: PullWatch,
) -> zbus::Result<()> {
    let object: InterfaceRef<Download> = connection.object_server().interface(path).await?;
    let emitter = object.signal_emitter().clone();
    let emitter = emitter.set_destination(owner.name().clone().into());
    let mut told = Seen::of(&watched.borrow_and_update());
    loop {
        let status = watched.borrow_and_update().clone();
        let now = Seen::of(&status);
        let is_over = status.state.is_over();
        if is_over {
            listed(&status, shared.backends.local().changes()).await;
        }
        signal_changes(&emitter, &told, &now).await?;
        told = now;
        if is_over {
            Download::finished(&emitter, told.state, &told.error).await?;
            sleep(KEPT).await;
            return Ok(());
        }
        sleep(PAUSE).await;
        if watched.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn signal_changes(emitter: &SignalEmitter<'_>, told: &Seen, now: &Seen) -> zbus::Result<()> {
    let before = told.values();
    let changed: HashMap<&str, Value<'_>> = now
        .values()
        .into_iter()
        .filter(|value| !before.contains(value))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let name = InterfaceName::from_static_str_unchecked(INTERFACE);
    fdo::Properties::properties_changed(emitter, name, changed, (&[][..]).into()).await
}
