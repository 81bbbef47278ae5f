//! Who calls, as the bus says, and for how long they are there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use zbus::fdo::NameOwnerChangedStream;
use zbus::message::Header;
use zbus::names::{BusName, UniqueName};

use super::Shared;
use super::error::BusError;
use super::polkit::{self, Action, Verdict};
use crate::access::quota::Share;
use crate::access::{Caller, Principal};

/// Connections that have something open, to be told when they end.
#[derive(Debug, Default)]
pub struct Presence(Mutex<HashMap<String, watch::Sender<()>>>);

impl Presence {
    /// The receiver's channel closes when the connection ends.
    fn attend(&self, name: &str) -> watch::Receiver<()> {
        self.lock()
            .entry(name.to_owned())
            .or_insert_with(|| watch::channel(()).0)
            .subscribe()
    }

    /// Forgets a connection of which this is the last thing that is open.
    fn leave(&self, name: &str) {
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
pub struct Guest {
    pub caller: Caller,
    name: UniqueName<'static>,
    presence: Arc<Presence>,
    stays: watch::Receiver<()>,
    _share: Share,
}

impl Guest {
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

impl Drop for Guest {
    fn drop(&mut self) {
        self.presence.leave(&self.name);
    }
}

impl Shared {
    /// Lets in whoever sent the message with this header, if they may ask.
    pub async fn admit(&self, header: &Header<'_>) -> Result<Guest, BusError> {
        let guest = self.identify(header).await?;
        if self.gate.may_administer(&guest.caller.principal) {
            return Ok(guest);
        }
        match polkit::verdict(&self.polkit, &guest, header, Action::Infer).await? {
            // Without polkit everyone may whom the bus lets call.
            Verdict::Yes | Verdict::Away => Ok(guest),
            Verdict::No | Verdict::Challenge => Err(BusError::NotAuthorized(format!(
                "polkit does not let user {} ask; an administrator can, with a rule for {} (see polkit(8))",
                guest.caller.id(),
                Action::Infer.id()
            ))),
        }
    }

    /// Lets in whoever sent the message with this header, for what is for administrators.
    pub async fn admit_admin(&self, header: &Header<'_>) -> Result<Guest, BusError> {
        let guest = self.identify(header).await?;
        if self.gate.may_administer(&guest.caller.principal) {
            return Ok(guest);
        }
        let remedy = match polkit::verdict(&self.polkit, &guest, header, Action::Load).await? {
            Verdict::Yes => return Ok(guest),
            Verdict::No | Verdict::Away => "",
            Verdict::Challenge => {
                "; polkit would ask for a password if the call allowed interactive authorization"
            }
        };
        Err(BusError::NotAuthorized(format!(
            "this is for administrators, and user {} is none; `admins` and `admin-groups` under [access] in gemmad.toml name them, \
             and rules of polkit for {}{remedy}",
            guest.caller.id(),
            Action::Load.id()
        )))
    }

    /// Who sent the message with this header. It counts as one thing more that is open.
    async fn identify(&self, header: &Header<'_>) -> Result<Guest, BusError> {
        let unknown =
            || BusError::NotAuthorized("the bus does not say which user you are".to_owned());
        let name = header.sender().ok_or_else(unknown)?.to_owned();
        // First, so that no end is missed.
        let stays = self.presence.attend(&name);
        let credentials = self
            .bus
            .get_connection_credentials(BusName::Unique(name.clone()))
            .await
            .map_err(|_| unknown());
        let admitted = credentials.and_then(|credentials| {
            let uid = credentials.unix_user_id().ok_or_else(unknown)?;
            // Older buses do not say.
            let groups = credentials
                .unix_group_ids()
                .map(|groups| groups.as_slice())
                .unwrap_or_default()
                .into();
            let principal = Principal::User { uid, groups };
            let pid = credentials
                .process_id()
                .and_then(|pid| i32::try_from(pid).ok());
            let mut share = self.open.share(principal.id());
            share.grow(1).map_err(BusError::open)?;
            Ok((Caller { principal, pid }, share))
        });
        match admitted {
            Ok((caller, share)) => {
                tracing::debug!(
                    uid = %caller.id(),
                    pid = caller.pid,
                    call = header.member().map_or("", |member| member.as_str())
                );
                Ok(Guest {
                    caller,
                    name,
                    presence: self.presence.clone(),
                    stays,
                    _share: share,
                })
            }
            Err(error) => {
                self.presence.leave(&name);
                Err(error)
            }
        }
    }
}
