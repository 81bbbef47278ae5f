//! How a worker comes to be: its model is held against the memory that is free, its files are opened
//! on other threads, and then the process is started.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::super::child::{self, WorkerEvent};
use super::super::choice::Placement;
use super::super::launch::{Launch, ModelFiles};
use super::super::report::Reporter;
use super::super::state::{Generation, Input};
use super::{Driver, OpenedFiles, RunningWorker, Start};
use crate::backend::Failure;
use crate::chat::Modalities;
use crate::gemma::model_shape::PackedWeights;
use crate::ipc::ServeRequest;
use crate::store::{BadFile, Model};
use crate::sys::shortage::is_shortage;

/// A worker for which the system has no descriptor or process is tried again so often, with these
/// pauses: that is no fault of its model's.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

impl Driver {
    /// Returns for whom this worker is none.
    pub(super) fn spawn(
        &mut self,
        generation: Generation,
        model: &str,
        downsized: u32,
    ) -> Vec<Input> {
        // What goes wrong here reaches the state through the same door as what goes wrong later, so
        // that the state alone decides what follows.
        let Some(info) = self.catalog.models.iter().find(|m| m.id == model).cloned() else {
            let failure = Failure::BadModel {
                model: model.to_owned(),
                reason: "it is no longer installed".into(),
            };
            self.not_spawned(generation, Some(failure));
            return vec![];
        };
        let (run, mut inputs) = match self.fit(&info, downsized) {
            Ok(fits) => fits,
            Err(failure) => {
                self.not_spawned(generation, Some(failure));
                return vec![];
            }
        };
        inputs.push(Input::Opening {
            generation,
            file: info.path().display().to_string(),
        });
        self.open(info.clone(), Duration::ZERO);
        self.starting = Some(Start {
            generation,
            model: info,
            run,
            downsized,
            shortages: 0,
        });
        inputs
    }

