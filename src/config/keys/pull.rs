//! `[pull]`: from where models are fetched, and how.

use url::Url;

use crate::chat::Networks;

use super::{Key, Rule, count, is_absolute, key};

/// The fastest that can be set, in bytes a second.
const FASTEST: u64 = 1 << 40;
/// Connections for one file; `gemmad-pull.socket` allows as many for all that are fetched at the same time.
const MOST_CONNECTIONS: u32 = 8;

pub(super) static KEYS: &[Key] = &[
    key(
        "hub",
        Rule::Text {
            allowed: "an http(s) address without user, password or query, like \"https://huggingface.co\"",
            check: is_server,
            put: |config, hub| config.pull.hub = hub.trim_end_matches('/').to_owned(),
        },
    ),
    key(
        "token-file",
        Rule::Text {
            allowed: "an absolute path, or \"\" for none",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.pull.token_file = Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "proxy",
        Rule::Text {
            allowed: "an http address like \"http://proxy.example:3128\", \"none\", or \"\" for what the environment says",
            check: |proxy| matches!(proxy, "" | "none") || is_proxy(proxy),
            put: |config, proxy| config.pull.proxy = proxy,
        },
    ),
    key(
        "connections",
        count(MOST_CONNECTIONS, |config, connections| {
            config.pull.connections = connections
        }),
    ),
    key(
        "rate",
        Rule::Size {
            min: 0,
            max: FASTEST,
            put: |config, rate| config.pull.rate = rate,
        },
    ),
    key(
        "least-rate",
        Rule::Size {
            min: 0,
            max: FASTEST,
            put: |config, rate| config.pull.least_rate = rate,
        },
    ),
    key(
        "redirect-to",
        Rule::List {
            allowed: super::NETWORKS,
            check: |text| Networks::of(&[text]).is_some(),
            may_be_empty: true,
            // Each was checked.
            put: |config, list| config.pull.redirect_to = Networks::of(&list).unwrap_or_default(),
        },
    ),
];

/// A server's address, with nothing in it that is secret or meant for one request.
pub(super) fn is_server(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

fn is_proxy(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.scheme() == "http" && url.host().is_some())
}
