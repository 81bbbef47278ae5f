//! What is asked of the driver: each command, and the model that it means.

use std::path::Path;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use super::super::cache::CacheScope;
use super::super::choice::{self, ModelRequest};
use super::super::names;
use super::super::offers;
use super::super::pending::{Pending, allowance};
use super::super::queue::Kind;
use super::super::state::{Input, Life};
use super::super::{
    Command, EVENTS, Settings, describe, describe_all, describe_rejected, plan, rejected,
};
use super::Driver;
use crate::backend::{Answer, CacheReport, Failure, Found, HangUpGuard, ModelInfo, WorkerMemory};
use crate::chat::{ChatRequest, Detail, Modalities, PrincipalId, TextAnswer, TextTask};
use crate::gemma::picture;
use crate::ipc::Packing;
use crate::store::Model;

/// The channel to the client that waits for a command.
type Reply<T> = oneshot::Sender<Result<T, Failure>>;

// A client that waits for a reply may be gone: nothing is lost when it cannot be sent.
impl Driver {
    /// Does what is asked, or puts it in the queue, or keeps it until the model directories have
    /// been scanned.
    pub(super) fn command(&mut self, command: Command) {
        let Some(command) = self.resolvable(command) else {
            return;
        };
        match command {
            Command::Chat {
                owner,
                model,
                request,
                reply,
            } => {
                let _ = reply.send(self.chat(owner, &model, request));
            }
            Command::Text {
                owner,
                model,
                task,
                reply,
            } => self.text(owner, &model, task, reply),
            Command::Load {
                owner,
                model,
                reply,
            } => self.load(owner, &model, reply),
            Command::Find {
                name,
                modalities,
                reply,
            } => {
                let found = self.resolve(&name, modalities);
                let _ = reply.send(found.map(|(model, _)| self.found(&model, modalities)));
            }
            Command::Unload { reply } => {
                self.unloads.push(reply);
                self.step(Input::Unload);
            }
            Command::Beat { reply } => {
                let _ = reply.send(Ok(()));
            }
            Command::Memory { reply } => self.memory(reply),
            Command::Cache {
                unused,
                clear,
                reply,
            } => {
                self.packed_weights(unused, clear, reply);
            }
            Command::Plan {
                context,
                ram,
                reply,
            } => {
                let (setup, models) = (self.setup.clone(), self.catalog.models.clone());
                let turns = self.cache_turns.clone();
                // The disk may have filled since the cache was looked at last.
                tokio::spawn(async move {
                    setup.cache_space.refresh(&turns, setup.cache()).await;
                    let _ = reply.send(Ok(plan::plan(&setup, &models, context, ram)));
                });
            }
            Command::Store(command) => self.store_command(command),
            Command::Reconfigure(settings) => self.reconfigure(*settings),
            Command::Drain { grace, reply } => {
                self.drains.push(reply);
                self.step(Input::Drain {
                    deadline: Instant::now() + grace,
                });
            }
        }
    }

    fn chat(
        &mut self,
        owner: PrincipalId,
        name: &str,
        request: Box<ChatRequest>,
    ) -> Result<Answer, Failure> {
        let (_, wanted) = self.resolve(name, request.modalities())?;
        let id = self.new_id();
        let (sender, events) = mpsc::channel(EVENTS);
        let (model_sender, model) = watch::channel(wanted.model.clone());
        let (waiting_sender, waiting) = watch::channel(None);
        let mut answer = Answer {
            model,
            events,
            guard: HangUpGuard {
                request: id,
                hang_ups: self.hang_ups.clone(),
            },
            relaxed: vec![],
            waiting,
            upstream: Default::default(),
            tally: None,
        };
        let allowed = allowance(&request, self.setup.limits.output_tokens);
        let pending = Pending::Chat {
            allowed,
            left: allowed,
            owner,
            wanted,
            model: model_sender,
            waiting: waiting_sender,
            request: Some(request),
            events: sender,
            started: false,
            begun: false,
        };
        self.submit(id, owner, Kind::Chat, pending);
        // A refusal lies in the channel already: hand it over as what it is.
        match answer.events.try_recv() {
            Ok(Err(failure)) => Err(failure),
            _ => Ok(answer),
        }
    }

