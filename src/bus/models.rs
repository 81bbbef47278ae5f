//! `org.gemmad.Gemmad1.Models`: which models are installed. Beside the manager, on the same object.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::zvariant::{OwnedFd, OwnedObjectPath, OwnedValue};
use zbus::{Connection, interface};

use super::ask::timeout_of;
use super::client::Client;
use super::error::BusError;
use super::options::Options;
use super::polkit::Action;
use super::{Shared, download};
use crate::api::native;
use crate::attachments::aside;
use crate::backend::{Failure, Hashed, Import, Imported, PullAsk, Puller};

/// Bytes of a file that are read at once.
const PIECE: usize = 1 << 20;
/// How long asking servers what a model consists of may take.
const PLAN_TIME: Duration = Duration::from_secs(120);

pub struct Models(Arc<Shared>);

impl Models {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

#[interface(name = "org.gemmad.Gemmad1.Models")]
impl Models {
    /// Begins to download a model, or joins a download of it that goes on, and returns an object that
    /// says how far it is. Options: with (as: vision, audio, drafter; empty for none of them), quant
    /// (s), force (b: even if it takes more memory than there is). Servers are asked first, which can take longer than a library waits (25 s, usually). For
    /// administrators, and those whom a catalog lets download it.
    #[zbus(out_args("download"))]
    async fn pull(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        model: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<OwnedObjectPath, BusError> {
        let (client, ask, by) = self.may_pull(&header, model, options).await?;
        let begun = client.wait(PLAN_TIME, self.0.backends.local().pull(&ask, &by));
        let watched = begun.await??;
        download::open(&self.0, connection, client, watched).await
    }

    /// What Pull would download, as the JSON of `POST /v1/models/pull` with `"plan": true`. Options
    /// and callers as for Pull.
    #[zbus(out_args("plan"))]
    async fn plan_pull(
        &self,
        #[zbus(header)] header: Header<'_>,
        model: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let (client, ask, by) = self.may_pull(&header, model, options).await?;
        let planned = client.wait(PLAN_TIME, self.0.backends.local().plan_pull(&ask, &by));
        Ok(native::pull::plan_json(planned.await??))
    }

    /// The downloads that go on and those that are over, as the JSON of `GET /v1/models/pulls`:
    /// administrators see all of them, others those that they began.
    #[zbus(out_args("downloads"))]
    async fn list_pulls(&self, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        let client = self.0.identify(&header).await?;
        let own = native::pull::own(self.0.backends.local().pulls(), client.caller.id());
        if !own.is_empty() && !self.0.admission.may_administer(&client.caller.principal) {
            return Ok(native::pull::list_json(&own));
        }
        let _client = self.0.authorize(client, &header, Action::Models).await?;
        Ok(native::pull::list_json(&self.0.backends.local().pulls()))
    }

    /// Stops the download with this id, or forgets what is kept of one that failed. For
    /// administrators, and for who began it while nobody else waits for it.
    async fn cancel_pull(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: &str,
    ) -> Result<(), BusError> {
        self.0.cancel_pull(&header, id).await
    }

    /// Installs a file, which must be a regular one, under this name. Options: folder (s), below the
    /// model directory; timeout (u), as for Ask. Returns the JSON of `POST /models/import`. For
    /// administrators.
    #[zbus(out_args("imported"))]
    async fn import(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        file: OwnedFd,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let client = self.0.admit_for(&header, Action::Models).await?;
        let mut options = Options::new(options);
        let (folder, timeout) = (options.text("folder")?, timeout_of(&mut options)?);
        options.finish()?;
        let file = Arc::new(File::from(std::os::fd::OwnedFd::from(file)));
        let work = async {
            let bytes = length(file.clone()).await?;
            let local = self.0.backends.local();
            let import = local.import(folder.as_deref(), name, bytes).await?;
            hand_over(import, file, bytes).await
        };
        Ok(native::keep::imported_json(
            client.wait(timeout, work).await??,
        ))
    }

    /// Deletes the installed model with this id, and what belongs to it alone. Returns the JSON of
    /// `DELETE /v1/models/{id}`. For administrators.
    #[zbus(out_args("removed"))]
    async fn remove(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: &str,
    ) -> Result<String, BusError> {
        let _client = self.0.admit_for(&header, Action::Models).await?;
        Ok(native::keep::removed_json(
            self.0.backends.local().remove(id).await?,
        ))
    }

    /// Deletes what serves no installed model: packed weights of models that are gone, and what is kept
    /// of downloads that failed. Options: dry-run (b: only say what). Returns the JSON of `POST
    /// /models/prune`. For administrators.
    #[zbus(out_args("pruned"))]
    async fn prune(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let _client = self.0.admit_for(&header, Action::Models).await?;
        let mut options = Options::new(options);
        let dry_run = options.switch("dry-run")?.unwrap_or(false);
        options.finish()?;
        let found = self.0.backends.local().prune(!dry_run).await?;
        Ok(native::keep::pruned_json(dry_run, found))
    }

    /// Hashes a model's files again. Options: timeout (u), as for Ask; reading a large model takes
    /// longer than that. Returns the JSON of `POST /models/verify`. For administrators.
    #[zbus(out_args("verified"))]
    async fn verify(
        &self,
        #[zbus(header)] header: Header<'_>,
        model: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let client = self.0.admit_for(&header, Action::Models).await?;
        let mut options = Options::new(options);
        let timeout = timeout_of(&mut options)?;
        options.finish()?;
        // It stops when the caller leaves, or its time is over.
        let (told, _watched) = watch::channel(Hashed::default());
        let verified = client.wait(timeout, self.0.backends.local().verify(model, told));
        let (model, files) = verified.await??;
        Ok(native::verify::verified_json(model, files))
    }
}

impl Models {
    /// What is asked for, if the caller may have it: as an administrator, by a catalog, or by polkit.
    async fn may_pull(
        &self,
        header: &Header<'_>,
        model: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<(Client, PullAsk, Puller), BusError> {
        let mut options = Options::new(options);
        let (with, quantization) = (options.words("with")?, options.text("quant")?);
        let force = options.switch("force")?.unwrap_or(false);
        options.finish()?;
        let joined = |words: Vec<String>| {
            let wrong =
                || BusError::InvalidRequest(format!("option `with` {}", native::pull::WITH));
            native::pull::joined(&words).ok_or_else(wrong)
        };
        let with = with.map(joined).transpose()?;
        let ask = PullAsk {
            model: model.to_owned(),
            with,
            quantization,
            force,
        };
        let client = self.0.identify(header).await?;
        let who = &client.caller.principal;
        if !self.0.admission.may_administer(who)
            && let Some(by) = native::pull::by_catalogs(self.0.backends.local(), who, &ask).await
        {
            return Ok((client, ask, by));
        }
        let client = self.0.authorize(client, header, Action::Models).await?;
        Ok((client, ask, Puller::Administrator))
    }
}

impl Shared {
    /// Stops a download for an administrator, or for who began it.
    pub async fn cancel_pull(&self, header: &Header<'_>, id: &str) -> Result<(), BusError> {
        let client = self.identify(header).await?;
        let (local, who) = (self.backends.local(), &client.caller);
        let account = match native::pull::has(local, who.id(), id) {
            true => Some(who.id().account()),
            false => {
                self.authorize(client, header, Action::Models).await?;
                None
            }
        };
        local.cancel_pull(id, account).await?;
        Ok(())
    }
}

/// How long the file is now.
async fn length(file: Arc<File>) -> Result<u64, BusError> {
    let wrong = |text: String| BusError::InvalidRequest(text);
    let metadata = aside(move || file.metadata()).await?;
    let metadata =
        metadata.map_err(|error| wrong(format!("the file cannot be looked at: {error}")))?;
    match metadata.is_file() {
        true => Ok(metadata.len()),
        // A pipe has no length that could be checked against the disk's room.
        false => Err(wrong("the descriptor is no regular file".to_owned())),
    }
}

/// Hands so many bytes of the file on, as fast as the disk takes them.
async fn hand_over(import: Import, file: Arc<File>, bytes: u64) -> Result<Imported, BusError> {
    let Import { pieces, outcome } = import;
    let mut at = 0;
    while at < bytes {
        let file = file.clone();
        let read = move || {
            let left = usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; left];
            file.read_exact_at(&mut piece, at).map(|()| piece)
        };
        let piece = aside(read).await?.map_err(|error| {
            BusError::InvalidRequest(format!("the file cannot be read at byte {at}: {error}"))
        })?;
        at += piece.len() as u64;
        if pieces.send(piece).await.is_err() {
            // It is not wanted any more; why, the outcome says.
            break;
        }
    }
    drop(pieces);
    let outcome = outcome.await.unwrap_or(Err(Failure::ShuttingDown));
    Ok(outcome?)
}
