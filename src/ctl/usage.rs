//! `gemmactl usage`.

use nix::unistd::User;
use serde::Deserialize;

use super::client::Client;
use super::error::Error;
use super::show::{parse, pretty, promptly};
use super::table::table;
use super::text::Terminal;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    data: Vec<OfDay>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfDay {
    date: String,
    user: Option<u32>,
    token: Option<String>,
    subject: Option<String>,
    app: Option<String>,
    requests: u64,
    failed: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// Where numbers stand.
const RIGHT: [usize; 4] = [3, 4, 5, 6];

pub async fn run(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let answer = promptly(client.usage()).await?;
    if json {
        return Ok(pretty(&answer, terminal));
    }
    let usage: Usage = parse(answer)?;
    if usage.data.is_empty() {
        return Ok(b"nothing has been used yet\n".to_vec());
    }
    let row = |line: &OfDay| {
        let name = |uid: u32| {
            let user = User::from_uid(uid.into()).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name)
        };
        let with = match (&line.token, &line.subject, &line.app) {
            (Some(token), ..) => format!("token {token}"),
            (None, Some(subject), _) => format!("subject {subject}"),
            (None, None, Some(app)) => format!("app {app}"),
            (None, None, None) => String::new(),
        };
        let user = match (line.user, with.is_empty()) {
            (Some(uid), _) => name(uid),
            (None, true) => "others".to_owned(),
            (None, false) => String::new(),
        };
        [
            line.date.clone(),
            user,
            with,
            line.requests.to_string(),
            line.failed.to_string(),
            line.prompt_tokens.to_string(),
            line.completion_tokens.to_string(),
        ]
    };
    let rows = usage.data.iter().map(row);
    let head = [
        "day",
        "user",
        "with",
        "requests",
        "failed",
        "tokens in",
        "tokens out",
    ];
    Ok(table(head, rows, &RIGHT, terminal.out).into_bytes())
}
