//! `[models]`: where models lie, and which is meant by `auto`.

use minisign_verify::PublicKey;

use super::{Key, Rule, is_absolute, is_name, key, time_or_zero};
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
        "catalog-directory",
        Rule::Text {
            allowed: "an absolute path, or \"\" for none",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.models.catalog_directory =
                    Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "catalog-key",
        Rule::Text {
            allowed: "a public key of minisign's, like \"RWQ…\", or \"\" for none",
            check: |key| key.is_empty() || PublicKey::from_base64(key).is_ok(),
            put: |config, key| config.models.catalog_key = key,
        },
    ),
    key(
        "pull-on-demand",
        Rule::Switch {
            put: |config, on| config.models.pull_on_demand = on,
        },
    ),
    key(
        "idle-release",
        time_or_zero(|config, time| config.models.idle_release = time),
    ),
    key(
        "idle-unload",
        time_or_zero(|config, time| config.models.idle_unload = time),
    ),
];
