//! The events of a worker, and what the driver does about each.

use super::super::EVENTS;
use super::super::child::WorkerEvent;
use super::super::launch::PackedPlace;
use super::super::pending::{Pending, event_bytes};
use super::super::state::{Generation, Input, Life};
use super::Driver;
use super::publish::template_note;
use crate::backend::{Failure, Level, WorkerMemory};
use crate::chat::{ChatError, ChatEvent};
use crate::config::one_line;
use crate::ipc::{
    self, ContextUse, LoadedModel, MemorySnapshot, Packing, ServeEvent, ServeRequest,
};

impl Driver {
    pub(super) fn worker_event(&mut self, generation: Generation, event: WorkerEvent<ServeEvent>) {
        match event {
            WorkerEvent::Message(event) => self.message(generation, event),
            WorkerEvent::OtherVersion(version) => self.other_version(generation, version),
            WorkerEvent::NotStarted(failure) => {
                tracing::error!(reason = %failure, "no worker is started");
                self.step(Input::LoadFailed {
                    generation,
                    failure,
                    out_of_memory: false,
                });
            }
            WorkerEvent::Exited {
                cause,
                killed_externally,
            } => self.exited(generation, cause, killed_externally),
        }
    }

    fn message(&mut self, generation: Generation, event: ServeEvent) {
        match event {
            ServeEvent::Loading { share } => self.loading(generation, share),
            ServeEvent::Loaded(loaded) => self.loaded(generation, loaded),
            ServeEvent::LoadFailed {
                reason,
                out_of_memory,
            } => {
                let model = self.model_of_worker();
                tracing::error!(model, reason, out_of_memory, "the model cannot be loaded");
                self.load_failed(generation, reason, out_of_memory);
            }
            ServeEvent::Packed => {
                let turns = self.cache_turns.clone();
                if let Some(packed) = self.packed() {
                    packed.publish(&turns);
                }
            }
            ServeEvent::PackedCorrupt { reason } => {
                let model = self.model_of_worker();
                tracing::error!(model, reason, "the file of packed weights is discarded");
                let turns = self.cache_turns.clone();
                if let Some(packed) = self.packed() {
                    packed.discard(&turns);
                }
            }
            ServeEvent::Memory(picture) => self.pictured(picture),
            ServeEvent::Beat { decoder, encoder } => self.step(Input::Beat {
                generation,
                decoder,
                encoder,
            }),
            ServeEvent::Trimmed { before, after } => {
                tracing::info!(
                    before_mib = before >> 20,
                    after_mib = after >> 20,
                    "memory: the worker gave back what it could"
                );
            }
            ServeEvent::Context(usage) => self.context(usage),
            ServeEvent::Reading { id, reading } => self.reading(id, reading),
            ServeEvent::Event { id, event } => self.chat_event(generation, id, event),
            ServeEvent::Text { id, answer } => {
                if let Some(Pending::Text { reply, .. }) = self.pending.remove(&id) {
                    self.served += 1;
                    // The client may be gone.
                    let _ = reply.send(Ok(answer));
                    self.step(Input::Ended { id });
                }
            }
            ServeEvent::Failed { id, error } => self.failed(id, error),
        }
    }

    /// The worker lives, and cannot answer a request.
    fn failed(&mut self, id: u64, error: ChatError) {
        let is_chat = matches!(self.pending.get(&id), Some(Pending::Chat { .. }));
        match error {
            ChatError::Unsound => self.unsound(id),
            // Another model may have more context, for those who left the choice to us.
            ChatError::PromptTooLong { .. } if is_chat => self.step(Input::Unfit {
                id,
                failure: Failure::Chat(error),
                of_model: false,
            }),
            _ if self.pending.contains_key(&id) => {
                self.fail(id, Failure::Chat(error));
                self.step(Input::Ended { id });
            }
            _ => {}
        }
    }

    /// The worker's slots want to hold more than they may, or no longer do.
    fn context(&mut self, usage: ContextUse) {
        // What is short goes to nobody.
        let budget = match self.memory_guard.state().level {
            Level::Calm => self.setup.budget().bytes,
            _ => 0,
        };
        let Some(worker) = &mut self.worker else {
            return;
        };
        let granted = worker
            .granted
            .min(usage.granted)
            .max(worker.growth.at_first());
        let usage = ContextUse { granted, ..usage };
        worker.granted = granted;
        if usage.wanted <= granted {
            return;
        }
        let tokens = worker.growth.grant(usage, budget);
        worker.granted = tokens;
        let model = &worker.model.id;
        tracing::info!(
            model,
            wanted = usage.wanted,
            granted = tokens,
            "the context grows as far as memory allows"
        );
        self.tell(ServeRequest::GrantContext { tokens });
    }

    /// The output of a request's model is not a number. Unless it is by a picture or a sound, whose
    /// projector may be at fault, or by something in the request, because the model has answered others,
    /// every request will be told the same.
    fn unsound(&mut self, id: u64) {
        let (Some(worker), Some(pending)) = (&self.worker, self.pending.get(&id)) else {
            return;
        };
        let model = worker.model.id.clone();
        let of_model = !pending.wanted().modalities.any() && !self.state.has_answered(&model);
        tracing::error!(
            model,
            request = id,
            "the model's output is not a number; its file is probably damaged"
        );
        if of_model {
            self.setup.unsound.add(&worker.model);
            let default = self.setup.default_model(&self.catalog.models);
            self.status.send_modify(|status| status.default = default);
        }
        self.step(Input::Unfit {
            id,
            failure: Failure::Unsound { model },
            of_model,
        });
    }

