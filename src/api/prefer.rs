//! What a client prefers by the header `Prefer` (RFC 7240): signs of life before an answer that is
//! sent whole.
//!
//! Status and headers come first in HTTP, and hyper sends none in between (102 of RFC 2518, 103 of
//! RFC 8297). So the sign of life is a blank, which JSON allows in front of itself; the status is
//! fixed then, and what goes wrong later is told by the body alone.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
pub const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const HEARTBEAT: &str = "heartbeat";
/// Seconds between signs of life that may be asked for, and where no number is.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=60;
const USUAL_SECONDS: u64 = 10;

/// What is understood of the header; the rest is passed over, as the standard has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// Seconds between signs of life.
    pub heartbeat: Option<u64>,
}

impl Prefer {
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(PREFER).into_iter();
        let preferences = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        // The first of its name counts.
        Self {
            heartbeat: preferences.filter_map(heartbeat).next(),
        }
    }

    /// How often a client that waits for a whole answer is told that it lives.
    pub fn pause(self) -> Option<Duration> {
        self.heartbeat.map(Duration::from_secs)
    }
}

/// The value of `Preference-Applied`.
pub fn applied(pause: Duration) -> HeaderValue {
    let text = format!("{HEARTBEAT}={}", pause.as_secs());
    // A name and a number.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(HEARTBEAT))
}

/// Of one preference, its parameters left out.
fn heartbeat(preference: &str) -> Option<u64> {
    let token = preference.split(';').next()?;
    let (name, value) = token.split_once('=').unwrap_or((token, ""));
    if !name.trim().eq_ignore_ascii_case(HEARTBEAT) {
        return None;
    }
    match value.trim().trim_matches('"') {
        "" => Some(USUAL_SECONDS),
        number => number
            .parse()
            .ok()
            .filter(|number| SECONDS.contains(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preferred() {
        for (value, heartbeat) in [
            ("heartbeat", Some(10)),
            ("HeartBeat=5", Some(5)),
            (
                "respond-async, wait=100; foo, heartbeat = \"30\"; a=b",
                Some(30),
            ),
            ("heartbeat=2, heartbeat=9", Some(2)),
            ("heartbeat=0", None),
            ("heartbeat=61", None),
            ("heartbeat=soon", None),
            ("heartbeats", None),
            ("return=minimal", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(PREFER, "handling=lenient".parse().unwrap());
            headers.append(PREFER, value.parse().unwrap());
            assert_eq!(Prefer::of(&headers), Prefer { heartbeat }, "{value}");
        }
        assert_eq!(applied(Duration::from_secs(5)), "heartbeat=5");
    }
}
