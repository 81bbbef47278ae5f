//! `[inference]`: how a model is run.

use super::{Key, Rule, count, is_absolute, key};

pub(super) static KEYS: &[Key] = &[
    key(
        "context",
        Rule::Number {
            min: 256,
            max: 262_144,
            put: |config, n| config.inference.context = n,
        },
    ),
    key(
        "least-context",
        Rule::Number {
            min: 256,
            max: 262_144,
            put: |config, n| config.inference.least_context = n,
        },
    ),
    key("slots", count(64, |config, n| config.inference.slots = n)),
    key(
        "threads",
        Rule::Number {
            min: 0,
            max: 1024,
            put: |config, n| config.inference.threads = n,
        },
    ),
    key(
        "batch",
        Rule::Number {
            min: 32,
            max: 2048,
            put: |config, n| config.inference.batch = n,
        },
    ),
    key(
        "kv-cache",
        Rule::Text {
            allowed: "\"f16\" or \"q8_0\"",
            check: |kind| ["f16", "q8_0"].contains(&kind),
            put: |config, kind| config.inference.small_kv = kind == "q8_0",
        },
    ),
    key(
        "worker",
        Rule::Text {
            allowed: "an absolute path, or \"\" for gemmad-worker beside gemmad",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.inference.worker = Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
];
