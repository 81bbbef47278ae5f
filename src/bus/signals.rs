//! `PropertiesChanged`: the signals of the manager's properties.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use zbus::Connection;
use zbus::object_server::InterfaceRef;

use super::PATH;
use super::manager::Manager;
use super::properties::Properties;
use crate::backend::Status;

/// Changes within this time become one signal.
const PAUSE: Duration = Duration::from_millis(100);

/// Emits a signal for each property that has changed, until the engine or the bus is gone.
pub async fn emit(connection: Connection, mut changes: watch::Receiver<Status>) {
    let mut before = Properties::of(&changes.borrow_and_update());
    while changes.changed().await.is_ok() {
        let now = Properties::of(&changes.borrow_and_update());
        if now != before && emit_changes(&connection, &before, &now).await.is_err() {
            return;
        }
        before = now;
        sleep(PAUSE).await;
    }
}

async fn emit_changes(
    connection: &Connection,
    before: &Properties,
    now: &Properties,
) -> zbus::Result<()> {
    let manager: InterfaceRef<Manager> = connection.object_server().interface(PATH).await?;
    let (here, to) = (manager.get().await, manager.signal_emitter());
    if before.state != now.state {
        here.state_changed(to).await?;
        here.memory_used_invalidate(to).await?;
        here.memory_budget_invalidate(to).await?;
    }
    if before.model != now.model {
        here.model_changed(to).await?;
    }
    if before.variant != now.variant {
        here.variant_changed(to).await?;
    }
    if before.context != now.context {
        here.context_changed(to).await?;
    }
    if before.pressure != now.pressure {
        here.pressure_changed(to).await?;
    }
    if before.waiting != now.waiting {
        here.queue_length_changed(to).await?;
    }
    if before.tokens_per_second != now.tokens_per_second {
        here.tokens_per_second_changed(to).await?;
    }
    Ok(())
}
