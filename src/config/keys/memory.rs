//! `[memory]`: what is kept in memory and on the disk.

use super::{Key, Rule, is_absolute, key};
use crate::config::value::parse_size;

pub(super) static KEYS: &[Key] = &[
    key(
        "cache-directory",
        Rule::Text {
            allowed: "an absolute path, or \"\" for no cache",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.memory.cache_directory =
                    Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "cache-size",
        Rule::Size {
            min: 1 << 20,
            max: 1 << 44,
            put: |config, n| config.memory.cache_size = n,
        },
    ),
    key(
        "prompt-cache-size",
        Rule::Size {
            min: 0,
            max: 1 << 44,
            put: |config, n| config.memory.prompt_cache_size = n,
        },
    ),
    key(
        "prompt-cache-key",
        Rule::Text {
            allowed: "an absolute path, or \"\" for none",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.memory.prompt_cache_key =
                    Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "reserve",
        Rule::Text {
            allowed: "\"auto\" or a size, like \"512 MiB\"",
            check: |text| text == "auto" || parse_size(text).is_some(),
            put: |config, text| config.memory.reserve = parse_size(&text),
        },
    ),
    key(
        "allow-overcommit",
        Rule::Switch {
            put: |config, on| config.memory.allow_overcommit = on,
        },
    ),
    key(
        "per-layer-embeddings",
        Rule::Size {
            min: 1 << 20,
            max: 1 << 40,
            put: |config, n| config.memory.per_layer = n,
        },
    ),
    key(
        "lock-weights",
        Rule::Switch {
            put: |config, on| config.memory.lock_weights = on,
        },
    ),
];
