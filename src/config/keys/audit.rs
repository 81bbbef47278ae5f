//! `[audit]`: what is kept of requests.

use super::{Key, Rule, count, is_absolute, key};
use crate::config::AuditLog;

/// Days of which sums are kept.
const MOST_DAYS: u32 = 400;
/// Files that the log of requests was before.
const MOST_FILES: u32 = 100;

pub(super) static KEYS: &[Key] = &[
    key(
        "log",
        Rule::Text {
            allowed: "\"none\", \"journal\" or the absolute path of a file",
            check: |text| log(text).is_some(),
            // It was checked.
            put: |config, text| config.audit.log = log(&text).unwrap_or_default(),
        },
    ),
    key(
        "log-size",
        Rule::Size {
            min: 4 << 10,
            max: 1 << 40,
            put: |config, size| config.audit.log_size = size,
        },
    ),
    key(
        "log-files",
        Rule::Number {
            min: 0,
            max: MOST_FILES,
            put: |config, files| config.audit.log_files = files,
        },
    ),
    key(
        "usage-file",
        Rule::Text {
            allowed: "an absolute path, or \"\" for memory alone",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| config.audit.usage_file = (!path.is_empty()).then(|| path.into()),
        },
    ),
    key(
        "usage-days",
        count(MOST_DAYS, |config, days| config.audit.usage_days = days),
    ),
];

fn log(text: &str) -> Option<AuditLog> {
    match text {
        "none" => Some(AuditLog::None),
        "journal" => Some(AuditLog::Journal),
        path => is_absolute(path).then(|| AuditLog::File(path.into())),
    }
}
