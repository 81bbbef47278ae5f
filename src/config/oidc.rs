//! `[[oidc]]`: issuers of tokens that are taken besides the daemon's own, and what those give.
//!
//! One table for each issuer, so these are no keys of a table that there is once: serde reads them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;
use toml::de::DeValue;

use super::parse_duration;

/// What the table is called.
pub(super) const TABLE: &str = "oidc";
/// The scopes that a grant may name.
pub const SCOPES: [&str; 3] = ["inference", "models", "admin"];
/// How far an issuer's clock may be said to be from this machine's.
const MOST_SKEW: Duration = Duration::from_secs(300);
/// How long a token may be good at most, whatever is configured.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Issuers at most.
const MOST_ISSUERS: usize = 16;
/// Requests a minute at most.
pub(super) const MOST_A_MINUTE: u32 = 100_000;

/// An issuer of OpenID Connect whose tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Issuer {
    /// What `iss` says, letter by letter.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// A file with the issuer's keys (a JSON Web Key Set); `None`: they are where the issuer says.
    pub keys: Option<PathBuf>,
    /// How far the issuer's clock may be from this machine's.
    #[serde(default = "usual_skew", deserialize_with = "time")]
    pub clock_skew: Duration,
    /// How long a token may be good, from its issue to its end.
    #[serde(default = "usual_lifetime", deserialize_with = "time")]
    pub longest: Duration,
    /// The user that a subject is, by what `sub` says. Everybody else is nobody of this machine.
    #[serde(default)]
    pub users: BTreeMap<String, String>,
    /// What tokens give, the first that fits.
    #[serde(rename = "grant")]
    pub grants: Vec<Grant>,
}

/// What tokens with a certain claim give.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grant {
    /// The name of a claim, or a JSON pointer (`/realm_access/roles`) to what is in one; `None`: every token.
    pub claim: Option<String>,
    /// What the claim is, or has in it.
    pub value: Option<String>,
    /// Of [`SCOPES`].
    pub scopes: Vec<String>,
    /// The id of the only model that may be asked.
    pub model: Option<String>,
    /// Requests a minute of each subject.
    pub limit: Option<u32>,
}

fn usual_skew() -> Duration {
    Duration::from_secs(60)
}

fn usual_lifetime() -> Duration {
    Duration::from_secs(12 * 3600)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text).ok_or_else(|| de::Error::custom("write a time like \"60s\" or \"1h\""))
}

/// Reads one table. The error has the place in the file, if that is known, and what is wrong.
pub(super) fn read(value: &Spanned<DeValue<'_>>) -> Result<Issuer, (Option<usize>, String)> {
    let read = de::IntoDeserializer::into_deserializer(value.clone());
    let issuer = Issuer::deserialize(read).map_err(|error: toml::de::Error| {
        let at = error.span().map(|span| span.start);
        (at, format!("[[{TABLE}]] {}", error.message()))
    })?;
    issuer
        .check()
        .map_err(|what| (None, format!("[[{TABLE}]] {what}")))?;
    Ok(issuer)
}

/// What no issuer can know alone.
pub(super) fn check_all(issuers: &[Issuer]) -> Result<(), String> {
    if issuers.len() > MOST_ISSUERS {
        return Err(format!("there are more than {MOST_ISSUERS} [[{TABLE}]]"));
    }
    let twice = issuers.iter().enumerate().find(|(at, one)| {
        let mut before = issuers[..*at].iter();
        before.any(|other| other.issuer == one.issuer)
    });
    twice.map_or(Ok(()), |(_, one)| {
        Err(format!("[[{TABLE}]] has the issuer `{}` twice", one.issuer))
    })
}

impl Issuer {
    fn check(&self) -> Result<(), String> {
        let issuer = &self.issuer;
        let is_address = issuer.len() > "https://".len() && issuer.starts_with("https://");
        if issuer.is_empty() || issuer.chars().any(char::is_whitespace) {
            return Err(
                "issuer is empty or has blanks in it; write what `iss` says in its tokens".into(),
            );
        }
        if self.keys.is_none() && (!is_address || issuer.contains(['?', '#'])) {
            return Err(format!(
                "issuer is `{issuer}`, from where no keys can be fetched: that needs an https address without `?` and `#`; or name a file with its `keys`"
            ));
        }
        if self.keys.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err("keys is no absolute path".into());
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return Err(
                "audience is empty; name what `aud` says in tokens that are meant for this machine"
                    .into(),
            );
        }
        if self.clock_skew > MOST_SKEW {
            return Err("clock-skew is more than 5m".into());
        }
        if self.longest.is_zero() || self.longest > LONGEST {
            return Err("longest is 0 or more than 24h".into());
        }
        if self
            .users
            .iter()
            .any(|(subject, user)| subject.is_empty() || user.is_empty())
        {
            return Err("users has an empty name".into());
        }
        if self.grants.is_empty() {
            return Err("has no [[oidc.grant]]: its tokens would be good for nothing".into());
        }
        self.grants.iter().try_for_each(Grant::check)
    }
}

impl Grant {
    fn check(&self) -> Result<(), String> {
        if self.claim.is_some() != self.value.is_some() {
            return Err("grant: `claim` and `value` go together: set both, or none".into());
        }
        if self.claim.as_ref().is_some_and(String::is_empty) {
            return Err("grant: `claim` is empty".into());
        }
        let unknown = self
            .scopes
            .iter()
            .find(|scope| !SCOPES.contains(&scope.as_str()));
        if let Some(unknown) = unknown {
            return Err(format!(
                "grant: there is no scope {unknown:?}; there are {}",
                SCOPES.join(", ")
            ));
        }
        if self.scopes.is_empty() {
            return Err("grant: `scopes` is empty".into());
        }
        if self.model.as_ref().is_some_and(String::is_empty) {
            return Err("grant: `model` is empty; leave it out for all models".into());
        }
        if self
            .limit
            .is_some_and(|limit| !(1..=MOST_A_MINUTE).contains(&limit))
        {
            return Err(format!("grant: `limit` is not from 1 to {MOST_A_MINUTE}"));
        }
        Ok(())
    }
}