    fn other_version(&mut self, generation: Generation, version: u32) {
        let reason = format!(
            "gemmad-worker speaks version {version} and gemmad version {}: install both from one release",
            ipc::VERSION
        );
        self.load_failed(generation, reason, false);
        self.with_child(generation, |child| child.kill());
    }

    fn loaded(&mut self, generation: Generation, loaded: LoadedModel) {
        let model = self.model_of_worker();
        let variant = loaded.cpu_variant.as_deref().map(one_line);
        tracing::info!(
            model,
            load_ms = loaded.load_us / 1000,
            cpu_variant = variant.as_deref(),
            "the model is loaded"
        );
        if let Some(note) = template_note(&loaded.template) {
            let note = one_line(&note);
            tracing::warn!(model, "the model's chat template: {note}");
        }
        match &loaded.packing {
            Packing::New { instead: Some(why) } => {
                tracing::info!(model, why, "the weights were packed anew");
            }
            Packing::InMemory { why } => {
                tracing::warn!(model, why, "packed weights stay in memory");
            }
            Packing::Left { why } => {
                tracing::warn!(
                    model,
                    why,
                    "the weights are not packed, so that they can be evicted: reading prompts is slower"
                );
            }
            Packing::New { instead: None } | Packing::Reused | Packing::Nothing => {}
        }
        let slots = loaded.slots;
        if let Some(worker) = &mut self.worker {
            let is_kept = matches!(loaded.packing, Packing::New { .. });
            if let Some(packed) = worker.packed.as_mut().filter(|_| !is_kept) {
                packed.close_empty();
            }
            worker.loaded = Some(loaded);
        }
        self.memory_guard.loaded();
        if let Some(model) = self.model_of_worker().map(str::to_owned) {
            self.loaded_by_now(&model);
        }
        self.step(Input::Loaded { generation, slots });
    }

    fn pictured(&mut self, picture: MemorySnapshot) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        let memory = match (self.state.life(), &worker.loaded) {
            (Life::Ready(model), Some(loaded)) => Some(WorkerMemory {
                model: model.into(),
                pid: worker.child.pid,
                packing: loaded.packing.clone(),
                picture,
            }),
            _ => None,
        };
        worker.reporter.answer(memory);
    }

    fn exited(&mut self, generation: Generation, cause: String, killed_externally: bool) {
        let out_of_memory = self.memory_guard.exited(killed_externally);
        let worker = self.worker.take();
        let model = worker.map(|mut worker| {
            worker.reporter.answer(None);
            worker.model.id
        });
        if !matches!(self.state.life(), Life::Ending(_) | Life::Draining) {
            self.crashes += 1;
            tracing::error!(model, cause, out_of_memory, "the worker died");
        }
        self.step(Input::Exited {
            generation,
            cause,
            out_of_memory,
        });
    }

    /// For the log.
    fn model_of_worker(&self) -> Option<&str> {
        let worker = self.worker.as_ref()?;
        Some(worker.model.id.as_str())
    }

    fn packed(&mut self) -> Option<&mut PackedPlace> {
        self.worker.as_mut()?.packed.as_mut()
    }

    /// Passes an event on to its client.
    fn chat_event(&mut self, generation: Generation, id: u64, event: ChatEvent) {
        if matches!(event, ChatEvent::Started { .. }) {
            self.was_read(id);
        }
        let Some(Pending::Chat {
            request,
            events,
            started,
            begun,
            left,
            ..
        }) = self.pending.get_mut(&id)
        else {
            return;
        };
        if matches!(event, ChatEvent::Restarted) {
            // Not the worker's to say.
            return;
        }
        let Some(rest) = left.checked_sub(event_bytes(&event)) else {
            tracing::error!(
                request = id,
                "the worker sends more than the request allows"
            );
            return self.with_child(generation, |child| child.kill());
        };
        *left = rest;
        if matches!(event, ChatEvent::Started { .. }) && std::mem::replace(started, true) {
            // A retried request starts twice; its client need not know.
            return;
        }
        let says_nothing = matches!(
            event,
            ChatEvent::Accepted { .. } | ChatEvent::Started { .. }
        );
        let begins = !says_nothing && !std::mem::replace(begun, true);
        // What the client shows nobody before the end can start over, until its end is handed over.
        let shown = !request.as_ref().is_some_and(|request| request.whole);
        if begins && shown {
            *request = None;
        }
        let done = matches!(event, ChatEvent::Done(_));
        if let ChatEvent::Done(done) = &event {
            self.tokens_per_second = done.tokens_per_second().unwrap_or(self.tokens_per_second);
            self.drafted += done.usage.drafted;
        }
        if events.is_closed() {
            return self.hang_up(id);
        }
        if events.try_send(Ok(event)).is_err() {
            tracing::info!(request = id, "the client does not read its answer");
            self.fail(id, Failure::ClientStalled { unread: EVENTS });
            return self.step(Input::HangUp { id });
        }
        if begins {
            self.step(Input::Begun { id, shown });
        }
        if done {
            self.served += 1;
            self.pending.remove(&id);
            self.step(Input::Ended { id });
        }
    }

    fn load_failed(&mut self, generation: Generation, reason: String, out_of_memory: bool) {
        let Life::Starting(model) = self.state.life() else {
            return;
        };
        let failure = if out_of_memory {
            let cause = format!("model `{model}`: {reason}");
            Failure::OutOfMemory { cause }
        } else {
            Failure::BadModel {
                model: model.to_owned(),
                reason,
            }
        };
        self.step(Input::LoadFailed {
            generation,
            failure,
            out_of_memory,
        });
    }
}
