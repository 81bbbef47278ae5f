//! What is asked of the model directories.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::super::state::Life;
use super::super::{StoreCommand, keep, names, offers, thread};
use super::Driver;
use crate::backend::{Failure, Hashed, Import, ModelDetails, Removed, VerifiedFile};
use crate::chat::Modalities;

/// How long the disk of a model directory may take for what needs no reading of files.
const DISK_TIME: Duration = Duration::from_secs(10);

/// The channel to the client that waits for a command.
type Reply<T> = oneshot::Sender<Result<T, Failure>>;

// A client that waits for a reply may be gone: nothing is lost when it cannot be sent.
impl Driver {
    pub(super) fn store_command(&mut self, command: StoreCommand) {
        match command {
            StoreCommand::Details { name, reply } => self.details(&name, reply),
            StoreCommand::Remove { id, reply } => self.remove(&id, reply),
            StoreCommand::Verify { name, told, reply } => self.verify(&name, told, reply),
            StoreCommand::Import {
                folder,
                name,
                bytes,
                reply,
            } => self.import(folder, name, bytes, reply),
            StoreCommand::Catalog { reply } => {
                let (setup, models) = (self.setup.clone(), self.catalog.models.clone());
                self.of_disk(reply, move || Ok(offers::report(&setup, &models)));
            }
            StoreCommand::PullBasis { reply } => {
                let setup = self.setup.clone();
                self.of_disk(reply, move || Ok(setup.pull_basis()));
            }
        }
    }

    fn details(&mut self, name: &str, reply: Reply<ModelDetails>) {
        match self.resolve(name, Modalities::default()) {
            Ok((model, _)) => {
                let catalogs = self.setup.catalogs.clone();
                self.of_disk(reply, move || keep::details(&model, &catalogs.offers()));
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Takes a model away that nobody uses. Only its own id will do: a name that can mean several is none to delete by.
    fn remove(&mut self, id: &str, reply: Reply<Removed>) {
        let Some(model) = names::exact(&self.catalog.models, id).cloned() else {
            let known = self.catalog.models.iter().map(|model| model.id.clone());
            let _ = reply.send(Err(Failure::UnknownModel {
                asked: id.to_owned(),
                known: known.collect(),
                passed_over: None,
                hint: None,
            }));
            return;
        };
        if self.is_in_use(&model.id) {
            let _ = reply.send(Err(Failure::ModelInUse { model: model.id }));
            return;
        }
        let files = keep::files_to_remove(&model, &self.catalog.models);
        let directories = self.setup.models.directories.clone();
        self.of_disk(reply, move || keep::remove(model.id, &files, &directories));
    }

    /// Whether a worker has the model, or is about to.
    fn is_in_use(&self, id: &str) -> bool {
        let loaded = match self.state.life() {
            Life::Starting(model) | Life::Ready(model) => model == id,
            _ => false,
        };
        let running = self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.model.id == id);
        loaded || running || self.opening.contains(id)
    }

    /// Hashes a model's files, for as long as that takes and somebody is told.
    fn verify(
        &mut self,
        name: &str,
        told: watch::Sender<Hashed>,
        reply: Reply<(String, Vec<VerifiedFile>)>,
    ) {
        let model = match self.resolve(name, Modalities::default()) {
            Ok((model, _)) => model,
            Err(failure) => {
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let catalogs = self.setup.catalogs.clone();
        tokio::spawn(async move {
            let hashed = thread::run(move || {
                let files = keep::verify(&model, &catalogs.offers(), &told)?;
                Ok((model.id, files))
            });
            let _ = reply.send(hashed.await.unwrap_or_else(|error| Err(no_thread(&error))));
        });
    }

    fn import(&mut self, folder: Option<String>, name: String, bytes: u64, reply: Reply<Import>) {
        let setup = self.setup.clone();
        self.of_disk(reply, move || {
            let incoming = setup.import(folder.as_deref(), &name, bytes)?;
            Ok(keep::receive(incoming, bytes))
        });
    }

    /// Answers with what comes of a look at the disk: on a thread, which may hang with it.
    fn of_disk<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        look: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) {
        tokio::spawn(async move {
            let looked = tokio::time::timeout(DISK_TIME, thread::run(look)).await;
            let _ = reply.send(match looked {
                Ok(Ok(seen)) => seen,
                Ok(Err(error)) => Err(no_thread(&error)),
                Err(_) => Err(Failure::TimedOut { limit: DISK_TIME }),
            });
        });
    }
}

fn no_thread(error: &std::io::Error) -> Failure {
    Failure::NotNow {
        what: "the disk cannot be looked at",
        cause: error.to_string(),
    }
}
