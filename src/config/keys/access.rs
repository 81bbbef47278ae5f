//! `[access]`: who may do more than ask, for whom the gateway may speak, and what may be fetched.

use super::{Key, Rule, is_absolute, is_name, key};
use crate::chat::Networks;

pub(super) static KEYS: &[Key] = &[
    key(
        "admins",
        Rule::List {
            allowed: "an array of user names",
            check: is_name,
            may_be_empty: true,
            put: |config, names| config.access.admins = names,
        },
    ),
    key(
        "admin-groups",
        Rule::List {
            allowed: "an array of group names",
            check: is_name,
            may_be_empty: true,
            put: |config, names| config.access.admin_groups = names,
        },
    ),
    key(
        "fetch-from",
        Rule::List {
            allowed: super::NETWORKS,
            check: |text| Networks::of(&[text]).is_some(),
            may_be_empty: true,
            // Each was checked.
            put: |config, list| config.access.fetch_from = Networks::of(&list).unwrap_or_default(),
        },
    ),
    key(
        "gateway",
        Rule::Text {
            allowed: "the name of a user, or \"\" for none",
            check: |name| name.is_empty() || is_name(name),
            put: |config, name| config.access.gateway = name,
        },
    ),
    key(
        "token-file",
        Rule::Text {
            allowed: "an absolute path, or \"\" for no tokens",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| config.access.token_file = (!path.is_empty()).then(|| path.into()),
        },
    ),
];
