//! `[[upstream]]`: other machines' services that may answer in this one's place.

use std::path::PathBuf;
use std::time::Duration;

/// A service on another machine that may answer in this one's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub name: String,
    /// The base URL of its OpenAI-compatible API, without a slash at its end.
    pub url: String,
    /// What it may be asked for.
    pub models: Vec<UpstreamModel>,
    /// Who may use it; `*` is everybody.
    pub users: Vec<String>,
    pub groups: Vec<String>,
    /// The file with its API key; `None`: the credential that systemd passes, if it does.
    pub key_file: Option<PathBuf>,
    /// What it keeps of requests; `None` only while its table is being read.
    pub keeps: Option<Keeps>,
    /// Whether it answers what nothing here can.
    pub failover: bool,
    /// Requests that must wait here for it to answer the next; 0: it never does for that reason.
    pub overflow: u32,
    /// The smallest number is asked first.
    pub priority: u32,
    /// Of several with the same priority it is asked first as often, in proportion.
    pub weight: u32,
    /// How often it is asked again.
    pub retries: u32,
    /// Requests that it may be answering at a time.
    pub requests: u32,
    /// How long an answer may take to begin, and to go on.
    pub patience: Duration,
}

/// A model of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamModel {
    /// As clients name it here.
    pub asked: String,
    /// As the upstream does.
    pub theirs: String,
}

/// What an upstream keeps of a request, as the administrator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    Nothing,
    Anything,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            models: vec![],
            users: vec![],
            groups: vec![],
            key_file: None,
            keeps: None,
            failover: false,
            overflow: 0,
            priority: 100,
            weight: 1,
            retries: 2,
            requests: 8,
            patience: Duration::from_secs(60),
        }
    }
}
