//! `[log]`: what is logged.

use super::{Key, Rule, key};

pub(super) static KEYS: &[Key] = &[key(
    "level",
    Rule::Text {
        allowed: "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        check: |level| ["error", "warn", "info", "debug", "trace"].contains(&level),
        put: |config, level| config.log.level = level,
    },
)];
