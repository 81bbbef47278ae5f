//! Notifications to systemd (sd_notify(3)): readiness, status text, watchdog. Without systemd none
//! is sent.

use std::env;
use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::backend::{Backend, LocalBackend, Phase, Status};
use crate::config::one_line;
use crate::engine::Engine;

/// How much more time is asked for at once while something takes long, and how often.
const EXTENSION: Duration = Duration::from_secs(20);
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// The memory in the status text is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Changes within this time become one status text.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells systemd, if it is there.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// Tells of the beginning of a reload (`Type=notify-reload` wants to know when).
pub fn reloading() {
    let begun = NotifyState::monotonic_usec_now();
    notify(
        &[
            &[NotifyState::Reloading][..],
            &begun.into_iter().collect::<Vec<_>>(),
        ]
        .concat(),
    );
}

/// Waits for `work`, and asks for more time to start or stop for as long as it takes.
pub async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut beat = interval(EXTEND_EVERY);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = beat.tick() => notify(&[NotifyState::ExtendTimeoutUsec(EXTENSION.as_micros() as u32)]),
        }
    }
}

/// Keeps systemd informed, if it wants to be: the status text, and the watchdog for as long as the
/// engine lives.
pub fn attend(engine: &Engine) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tokio::spawn(tell_status(engine.clone(), engine.changes()));
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(feed_watchdog(engine.clone(), limit / 2, || {
            notify(&[NotifyState::Watchdog])
        }));
    }
}

/// The engine's own task must answer before each feeding: a daemon that accepts connections and
/// cannot serve them is started again.
async fn feed_watchdog(engine: Engine, every: Duration, feed: impl Fn()) {
    let mut beat = interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        if engine.beat().await.is_err() {
            // It has ended, because the daemon is leaving.
            return;
        }
        feed();
    }
}

async fn tell_status(engine: Engine, mut changes: watch::Receiver<Status>) {
    loop {
        let status = changes.borrow_and_update().clone();
        let bytes = match status.phase {
            Phase::Ready { .. } => engine
                .memory()
                .await
                .worker
                .ok()
                .flatten()
                .map(|worker| worker.resident()),
            _ => None,
        };
        notify(&[NotifyState::Status(&text(&status, bytes))]);
        sleep(PAUSE).await;
        // Also when nothing has changed but what is in memory.
        if let Ok(Err(_)) = timeout(LOOK_AGAIN, changes.changed()).await {
            return;
        }
    }
}

/// What `systemctl status` shows. `bytes` is what the worker has in memory.
fn text(status: &Status, bytes: Option<u64>) -> String {
    let variant = |model: &str| match status.models.iter().find(|m| m.id == model) {
        Some(info) => format!("{model} ({})", info.variant),
        None => model.to_owned(),
    };
    match &status.phase {
        Phase::Cold => "No model in memory".to_owned(),
        Phase::Loading { model } => format!("Loading {}", variant(model)),
        Phase::Ready { model, .. } => {
            let memory = bytes.map_or_else(String::new, |bytes| {
                format!(", {} MiB in memory", bytes >> 20)
            });
            format!(
                "Ready: {}{memory}, {} running, {} waiting",
                variant(model),
                status.running,
                status.waiting
            )
        }
        Phase::Unloading { model } => format!("Unloading {}", variant(model)),
        // In this message a line is an assignment.
        Phase::BackingOff { cause, .. } => {
            format!("Waiting before the next try: {}", one_line(cause))
        }
        Phase::Draining => "Finishing the last answers".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_wedged_engine_does_not_feed_the_watchdog() {
        let fed = Arc::new(AtomicU32::new(0));
        let count = fed.clone();
        // Nobody reads its commands.
        let (engine, _commands) = Engine::wedged();
        let feeding = feed_watchdog(engine, Duration::from_millis(10), move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(
            timeout(Duration::from_millis(200), feeding).await.is_err(),
            "it waits"
        );
        assert_eq!(fed.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_end_of_the_driver_is_seen() {
        let (engine, commands) = Engine::wedged();
        assert!(
            timeout(Duration::from_millis(20), engine.ended())
                .await
                .is_err()
        );
        drop(commands);
        engine.ended().await;
    }

    #[test]
    fn the_status_names_state_and_memory() {
        let status = |phase| Status {
            phase,
            waiting: 2,
            running: 1,
            ..Status::first(vec![], vec![], None)
        };
        assert_eq!(
            text(&status(Phase::Loading { model: "m".into() }), None),
            "Loading m"
        );
        let backing_off = Phase::BackingOff {
            cause: "x\nMAINPID=1".into(),
            until: std::time::Instant::now(),
        };
        assert_eq!(
            text(&status(backing_off), None),
            "Waiting before the next try: x\\nMAINPID=1"
        );
        let ready = Phase::Ready {
            model: "m".into(),
            context: 1,
            floor: 1,
            granted: 1,
            slots: 1,
            threads: 1,
            pid: 1,
            load_time: Duration::ZERO,
            template: None,
            cpu_variant: None,
        };
        assert_eq!(
            text(&status(ready), Some(300 << 20)),
            "Ready: m, 300 MiB in memory, 1 running, 2 waiting"
        );
    }
}
