//! What can be typed about tokens.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::access::token::{LONGEST, MOST_A_MINUTE, Scope};
use crate::config;
use crate::ctl::completion::model_names;

#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token that has a part of your rights, and print it
    ///
    /// It is printed this once, and kept nowhere. Programs send it as `Authorization: Bearer gmd_...`, as most do with an
    /// API key, or as `x-api-key`; through the gateway nobody is answered without one. What it is asked is on your account.
    Issue(IssueArgs),
    /// List your tokens that have not expired; as an administrator, everybody's
    List {
        /// Print the daemon's own JSON
        #[arg(long)]
        json: bool,
    },
    /// End tokens before they expire; answers that have begun come to their end
    Revoke(RevokeArgs),
    /// Have tokens signed with a new key from now on; the old one is good for what it has signed. For administrators
    Rotate,
}

#[derive(Debug, Args)]
pub struct IssueArgs {
    /// How long it is good for, at most 12h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    pub ttl: Duration,

    /// What it is for: `inference`, to ask; `models`, to bring and remove models; `admin`, what else is for administrators.
    /// The last two have no more rights than you
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = "inference", value_parser = scope)]
    pub scope: Vec<Scope>,

    /// The only model that it may ask
    #[arg(long, value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub model: Option<String>,

    /// How many requests it may make, like 60/min
    #[arg(long, value_name = "N/min", value_parser = limit)]
    pub limit: Option<u32>,

    /// Print the daemon's own JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Ids of tokens, as `gemmactl token list` shows them
    #[arg(required_unless_present_any = ["all", "user"], conflicts_with_all = ["all", "user"], value_parser = NotEmpty::new())]
    pub ids: Vec<String>,

    /// All of your tokens
    #[arg(long, conflicts_with = "user")]
    pub all: bool,

    /// All tokens of this user, by name or number; for administrators
    #[arg(long, value_name = "USER", value_parser = NotEmpty::new())]
    pub user: Option<String>,
}

fn ttl(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .filter(|ttl| (Duration::from_secs(1)..=LONGEST).contains(ttl))
        .ok_or_else(|| "write a time from 1s to 12h, like 30m or 8h".to_owned())
}

fn scope(word: &str) -> Result<Scope, String> {
    Scope::parse(word).ok_or_else(|| "write `inference`, `models` or `admin`".to_owned())
}

fn limit(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/min").unwrap_or(text).parse().ok();
    number
        .filter(|limit| (1..=MOST_A_MINUTE).contains(limit))
        .ok_or_else(|| format!("write a number of requests from 1 to {MOST_A_MINUTE}, like 60/min"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_limits_are_read() {
        assert_eq!(ttl("8h"), Ok(Duration::from_secs(8 * 3600)));
        assert!(ttl("13h").is_err() && ttl("0s").is_err() && ttl("soon").is_err());
        assert_eq!((limit("60/min"), limit("5")), (Ok(60), Ok(5)));
        assert!(limit("0").is_err() && limit("5/s").is_err());
        assert!(scope("admin").is_ok() && scope("all").is_err());
    }
}

/// What `gemmactl usage` shows.
#[derive(Args, Debug)]
pub struct UsageArgs {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}