    /// Has a model's files opened after a pause, unless that is being done already.
    fn open(&mut self, model: Model, pause: Duration) {
        let id = model.id.clone();
        if !self.opening.insert(id.clone()) {
            return;
        }
        let (setup, turns) = (self.setup.clone(), self.cache_turns.clone());
        let disk = self.disk.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let files = ModelFiles::open(model, setup, turns).await;
            // Without a driver no worker is started.
            let _ = disk.send(OpenedFiles { model: id, files });
        });
    }

    /// Starts the worker that waits for these files, if one still does.
    pub(super) fn opened(&mut self, OpenedFiles { model, files }: OpenedFiles) {
        self.opening.remove(&model);
        let waiting = self.starting.as_ref();
        let waiting = waiting
            .filter(|start| start.model.id == model)
            .map(|start| start.generation);
        // This may start another worker, and may give up this one.
        self.step(Input::Opened { model });
        let wanted = self.state.starting_generation();
        let start = self
            .starting
            .take_if(|start| Some(start.generation) == wanted && Some(start.generation) == waiting);
        let Some(start) = start else { return };
        match files {
            Ok(files) => self.place_and_start(start, files),
            Err(BadFile::Unreadable(error)) if is_passing(&error, start.shortages) => {
                self.try_again(start, &error);
            }
            Err(BadFile::Unreadable(error)) if is_shortage(&error) => {
                self.not_spawned(start.generation, Some(nothing_left(&error)));
            }
            Err(bad) => {
                let failure = Failure::BadModel {
                    model: start.model.id,
                    reason: bad.to_string(),
                };
                self.not_spawned(start.generation, Some(failure));
            }
        }
    }

    /// The system has nothing left for a worker now.
    fn try_again(&mut self, start: Start, error: &io::Error) {
        tracing::warn!(model = start.model.id, %error, "no worker can be started now; trying again");
        self.open(start.model.clone(), PAUSE);
        self.starting = Some(Start {
            shortages: start.shortages + 1,
            ..start
        });
    }

    /// Starts the worker, after another look at the memory if the file is not there that was to have
    /// its packed weights.
    fn place_and_start(&mut self, mut start: Start, files: ModelFiles) {
        if start.run.packed == PackedWeights::InFile && !files.has_packed_file() {
            match self.fit(&start.model, start.downsized) {
                Ok((run, inputs)) => {
                    start.run = run;
                    inputs.into_iter().for_each(|input| self.step(input));
                }
                Err(failure) => return self.not_spawned(start.generation, Some(failure)),
            }
        }
        self.start(start, files);
    }

    fn start(&mut self, start: Start, files: ModelFiles) {
        let Launch {
            plan,
            files,
            packed,
        } = Launch::new(&self.setup, &start.model, &start.run, files);
        let files: Vec<&File> = files.iter().collect();
        tracing::info!(model = start.model.id, file = %start.model.path().display(), context = plan.context, slots = plan.slots, downsized = start.downsized, cpus = ?plan.cpus, "starting a worker");
        self.memory_guard.started();
        match child::spawn(
            &self.setup.worker,
            start.generation,
            &ServeRequest::Load(Box::new(plan)),
            &files,
            self.worker_events.clone(),
        ) {
            Ok(child) => {
                self.worker = Some(RunningWorker {
                    model: start.model,
                    is_outdated: false,
                    child,
                    loaded: None,
                    packed,
                    reporter: Reporter::default(),
                    growth: start.run.growth,
                    granted: start.run.growth.at_first(),
                });
            }
            Err(error) if is_passing(&error, start.shortages) => self.try_again(start, &error),
            Err(error) if is_shortage(&error) => {
                self.not_spawned(start.generation, Some(nothing_left(&error)));
            }
            Err(error) => {
                tracing::error!(worker = %self.setup.worker.display(), %error, "the worker cannot be started");
                let worker = self.setup.worker.display();
                let cause = format!("{worker} cannot be started: {error}");
                self.never_was(start.generation, None, cause);
            }
        }
    }

    /// How a model is run for those that wait for it. Where there is no room for its projector it
    /// is run for those that can do without, and refused to the others.
    pub(super) fn fit(
        &self,
        model: &Model,
        downsized: u32,
    ) -> Result<(Placement, Vec<Input>), Failure> {
        let waiting = || {
            self.pending
                .iter()
                .filter(|(_, pending)| pending.wanted().model == model.id)
        };
        let modalities = waiting().fold(Modalities::default(), |all, (_, pending)| {
            all.with(pending.wanted().modalities)
        });
        let fit = |modalities| {
            self.setup
                .fit(model, &self.catalog.models, downsized, modalities)
        };
        fit(modalities).map(|run| (run, vec![])).or_else(|failure| {
            let (needy, others): (Vec<_>, Vec<_>) =
                waiting().partition(|(_, pending)| pending.wanted().modalities.any());
            if needy.is_empty() || others.is_empty() {
                return Err(failure);
            }
            let refused = needy
                .iter()
                .map(|(id, _)| Input::Refused {
                    id: **id,
                    failure: failure.clone(),
                })
                .collect();
            fit(Modalities::default()).map(|run| (run, refused))
        })
    }

    /// A worker that never was: reported like one that came to its end.
    pub(super) fn not_spawned(&mut self, generation: Generation, failure: Option<Failure>) {
        self.never_was(generation, failure, "it was not started".to_owned());
    }

    fn never_was(&mut self, generation: Generation, failure: Option<Failure>, cause: String) {
        let worker_events = self.worker_events.clone();
        // Not at once: the step that asked for the worker is still being performed.
        tokio::spawn(async move {
            if let Some(failure) = failure {
                let _ = worker_events
                    .send((generation, WorkerEvent::NotStarted(failure)))
                    .await;
            }
            let _ = worker_events
                .send((
                    generation,
                    WorkerEvent::Exited {
                        cause,
                        killed_externally: false,
                    },
                ))
                .await;
        });
    }
}

/// The system has had nothing left for a worker for so long that it is said.
fn nothing_left(error: &io::Error) -> Failure {
    Failure::NotNow {
        what: "the model cannot be loaded",
        cause: error.to_string(),
    }
}

/// Whether it may be tried again after so many tries.
fn is_passing(error: &io::Error, tries: u32) -> bool {
    tries < TRIES && is_shortage(error)
}
