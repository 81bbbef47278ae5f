//! Workers that die before they have said anything, and the pauses after that. Pure.

use std::time::{Duration, Instant};

/// The pause after the second silent death in a row; doubles with each further one.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Silent deaths in a row.
#[derive(Debug)]
pub struct Backoff {
    deaths: u32,
    pub cause: String,
    /// No worker is started before; `None` once that time has come.
    pub pause: Option<Instant>,
}

impl Backoff {
    /// One death more.
    pub fn after(before: Option<Self>, now: Instant, cause: String) -> Self {
        let deaths = before.map_or(0, |backoff| backoff.deaths) + 1;
        Self {
            deaths,
            cause,
            pause: Some(now + pause_after(deaths)).filter(|until| *until > now),
        }
    }
}

/// The first silent death is answered at once, further ones after growing pauses.
fn pause_after(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        n => FIRST_PAUSE
            .saturating_mul(1 << (n - 2).min(16))
            .min(LONGEST_PAUSE),
    }
}
