//! `gemmactl token`.

pub mod helper;

use nix::unistd::{User, getuid};
use serde::Deserialize;
use serde_json::json;

use super::args::{IssueArgs, RevokeArgs, TokenCommand};
use super::client::{Client, not_on_bus};
use super::error::Error;
use super::show::{parse, pretty, promptly};
use super::table::table;
use super::text::Terminal;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    data: Vec<Token>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Token {
    token: String,
    id: String,
    user: u32,
    scopes: Vec<String>,
    model: Option<String>,
    limit: Option<u32>,
    expires_at: u64,
    revoked: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Revoked {
    revoked: u64,
}

pub async fn run(
    client: &dyn Client,
    command: &TokenCommand,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    match command {
        // The bus has no tokens.
        TokenCommand::Helper(_) => Err(not_on_bus()),
        TokenCommand::Issue(args) => issue(client, args, terminal).await,
        TokenCommand::List { json } => list(client, *json, terminal).await,
        TokenCommand::Revoke(args) => revoke(client, args).await,
        TokenCommand::Rotate => {
            promptly(client.rotate_tokens()).await?;
            Ok(b"tokens are signed with a new key from now on\n".to_vec())
        }
    }
}

/// Prints the token alone, so that a script can take it; what there is to know of it is a remark.
async fn issue(
    client: &dyn Client,
    args: &IssueArgs,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let issued = promptly(client.issue_token(&args.order.order())).await?;
    if args.json {
        return Ok(pretty(&issued, terminal));
    }
    let token: Token = parse(issued)?;
    if terminal.err.is_terminal {
        terminal.remark(&format!(
            "token {} is shown this once; `gemmactl token revoke {0}` ends it",
            token.id
        ));
    }
    Ok(format!("{}\n", terminal.out.clean(&token.token)).into_bytes())
}

async fn list(client: &dyn Client, json: bool, terminal: &Terminal) -> Result<Vec<u8>, Error> {
    let answer = promptly(client.tokens()).await?;
    if json {
        return Ok(pretty(&answer, terminal));
    }
    let tokens: Tokens = parse(answer)?;
    if tokens.data.is_empty() {
        return Ok(b"there are no tokens\n".to_vec());
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let row = |token: &Token| {
        let minutes = token.expires_at.saturating_sub(now) / 60;
        let left = match token.revoked {
            true => "revoked".to_owned(),
            false => format!("{}h {:02}m", minutes / 60, minutes % 60),
        };
        let user = User::from_uid(token.user.into()).ok().flatten();
        [
            token.id.clone(),
            user.map_or_else(|| token.user.to_string(), |user| user.name),
            token.scopes.join(","),
            token.model.clone().unwrap_or_else(|| "all".to_owned()),
            token
                .limit
                .map_or_else(|| "none".to_owned(), |limit| format!("{limit}/min")),
            left,
        ]
    };
    let rows = tokens.data.iter().map(row);
    let head = ["token", "user", "scopes", "model", "limit", "left"];
    Ok(table(head, rows, &[], terminal.out).into_bytes())
}

async fn revoke(client: &dyn Client, args: &RevokeArgs) -> Result<Vec<u8>, Error> {
    let mut ended = vec![];
    if args.all {
        ended.push(json!({ "user": getuid().as_raw() }));
    }
    if let Some(user) = &args.user {
        ended.push(json!({ "user": number_of(user)? }));
    }
    ended.extend(args.ids.iter().map(|id| json!({ "id": id })));
    let mut count = 0;
    for which in &ended {
        let revoked: Revoked = parse(promptly(client.revoke_tokens(which)).await?)?;
        count += revoked.revoked;
    }
    let what = if count == 1 { "token is" } else { "tokens are" };
    Ok(format!("{count} {what} revoked\n").into_bytes())
}

fn number_of(user: &str) -> Result<u32, Error> {
    let found = User::from_name(user).ok().flatten();
    found
        .map(|user| user.uid.as_raw())
        .or_else(|| user.parse().ok())
        .ok_or_else(|| Error::Usage(format!("there is no user `{user}`")))
}
