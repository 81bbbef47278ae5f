//! Tokens of OpenID Connect issuers: signed texts (JSON Web Tokens) of somebody whom the configuration
//! names, about a subject. Everything in one is a lie until the signature holds, but for the issuer's
//! name, by which its keys are found.
//!
//! Keys come from a file, or from where the issuer's discovery says ([`KeySource`]); they are fetched
//! again every hour, and when a token names one that is not among them, so that an issuer can change
//! its keys; and no more often than [`FETCHES`] a minute, so that nobody can make this machine ask.

mod claims;
mod keys;
mod signature;

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, dangerous, decode, decode_header};
use ring::digest;
use serde::Deserialize;

use self::claims::Claims;
use self::keys::Keys;
use super::token::Scope;
use super::token::pace::Pace;
use crate::chat::PrincipalId;
use crate::config;

/// Bytes of a token's text.
const LONGEST_TEXT: usize = 8 << 10;
/// How often an issuer's keys are fetched at most, in a minute.
const FETCHES: u32 = 4;
/// When they are fetched again.
const REFRESH: Duration = Duration::from_secs(3600);
/// How long they are gone by if that fails.
const LONGEST_KEYS: Duration = Duration::from_secs(24 * 3600);
/// Subjects whose requests are counted; those that had none for a minute are forgotten before.
const MOST_PACES: usize = 4096;
/// Where an issuer says what it has, behind its own address.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// What is fetched, or why it cannot be: continues "… cannot be fetched: ".
pub type Fetching = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Gets what is at an `https` address.
pub trait KeySource: Debug + Send + Sync {
    /// `first`: the address that the configuration names, and that has led to this one.
    fn fetch(&self, url: String, first: String) -> Fetching;
}

/// Who a token is about, with what it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub id: PrincipalId,
    /// The user of this machine who it is, with their groups, if the configuration says so.
    pub user: Option<(u32, Arc<[u32]>)>,
    /// Without a user nothing but [`Scope::Inference`].
    pub scopes: Vec<Scope>,
    /// Requests a minute.
    pub per_minute: Option<u32>,
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Continues "the token ".
    Invalid(&'static str),
    Expired,
    /// No grant is for tokens like this one.
    Nothing,
    /// The issuer's keys are not known, for this reason.
    NoKeys(String),
}

/// All issuers.
#[derive(Debug, Default)]
pub struct Oidc {
    source: OnceLock<Arc<dyn KeySource>>,
    /// Replaced when the configuration is read again.
    issuers: RwLock<Vec<Arc<Issuer>>>,
    /// Of those that have a limit and asked within the last minute.
    paces: Mutex<HashMap<PrincipalId, (u32, Pace)>>,
}

/// One issuer.
#[derive(Debug)]
struct Issuer {
    config: config::Issuer,
    /// The users of its subjects, with their groups.
    users: HashMap<String, (u32, Arc<[u32]>)>,
    keys: Mutex<Cached>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Cached {
    keys: Arc<Keys>,
    /// When they came; `None`: never, or from a file.
    came: Option<Instant>,
    /// How many fetches have ended.
    ended: u64,
    pace: Pace,
    /// Why the last one failed.
    failure: Option<String>,
}

impl Oidc {
    /// From where keys are fetched. Said once.
    pub fn fetch_with(&self, source: Arc<dyn KeySource>) {
        // A second source would be the same.
        let _ = self.source.set(source);
    }

    /// Takes the tokens of these issuers from now on, and of no others. Keys that were fetched are fetched again. `user`:
    /// a user's number and groups, by name. Blocks on the disk.
    ///
    /// # Errors
    /// A sentence for whoever edits the configuration; then nothing has changed.
    pub fn set(
        &self,
        configured: &[config::Issuer],
        user: impl Fn(&str) -> Result<(u32, Arc<[u32]>), String>,
    ) -> Result<(), String> {
        signature::install();
        let issuer = |config: &config::Issuer| {
            let keys = match &config.keys {
                None => Keys::default(),
                Some(file) => Keys::read(file)
                    .map_err(|error| format!("[[oidc]] keys names {}: {error}", file.display()))?,
            };
            let users = config.users.iter();
            let users = users.map(|(subject, name)| Ok((subject.clone(), user(name)?)));
            Ok(Arc::new(Issuer {
                users: users.collect::<Result<_, String>>()?,
                config: config.clone(),
                keys: Mutex::new(Cached {
                    keys: Arc::new(keys),
                    came: None,
                    ended: 0,
                    pace: Pace::new(FETCHES, Instant::now()),
                    failure: None,
                }),
                fetching: tokio::sync::Mutex::default(),
            }))
        };
        let issuers = configured
            .iter()
            .map(issuer)
            .collect::<Result<_, String>>()?;
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = issuers;
        lock(&self.paces).clear();
        Ok(())
    }

