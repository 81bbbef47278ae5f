//! `[[app]]`: apps that have sockets of their own.

use super::server::{MODE, is_mode, is_socket};
use super::{Key, ListTable, Rule, is_name, key, octal};
use crate::chat::AppName;
use crate::config::oidc::MOST_A_MINUTE;
use crate::config::{App, Config, SCOPES};

/// Apps at most.
const MOST_APPS: usize = 256;

/// The table is written once for each app.
pub(super) static LIST: ListTable = ListTable {
    begin: |config| config.apps.push(App::default()),
    problem,
};

pub(super) static KEYS: &[Key] = &[
    key(
        "name",
        Rule::Text {
            allowed: "at most 40 letters, digits, `-`, `_` and `.`, the first a letter or a digit",
            check: |name| AppName::parse(name).is_some(),
            put: |config, name| last(config).name = name,
        },
    ),
    key(
        "socket",
        Rule::Text {
            allowed: "an absolute path of at most 107 bytes, or \"\" for the socket that systemd passes",
            check: |path| path.is_empty() || is_socket(path),
            put: |config, path| {
                last(config).socket = Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "socket-mode",
        Rule::Text {
            allowed: MODE,
            check: is_mode,
            put: |config, bits| {
                let app = last(config);
                app.socket_mode = octal(&bits).unwrap_or(app.socket_mode);
            },
        },
    ),
    key(
        "socket-group",
        Rule::Text {
            allowed: "the name of a group, or \"\" for the daemon's own",
            check: |name| name.is_empty() || is_name(name),
            put: |config, name| {
                last(config).socket_group = Some(name).filter(|name| !name.is_empty())
            },
        },
    ),
    key(
        "scopes",
        Rule::List {
            allowed: "an array of \"inference\", \"models\" and \"admin\", at least one of them",
            check: |scope| SCOPES.contains(&scope),
            may_be_empty: false,
            put: |config, scopes| last(config).scopes = scopes,
        },
    ),
    key(
        "models",
        Rule::List {
            allowed: "an array of model ids",
            check: is_name,
            may_be_empty: true,
            put: |config, models| last(config).models = models,
        },
    ),
    key(
        "limit",
        Rule::Number {
            min: 0,
            max: MOST_A_MINUTE,
            put: |config, limit| last(config).limit = Some(limit).filter(|limit| *limit > 0),
        },
    ),
];

/// The app whose table is being read.
fn last(config: &mut Config) -> &mut App {
    if config.apps.is_empty() {
        config.apps.push(App::default());
    }
    let last = config.apps.len() - 1;
    &mut config.apps[last]
}

/// What the last table lacks, or has in common with another one.
fn problem(config: &Config) -> Option<String> {
    let (app, others) = config.apps.split_last()?;
    if app.name.is_empty() {
        let allowed = KEYS.first().map(Key::allowed).unwrap_or_default();
        return Some(format!("[[app]] lacks `name`: {allowed}"));
    }
    if others.len() >= MOST_APPS {
        return Some(format!("there are more than {MOST_APPS} [[app]]"));
    }
    if others.iter().any(|other| other.name == app.name) {
        return Some(format!(
            "there are two [[app]] of the name `{}`; give one of them another",
            app.name
        ));
    }
    let has_same = |other: &App| app.socket.is_some() && other.socket == app.socket;
    others.iter().find(|other| has_same(other)).map(|other| {
        format!(
            "[[app]] `{}` and `{}` have the same `socket`; give one of them another",
            other.name, app.name
        )
    })
}
