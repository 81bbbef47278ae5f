//! A program that calls over the bus: its name there, and for how long it stays connected.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use zbus::fdo::NameOwnerChangedStream;
use zbus::message::Header;
use zbus::names::UniqueName;

use super::error::BusError;
use crate::access::Caller;
use crate::access::quota::Share;

/// Connections that have something open, to be told when they end.
#[derive(Debug, Default)]
pub struct NameWatch(Mutex<HashMap<String, watch::Sender<()>>>);

impl NameWatch {
    /// The receiver's channel closes when the connection ends.
    pub fn subscribe(&self, name: &str) -> watch::Receiver<()> {
        self.lock()
            .entry(name.to_owned())
            .or_insert_with(|| watch::channel(()).0)
            .subscribe()
    }

    /// Forgets a connection of which this is the last thing that is open.
    pub fn forget(&self, name: &str) {
        let mut known = self.lock();
        if known
            .get(name)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            known.remove(name);
        }
    }

    /// Reads who has left the bus, until the bus itself is gone; then everybody has.
    pub async fn watch(&self, mut changes: NameOwnerChangedStream) {
        while let Some(change) = changes.next().await {
            if let Ok(change) = change.args() {
                self.lock().remove(change.name.as_str());
            }
        }
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller who is let in; it counts as a thing that is open until it is dropped.
pub struct Client {
    pub caller: Caller,
    name: UniqueName<'static>,
    names: Arc<NameWatch>,
    stays: watch::Receiver<()>,
    _share: Share,
}

impl Client {
    /// `stays` is what [`NameWatch::subscribe`] gave for the name; `share` counts the client among
    /// what is open.
    pub fn new(
        caller: Caller,
        name: UniqueName<'static>,
        names: Arc<NameWatch>,
        stays: watch::Receiver<()>,
        share: Share,
    ) -> Self {
        Self {
            caller,
            name,
            names,
            stays,
            _share: share,
        }
    }

    pub fn name(&self) -> &UniqueName<'static> {
        &self.name
    }

    /// Returns when the caller's connection has ended.
    pub async fn gone(&self) {
        let mut stays = self.stays.clone();
        // Nothing is ever sent.
        while stays.changed().await.is_ok() {}
    }

    /// Refuses everyone else.
    pub fn is(&self, header: &Header<'_>) -> Result<(), BusError> {
        if header.sender() == Some(&self.name) {
            return Ok(());
        }
        Err(BusError::NotAuthorized(
            "this object is another program's".to_owned(),
        ))
    }

    /// Does `work` for as long as the caller is on the bus, and not longer than `limit`. Dropped
    /// work is cancelled.
    pub async fn wait<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, BusError> {
        tokio::select! {
            done = work => Ok(done),
            () = self.gone() => Err(BusError::Cancelled("you have left the bus".to_owned())),
            () = tokio::time::sleep(limit) => Err(BusError::late(limit)),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.names.forget(&self.name);
    }
}
