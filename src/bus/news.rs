//! What is told to the bus when it changes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use zbus::Connection;
use zbus::object_server::InterfaceRef;

use super::PATH;
use super::manager::Manager;
use crate::engine::{Phase, Status};

/// Changes within this time become one signal.
const PAUSE: Duration = Duration::from_millis(100);

/// The properties that change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub state: &'static str,
    pub model: String,
    pub variant: String,
    pub context: u32,
    pub pressure: &'static str,
    pub waiting: u32,
    pub tokens_per_second: f64,
}

impl Seen {
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

/// Tells the bus what has changed, until the engine or the bus is gone.
pub async fn tell(connection: Connection, mut changes: watch::Receiver<Status>) {
    let mut seen = Seen::of(&changes.borrow_and_update());
    while changes.changed().await.is_ok() {
        let now = Seen::of(&changes.borrow_and_update());
        if now != seen && tell_changes(&connection, &seen, &now).await.is_err() {
            return;
        }
        seen = now;
        sleep(PAUSE).await;
    }
}

async fn tell_changes(connection: &Connection, seen: &Seen, now: &Seen) -> zbus::Result<()> {
    let manager: InterfaceRef<Manager> = connection.object_server().interface(PATH).await?;
    let (here, to) = (manager.get().await, manager.signal_emitter());
    if seen.state != now.state {
        here.state_changed(to).await?;
        here.memory_used_invalidate(to).await?;
        here.memory_budget_invalidate(to).await?;
    }
    if seen.model != now.model {
        here.model_changed(to).await?;
    }
    if seen.variant != now.variant {
        here.variant_changed(to).await?;
    }
    if seen.context != now.context {
        here.context_changed(to).await?;
    }
    if seen.pressure != now.pressure {
        here.pressure_changed(to).await?;
    }
    if seen.waiting != now.waiting {
        here.queue_length_changed(to).await?;
    }
    if seen.tokens_per_second != now.tokens_per_second {
        here.tokens_per_second_changed(to).await?;
    }
    Ok(())
}