    /// Whose token this is; `None` if it is no token of a configured issuer, as far as it says itself.
    ///
    /// # Errors
    /// It says that it is, and is not good.
    pub async fn check(&self, text: &str) -> Result<Option<Arc<Subject>>, Refusal> {
        let Some(issuer) = self.issuer(text) else {
            return Ok(None);
        };
        if text.len() > LONGEST_TEXT {
            return Err(Refusal::Invalid("is longer than 8192 bytes"));
        }
        let claims = issuer.verify(text, self.source.get()).await?;
        issuer
            .subject(&claims)
            .map(|subject| Some(Arc::new(subject)))
    }

    /// Counts a request of a subject; or says how long it has to wait.
    ///
    /// # Errors
    /// The limit, and the time after which one more is within it.
    pub fn count(&self, subject: &Subject, now: Instant) -> Result<(), (u32, Duration)> {
        let Some(limit) = subject.per_minute else {
            return Ok(());
        };
        let mut paces = lock(&self.paces);
        if paces.len() >= MOST_PACES {
            paces.retain(|_, (_, pace)| !pace.is_full(now));
        }
        let fresh = || (limit, Pace::new(limit, now));
        let (known, pace) = paces.entry(subject.id).or_insert_with(fresh);
        if *known != limit {
            (*known, *pace) = fresh();
        }
        pace.take(now).map_err(|after| (limit, after))
    }

    /// The only model that somebody with these rights may ask (`Some(None)`: all); `None`: the configuration knows no such
    /// rights any more.
    pub fn model(&self, rights: u64) -> Option<Option<String>> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        let mut grants = issuers.iter().flat_map(|issuer| &issuer.config.grants);
        let grant = grants.find(|grant| rights_of(grant.model.as_deref()) == rights)?;
        Some(grant.model.clone())
    }

    /// The issuer that a text names.
    fn issuer(&self, text: &str) -> Option<Arc<Issuer>> {
        #[derive(Deserialize)]
        struct Named {
            iss: String,
        }
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        if issuers.is_empty() {
            return None;
        }
        let named: Named = dangerous::insecure_decode_claims(text).ok()?;
        let issuer = issuers
            .iter()
            .find(|issuer| issuer.config.issuer == named.iss);
        issuer.cloned()
    }
}

impl Issuer {
    /// What the token says, if it is signed, and meant for this machine and this time.
    async fn verify(
        self: &Arc<Self>,
        text: &str,
        source: Option<&Arc<dyn KeySource>>,
    ) -> Result<Claims, Refusal> {
        let header = decode_header(text).map_err(|_| {
            Refusal::Invalid("has no header that can be read, or is signed with an algorithm that is not taken (RS, PS, ES and EdDSA are)")
        })?;
        if !signature::ALGORITHMS.contains(&header.alg) {
            return Err(Refusal::Invalid(
                "is signed with an algorithm that is not taken (RS, PS, ES and EdDSA are)",
            ));
        }
        if header.crit.is_some() {
            return Err(Refusal::Invalid(
                "has a header `crit`, whose demands are not known here",
            ));
        }
        let types = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
        let is_known = |kind: &String| types.iter().any(|known| kind.eq_ignore_ascii_case(known));
        if !header.typ.as_ref().is_none_or(is_known) {
            return Err(Refusal::Invalid(
                "is of another type (`typ`) than tokens for access are",
            ));
        }
        let keys = self
            .keys_for(source, |keys| {
                keys.find(header.kid.as_deref(), header.alg).is_some()
            })
            .await?;
        let key = keys.find(header.kid.as_deref(), header.alg);
        let Some(key) = key else {
            return Err(Refusal::Invalid(
                "is signed with a key that its issuer does not name",
            ));
        };
        let mut rules = Validation::new(header.alg);
        rules.leeway = self.config.clock_skew.as_secs();
        rules.validate_nbf = true;
        rules.set_audience(&self.config.audience);
        rules.set_issuer(&[&self.config.issuer]);
        rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let token = decode::<Claims>(text, key, &rules);
        let claims = token.map_err(|error| refused(error.kind()))?.claims;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        claims::check(&claims, &self.config, now).map_err(Refusal::Invalid)?;
        Ok(claims)
    }

