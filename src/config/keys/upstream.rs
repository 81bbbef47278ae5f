//! `[[upstream]]`: services on other machines that may answer in this one's place.

use std::time::Duration;

use super::pull::is_server;
use super::{Key, ListTable, Rule, is_absolute, is_name, key};
use crate::config::{Config, Keeps, Upstream, UpstreamModel};

/// Bytes of an upstream's name: it is a header's value and a log line's field.
const NAME_BYTES: usize = 64;
/// Requests that one upstream may be answering.
const MOST_REQUESTS: u32 = 256;
/// How long an upstream may take to begin, or to go on.
const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// The table is written once for each upstream.
pub(super) static LIST: ListTable = ListTable {
    begin: |config| config.upstreams.push(Upstream::default()),
    problem,
};

pub(super) static KEYS: &[Key] = &[
    key(
        "name",
        Rule::Text {
            allowed: "at most 64 letters, digits, `-`, `_` and `.`, another one than \"local\"",
            check: is_upstream_name,
            put: |config, name| last(config).name = name,
        },
    ),
    key(
        "url",
        Rule::Text {
            allowed: "the http(s) address that clients of OpenAI's API call its base URL, like \"https://big.example/v1\", without user, password or query",
            check: is_server,
            put: |config, url| last(config).url = url.trim_end_matches('/').to_owned(),
        },
    ),
    key(
        "models",
        Rule::List {
            allowed: "an array of model ids, each as clients name it, or as \"clients' id=upstream's id\"",
            check: |text| model(text).is_some(),
            may_be_empty: false,
            put: |config, list| {
                // Each was checked.
                last(config).models = list.iter().filter_map(|text| model(text)).collect();
            },
        },
    ),
    key(
        "users",
        Rule::List {
            allowed: "an array of user names, or of \"*\" for everybody",
            check: is_name,
            may_be_empty: true,
            put: |config, users| last(config).users = users,
        },
    ),
    key(
        "groups",
        Rule::List {
            allowed: "an array of group names",
            check: is_name,
            may_be_empty: true,
            put: |config, groups| last(config).groups = groups,
        },
    ),
    key(
        "key-file",
        Rule::Text {
            allowed: "an absolute path, or \"\" for the credential that systemd passes, if it does",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                last(config).key_file = Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "retention",
        Rule::Text {
            allowed: "\"zero\" if the upstream keeps nothing of a request, \"any\" if it may",
            check: |text| keeps(text).is_some(),
            put: |config, text| last(config).keeps = keeps(&text),
        },
    ),
    key(
        "failover",
        Rule::Switch {
            put: |config, on| last(config).failover = on,
        },
    ),
    key(
        "overflow",
        Rule::Number {
            min: 0,
            max: 65_536,
            put: |config, waiting| last(config).overflow = waiting,
        },
    ),
    key(
        "priority",
        Rule::Number {
            min: 0,
            max: 1000,
            put: |config, priority| last(config).priority = priority,
        },
    ),
    key(
        "weight",
        Rule::Number {
            min: 1,
            max: 1000,
            put: |config, weight| last(config).weight = weight,
        },
    ),
    key(
        "retries",
        Rule::Number {
            min: 0,
            max: 10,
            put: |config, retries| last(config).retries = retries,
        },
    ),
    key(
        "requests",
        super::count(MOST_REQUESTS, |config, most| last(config).requests = most),
    ),
    key(
        "patience",
        Rule::Time {
            may_be_zero: false,
            most: MOST_PATIENCE,
            put: |config, time| last(config).patience = time,
        },
    ),
];

/// The upstream whose table is being read.
fn last(config: &mut Config) -> &mut Upstream {
    if config.upstreams.is_empty() {
        config.upstreams.push(Upstream::default());
    }
    let last = config.upstreams.len() - 1;
    &mut config.upstreams[last]
}

/// What the last table lacks, or has in common with another one.
fn problem(config: &Config) -> Option<String> {
    let (upstream, others) = config.upstreams.split_last()?;
    let lacks = [
        ("name", upstream.name.is_empty()),
        ("url", upstream.url.is_empty()),
        ("models", upstream.models.is_empty()),
        ("retention", upstream.keeps.is_none()),
    ];
    if let Some((key, _)) = lacks.iter().find(|(_, lacks)| *lacks) {
        let allowed = KEYS.iter().find(|one| one.name == *key).map(Key::allowed);
        return Some(format!(
            "[[upstream]] lacks `{key}`: {}",
            allowed.unwrap_or_default()
        ));
    }
    if upstream.users.is_empty() && upstream.groups.is_empty() {
        return Some(format!(
            "[[upstream]] `{}` names nobody who may use it: set `users` or `groups`; users = [\"*\"] is everybody",
            upstream.name
        ));
    }
    let is_taken = |other: &Upstream| other.name.eq_ignore_ascii_case(&upstream.name);
    others.iter().any(is_taken).then(|| {
        format!(
            "there are two [[upstream]] of the name `{}`; give one of them another",
            upstream.name
        )
    })
}

fn is_upstream_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES
        && name.bytes().all(is_plain)
        && !name.eq_ignore_ascii_case("local")
}

/// `asked` or `asked=theirs`.
fn model(text: &str) -> Option<UpstreamModel> {
    let (asked, theirs) = text.split_once('=').unwrap_or((text, text));
    let (asked, theirs) = (asked.trim(), theirs.trim());
    (is_name(asked) && is_name(theirs)).then(|| UpstreamModel {
        asked: asked.to_owned(),
        theirs: theirs.to_owned(),
    })
}

fn keeps(text: &str) -> Option<Keeps> {
    match text {
        "zero" => Some(Keeps::Nothing),
        "any" => Some(Keeps::Anything),
        _ => None,
    }
}