    fn text(&mut self, owner: PrincipalId, name: &str, task: TextTask, reply: Reply<TextAnswer>) {
        let modalities = match &task {
            TextTask::Count(request) => request.modalities(),
            _ => Modalities::default(),
        };
        match self.resolve(name, modalities) {
            Ok((_, wanted)) => {
                let id = self.new_id();
                let pending = Pending::Text {
                    wanted,
                    task,
                    reply,
                };
                self.submit(id, owner, Kind::Text, pending);
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    fn load(&mut self, owner: PrincipalId, name: &str, reply: Reply<ModelInfo>) {
        match self.resolve(name, Modalities::default()) {
            Ok((model, wanted)) => {
                let id = self.new_id();
                let pending = Pending::Load {
                    wanted,
                    model: Box::new(model),
                    reply,
                };
                self.submit(id, owner, Kind::Load, pending);
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// `unused`: only those that no installed model has.
    fn packed_weights(&self, unused: bool, clear: bool, reply: Reply<CacheReport>) {
        let ids = || self.catalog.models.iter().map(|model| model.id.clone());
        let scope = match unused {
            true => CacheScope::OfOthers(ids().collect()),
            false => CacheScope::All,
        };
        let (cache, in_use) = (self.setup.cache(), self.packed_in_use());
        self.cache_turns.report(cache, in_use, scope, clear, reply);
    }

    fn memory(&mut self, reply: Reply<Option<WorkerMemory>>) {
        match (&mut self.worker, self.state.life()) {
            (Some(worker), Life::Ready(_)) => worker.reporter.ask(reply, &worker.child),
            _ => {
                let _ = reply.send(Ok(None));
            }
        }
    }

    fn reconfigure(&mut self, settings: Settings) {
        let Settings {
            models,
            inference,
            memory,
            limits,
            installers,
            pull: _,
        } = settings;
        self.setup.catalogs = offers::read(&models);
        self.setup.models = models;
        self.setup.inference = inference;
        if self.setup.memory.cache_directory != memory.cache_directory {
            self.setup.cache_space.set(None);
        }
        self.setup.prompts.set_limit(memory.prompt_cache_size);
        self.setup.memory = memory;
        self.setup.limits = limits;
        self.setup.installers = installers;
        self.state.configure(self.setup.state_settings());
        let directories = &self.setup.models.directories;
        self.catalog
            .set_directories(directories.clone(), self.setup.installers.clone());
        let rejected = rejected(&self.setup.catalogs, &self.catalog.rejected);
        self.status.send_modify(|status| {
            status.directories.clone_from(directories);
            status.rejected = rejected;
            status.default = self.setup.default_model(&self.catalog.models);
        });
    }

    /// The name of the file that the worker's packed weights are in.
    fn packed_in_use(&self) -> Option<String> {
        let worker = self.worker.as_ref()?;
        let in_file = matches!(
            worker.loaded.as_ref()?.packing,
            Packing::Reused | Packing::New { .. }
        );
        let packed = worker.packed.as_ref().filter(|_| in_file);
        packed.map(|place| place.name().as_str().to_owned())
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Puts a job in the queue.
    fn submit(&mut self, id: u64, owner: PrincipalId, kind: Kind, pending: Pending) {
        let ModelRequest {
            model, flexible, ..
        } = pending.wanted().clone();
        let tier = pending.tier();
        self.pending.insert(id, pending);
        self.step(Input::Submit {
            id,
            owner,
            model,
            flexible,
            tier,
            kind,
        });
    }

    /// The command, unless it is kept because it names an unknown model and the model
    /// directories are scanned first.
    fn resolvable(&mut self, command: Command) -> Option<Command> {
        let name = match &command {
            Command::Chat { model, .. }
            | Command::Text { model, .. }
            | Command::Load { model, .. }
            | Command::Find { name: model, .. } => Some(model.as_str()),
            Command::Store(command) => command.model(),
            _ => None,
        };
        let Some(name) = name else {
            return Some(command);
        };
        match self.resolve(name, Modalities::default()) {
            Err(Failure::UnknownModel { .. } | Failure::NoModels { .. })
                if self.catalog.may_have_more() =>
            {
                self.unresolved.push(command);
                None
            }
            _ => Some(command),
        }
    }

    /// The model directories may have been scanned.
    pub(super) fn scanned(&mut self) {
        let models = describe_all(&self.catalog.models);
        let rejected = rejected(&self.setup.catalogs, &self.catalog.rejected);
        self.status.send_if_modified(|status| {
            let changed = status.models != models || status.rejected != rejected;
            status.models = models;
            status.rejected = rejected;
            status.default = self.setup.default_model(&self.catalog.models);
            changed
        });
        self.end_outdated();
        if !self.catalog.is_scanning() && !self.unresolved.is_empty() {
            self.publish();
            for command in std::mem::take(&mut self.unresolved) {
                self.command(command);
            }
        }
    }

    /// Ends the worker once it is idle if its model's file was replaced, changed or taken away: it
    /// would answer under the new file's name, and keep the old one's memory and disk.
    fn end_outdated(&mut self) {
        let Some(worker) = self.worker.as_mut().filter(|worker| !worker.is_outdated) else {
            return;
        };
        let models = &self.catalog.models;
        let now = models.iter().find(|model| model.id == worker.model.id);
        if now.map(Model::identity) == Some(worker.model.identity()) {
            return;
        }
        // Of a directory that is not looked into any more nothing is known: what is loaded stays.
        let directories = &self.setup.models.directories;
        let is_looked_for = |path: &Path| directories.iter().any(|one| path.starts_with(one));
        if now.is_none() && !is_looked_for(worker.model.path()) {
            return;
        }
        worker.is_outdated = true;
        let what = match now {
            Some(_) => "was replaced or changed",
            None => "is gone",
        };
        tracing::info!(
            model = worker.model.id,
            "the model's file {what}: the worker ends once it is idle"
        );
        self.step(Input::Unload);
    }

    /// What a request could have of this model: as it is loaded, or as it would be.
    fn found(&self, model: &Model, modalities: Modalities) -> Found {
        let worker = self.worker.as_ref();
        let loaded = worker.filter(|worker| worker.model.id == model.id);
        let growth = loaded.map(|worker| worker.growth).or_else(|| {
            let placement = self.setup.fit(model, &[], 0, modalities).ok()?;
            Some(placement.growth)
        });
        let usual = picture::USUAL_BUDGET;
        Found {
            model: describe(model),
            context: growth.map_or(model.context_limit, |growth| growth.reach),
            // The larger variants read a picture in one step.
            picture: match growth {
                _ if model.variant.is_small() => picture::largest_budget(Detail::High),
                Some(growth) => growth.step.max(usual),
                None => usual,
            },
        }
    }

    pub(super) fn resolve(
        &self,
        name: &str,
        modalities: Modalities,
    ) -> Result<(Model, ModelRequest), Failure> {
        let loaded = match self.state.life() {
            Life::Starting(model) | Life::Ready(model) => Some(model),
            _ => None,
        };
        let models = &self.catalog.models;
        let explain = |failure| {
            let passed_over = describe_rejected(&self.catalog.rejected);
            let hint = |name: &str| offers::hint(&self.setup.catalogs.offers(), name);
            let directories = &self.setup.models.directories;
            names::explain(failure, name, directories, &passed_over, hint)
        };
        let model = self
            .setup
            .resolve(models, loaded, name, modalities)
            .map_err(explain)
            .and_then(|model| choice::check(model, modalities))?;
        let request = self.setup.model_request(models, name, modalities, &model);
        Ok((model, request))
    }
}
