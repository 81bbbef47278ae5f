//! `[models]`: where models lie, and which is meant by `auto`.

use super::{Key, Rule, is_absolute, is_name, key};
use crate::gemma::variant::Variant;

pub(super) static KEYS: &[Key] = &[
    key(
        "directories",
        Rule::List {
            allowed: "an array of at least one absolute path",
            check: is_absolute,
            may_be_empty: false,
            put: |config, paths| {
                config.models.directories = paths.into_iter().map(Into::into).collect()
            },
        },
    ),
    key(
        "default",
        Rule::Text {
            allowed: "\"auto\" or a model's id",
            check: is_name,
            put: |config, name| config.models.default = name,
        },
    ),
    key(
        "auto-names",
        Rule::List {
            allowed: "an array of names of at most 128 bytes, like \"gpt-4o\"",
            check: |name| name.len() <= 128,
            may_be_empty: true,
            put: |config, names| config.models.auto_names = names,
        },
    ),
    key(
        "prefer",
        Rule::List {
            allowed: "an array of variants, like \"gemma-4-e4b\"",
            check: |name| Variant::named(name).is_some(),
            may_be_empty: true,
            put: |config, names| config.models.prefer = names,
        },
    ),
    key(
        "installers",
        Rule::Text {
            allowed: "the name of a group, or \"\" for none",
            check: |name| name.is_empty() || is_name(name),
            put: |config, name| config.models.installers = name,
        },
    ),
    key(
        "idle-release",
        Rule::Time {
            may_be_zero: true,
            put: |config, time| config.models.idle_release = time,
        },
    ),
    key(
        "idle-unload",
        Rule::Time {
            may_be_zero: true,
            put: |config, time| config.models.idle_unload = time,
        },
    ),
];