    /// The subject of claims that hold.
    fn subject(&self, claims: &Claims) -> Result<Subject, Refusal> {
        let name = claims::subject(claims).unwrap_or_default();
        let grant = claims::granted(claims, &self.config.grants).ok_or(Refusal::Nothing)?;
        let user = self.users.get(name).cloned();
        let mut scopes: Vec<_> = grant
            .scopes
            .iter()
            .filter_map(|word| Scope::parse(word))
            .collect();
        if user.is_none() {
            scopes.retain(|scope| *scope == Scope::Inference);
        }
        let id = PrincipalId::Subject {
            subject: hash(&[&self.config.issuer, name]),
            rights: rights_of(grant.model.as_deref()),
            owner: user.as_ref().map(|(uid, _)| *uid),
        };
        Ok(Subject {
            id,
            user,
            scopes,
            per_minute: grant.limit,
        })
    }

    /// Keys among which `has` finds what it needs, as far as the issuer has them.
    async fn keys_for(
        self: &Arc<Self>,
        source: Option<&Arc<dyn KeySource>>,
        has: impl Fn(&Keys) -> bool,
    ) -> Result<Arc<Keys>, Refusal> {
        let (known, came, ended) = {
            let cached = lock(&self.keys);
            (cached.keys.clone(), cached.came, cached.ended)
        };
        let is_fresh = came.is_some_and(|came| came.elapsed() < REFRESH);
        if self.config.keys.is_some() || is_fresh && has(&known) {
            return Ok(known);
        }
        let Some(source) = source.cloned() else {
            return Err(Refusal::NoKeys("nothing is fetched here".into()));
        };
        // On a task of its own: whoever hangs up does not keep the others from the keys.
        let issuer = self.clone();
        let _ = tokio::spawn(async move { issuer.fetch(&*source, ended).await }).await;
        let cached = lock(&self.keys);
        match cached.came {
            Some(came) if came.elapsed() < LONGEST_KEYS => Ok(cached.keys.clone()),
            _ => Err(Refusal::NoKeys(cached.failure.clone().unwrap_or_else(
                || "they are asked for too often; try again in a minute".into(),
            ))),
        }
    }

    /// Fetches the keys, unless that was done since `ended` fetches had ended, or is done too often.
    async fn fetch(&self, source: &dyn KeySource, ended: u64) {
        let _alone = self.fetching.lock().await;
        {
            let mut cached = lock(&self.keys);
            if cached.ended != ended || cached.pace.take(Instant::now()).is_err() {
                return;
            }
        }
        let fetched = self.discover(source).await;
        let mut cached = lock(&self.keys);
        cached.ended += 1;
        let issuer = &self.config.issuer;
        match fetched {
            Ok(keys) => {
                tracing::info!(issuer, "the issuer's keys were fetched");
                cached.keys = Arc::new(keys);
                cached.came = Some(Instant::now());
                cached.failure = None;
            }
            Err(error) => {
                tracing::warn!(issuer, error, "the issuer's keys cannot be fetched");
                cached.failure = Some(error);
            }
        }
    }

    async fn discover(&self, source: &dyn KeySource) -> Result<Keys, String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let first = format!("{}{DISCOVERY}", self.config.issuer.trim_end_matches('/'));
        let found = source.fetch(first.clone(), first.clone()).await?;
        let found: Discovery = serde_json::from_slice(&found)
            .map_err(|_| "what its discovery answers has no `issuer` and `jwks_uri`".to_owned())?;
        if found.issuer != self.config.issuer {
            return Err("its discovery names another issuer".into());
        }
        let keys = source.fetch(found.jwks_uri, first).await?;
        Keys::parse(&keys)
    }
}

fn refused(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => Refusal::Invalid("is not good yet (`nbf`)"),
        ErrorKind::InvalidAudience => Refusal::Invalid("is meant for another audience (`aud`)"),
        ErrorKind::InvalidIssuer => Refusal::Invalid("is of another issuer"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            Refusal::Invalid("lacks one of `exp`, `aud`, `iss` and `sub`, or has a strange one")
        }
        ErrorKind::InvalidSignature => Refusal::Invalid("has a signature that does not hold"),
        _ => Refusal::Invalid("cannot be read"),
    }
}

/// 16 bytes of a hash of texts.
fn hash(texts: &[&str]) -> u128 {
    let hashed = digest::digest(&digest::SHA256, texts.join("\0").as_bytes());
    let (first, _) = hashed.as_ref().split_at(16);
    first
        .iter()
        .fold(0, |all, byte| all << 8 | u128::from(*byte))
}

/// Tells those who may ask one model from those who may ask all (0).
fn rights_of(model: Option<&str>) -> u64 {
    model.map_or(0, |model| hash(&[model]) as u64 | 1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
