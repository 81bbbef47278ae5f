//! Publishes the engine's status whenever something of it has changed.

use std::time::Duration;

use super::super::state::Life;
use super::Driver;
use crate::backend::Phase;
use crate::ipc::TemplateSource;

impl Driver {
    fn phase(&self) -> Phase {
        let loaded = self.worker.as_ref().and_then(|worker| {
            let loaded = worker.loaded.as_ref()?;
            Some((loaded, worker))
        });
        match (self.state.life(), loaded) {
            (Life::None, _) => Phase::Cold,
            (Life::Ready(model), Some((loaded, worker))) => Phase::Ready {
                model: model.into(),
                context: loaded.context.min(worker.growth.reach),
                floor: loaded.floor,
                granted: worker.granted,
                slots: loaded.slots,
                threads: loaded.threads,
                pid: worker.child.pid,
                load_time: Duration::from_micros(loaded.load_us),
                template: template_note(&loaded.template),
                cpu_variant: loaded.cpu_variant.clone(),
            },
            (Life::Starting(model) | Life::Ready(model), _) => Phase::Loading {
                model: model.into(),
            },
            (Life::Ending(model), _) => Phase::Unloading {
                model: model.into(),
            },
            (Life::BackingOff { cause, until }, _) => Phase::BackingOff {
                cause: cause.into(),
                until,
            },
            (Life::Draining, _) => Phase::Draining,
        }
    }

    /// Publishes the status, unless it is as it was.
    pub(super) fn publish(&mut self) {
        let phase = self.phase();
        let (waiting, running) = (self.state.waiting() as u32, self.state.running() as u32);
        let (queue, unload_at) = (self.state.waiting_users(), self.state.unload_at());
        self.status.send_if_modified(|status| {
            let is_unchanged = status.phase == phase
                && status.waiting == waiting
                && status.queue == queue
                && status.running == running
                && status.served == self.served
                && status.crashes == self.crashes
                && status.unload_at == unload_at
                && status.memory == *self.memory_guard.state();
            if is_unchanged {
                return false;
            }
            status.phase = phase;
            status.waiting = waiting;
            status.queue = queue;
            status.running = running;
            status.served = self.served;
            status.crashes = self.crashes;
            status.unload_at = unload_at;
            // They change with `served` only.
            status.tokens_per_second = self.tokens_per_second;
            status.drafted = self.drafted;
            status.memory.clone_from(self.memory_guard.state());
            status.default = self.setup.default_model(&self.catalog.models);
            true
        });
    }
}

/// What an administrator should know about the chat template in use, if anything.
pub(super) fn template_note(source: &TemplateSource) -> Option<String> {
    match source {
        TemplateSource::Embedded => None,
        TemplateSource::Missing => Some("the file has none; the family's is used".into()),
        TemplateSource::Replaced { why } => Some(format!(
            "the file's is not used, because {why}; the family's is"
        )),
    }
}
