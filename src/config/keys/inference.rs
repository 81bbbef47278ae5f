//! `[inference]`: how a model is run.

use std::time::Duration;

use super::{Key, Rule, is_absolute, key};
use crate::chat::Speculation;

/// Nobody waits longer than this for a token while other prompts are read.
const LONGEST_STEP: Duration = Duration::from_secs(60);

pub(super) static KEYS: &[Key] = &[
    key(
        "context",
        Rule::NumberOrAuto {
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
    key(
        "most-context",
        Rule::Number {
            min: 256,
            max: 262_144,
            put: |config, n| config.inference.most_context = n,
        },
    ),
    key(
        "slots",
        Rule::NumberOrAuto {
            min: 1,
            max: 64,
            put: |config, n| config.inference.slots = n,
        },
    ),
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
        "step-time",
        Rule::Time {
            may_be_zero: false,
            most: LONGEST_STEP,
            put: |config, time| config.inference.step_time = time,
        },
    ),
    key(
        "speculation",
        Rule::Text {
            allowed: "\"auto\", \"on\" or \"off\"",
            check: |name| Speculation::of(name).is_some(),
            put: |config, name| {
                config.inference.speculation = Speculation::of(&name).unwrap_or_default();
            },
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
        "system-prompts",
        Rule::List {
            allowed: "absolute paths of files, 16 at most",
            check: is_absolute,
            may_be_empty: true,
            put: |config, files| {
                config.inference.system_prompts = files.into_iter().map(Into::into).collect();
            },
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
