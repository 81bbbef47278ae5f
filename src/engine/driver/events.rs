//! The events of a worker, and what the driver does about each.

use super::super::EVENTS;
use super::super::child::WorkerEvent;
use super::super::launch::PackedPlace;
use super::super::pending::{Pending, event_bytes};
use super::super::state::{Generation, Input, Life};
use super::Driver;
use super::publish::template_note;
use crate::backend::{Failure, WorkerMemory};
use crate::chat::ChatEvent;
use crate::ipc::{self, LoadedModel, MemorySnapshot, Packing, ServeEvent};

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
            ServeEvent::Loaded(loaded) => self.loaded(generation, loaded),
            ServeEvent::LoadFailed {
                reason,
                out_of_memory,
            } => {
                tracing::error!(reason, out_of_memory, "the model cannot be loaded");
                self.load_failed(generation, reason, out_of_memory);
            }
            ServeEvent::Packed => {
                let turns = self.cache_turns.clone();
                if let Some(packed) = self.packed() {
                    packed.publish(&turns);
                }
            }
            ServeEvent::PackedCorrupt { reason } => {
                tracing::error!(reason, "the file of packed weights is discarded");
                let turns = self.cache_turns.clone();
                if let Some(packed) = self.packed() {
                    packed.discard(&turns);
                }
            }
            ServeEvent::Memory(picture) => self.pictured(picture),
            ServeEvent::Beat { steps, computing } => self.step(Input::Beat {
                generation,
                steps,
                computing,
            }),
            ServeEvent::Trimmed { before, after } => {
                tracing::info!(
                    before_mib = before >> 20,
                    after_mib = after >> 20,
                    "memory: the worker gave back what it could"
                );
            }
            ServeEvent::Event { id, event } => self.chat_event(generation, id, event),
            ServeEvent::Text { id, answer } => {
                if let Some(Pending::Text { reply, .. }) = self.pending.remove(&id) {
                    self.served += 1;
                    // The client may be gone.
                    let _ = reply.send(Ok(answer));
                    self.step(Input::Ended { id });
                }
            }
            ServeEvent::Failed { id, error } => {
                if self.pending.contains_key(&id) {
                    self.fail(id, Failure::Chat(error));
                    self.step(Input::Ended { id });
                }
            }
        }
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
        tracing::info!(load_ms = loaded.load_us / 1000, "the model is loaded");
        if let Some(note) = template_note(&loaded.template) {
            tracing::warn!("the model's chat template: {note}");
        }
        match &loaded.packing {
            Packing::New { instead: Some(why) } => {
                tracing::info!("the weights were packed anew: the file that had them {why}")
            }
            Packing::InMemory { why } => {
                tracing::warn!(why, "packed weights stay in memory")
            }
            Packing::Left { why } => {
                tracing::warn!(
                    why,
                    "the weights are not packed, so that they can be evicted: reading prompts is slower"
                )
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
        if let Some(mut worker) = self.worker.take() {
            worker.reporter.answer(None);
        }
        if !matches!(self.state.life(), Life::Ending(_) | Life::Draining) {
            self.crashes += 1;
            tracing::error!(cause, out_of_memory, "the worker died");
        }
        self.step(Input::Exited {
            generation,
            cause,
            out_of_memory,
        });
    }

    fn packed(&mut self) -> Option<&mut PackedPlace> {
        self.worker.as_mut()?.packed.as_mut()
    }

    /// Passes an event on to its client.
    fn chat_event(&mut self, generation: Generation, id: u64, event: ChatEvent) {
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
        let begins = !matches!(event, ChatEvent::Started { .. }) && !std::mem::replace(begun, true);
        // What the client shows nobody before the end can start over, until its end is handed over.
        let shown = !request.as_ref().is_some_and(|request| request.whole);
        if begins && shown {
            *request = None;
        }
        let done = matches!(event, ChatEvent::Done(_));
        if let ChatEvent::Done(done) = &event {
            self.tokens_per_second = done.tokens_per_second().unwrap_or(self.tokens_per_second);
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
            Failure::OutOfMemory { cause: reason }
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
