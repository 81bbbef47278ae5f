//! The manager's properties as they follow from the engine's status.

use crate::backend::{Phase, Status};

/// The properties that change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub state: &'static str,
    pub model: String,
    pub variant: String,
    pub context: u32,
    pub pressure: &'static str,
    pub waiting: u32,
    pub tokens_per_second: f64,
}

impl Properties {
    pub fn of(status: &Status) -> Self {
        let state = status.phase.id();
        let (model, context) = match &status.phase {
            Phase::Ready { model, context, .. } => (Some(model), *context),
            Phase::Loading { model } | Phase::Unloading { model } => (Some(model), 0),
            Phase::Cold | Phase::BackingOff { .. } | Phase::Draining => (None, 0),
        };
        let model = model.cloned().unwrap_or_default();
        let variant = status
            .models
            .iter()
            .find(|info| info.id == model)
            .map_or("", |info| info.variant.id())
            .to_owned();
        let (pressure, tokens_per_second) = (status.memory.level.id(), status.tokens_per_second);
        Self {
            state,
            model,
            variant,
            context,
            pressure,
            waiting: status.waiting,
            tokens_per_second,
        }
    }
}
