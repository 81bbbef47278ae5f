//! `[access]`: who may do more than ask, and what may be fetched.

use super::{Key, Rule, is_name, key};
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
];
