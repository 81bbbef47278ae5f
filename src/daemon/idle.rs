//! Idleness: the daemon leaves when nothing needs it any more.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backend::{Backend, Phase};
use crate::engine::Engine;

/// Looks within the time that must be idle, and at least this far apart.
const LOOKS: u32 = 10;
const SHORTEST: Duration = Duration::from_millis(20);

/// Returns once there was nothing to do for `limit`: no model in memory, no request, no program at
/// a door (`is_used`). Never without a limit.
pub async fn idle(engine: &Engine, is_used: impl Fn() -> bool, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut since = Instant::now();
    while since.elapsed() < limit {
        sleep((limit / LOOKS).max(SHORTEST)).await;
        let status = engine.status();
        let busy = !matches!(status.phase, Phase::Cold)
            || status.waiting + status.running > 0
            || is_used();
        if busy {
            since = Instant::now();
        }
    }
}
