//! Tokens: a part of a user's rights, for whoever has the text, for at most twelve hours.
//!
//! The text has a number and a signature ([`secret`]); what the token is good for is in the daemon's
//! own file ([`state`]), with the key, unless the service manager keeps that ([`given`]). A token is taken only if both say so: a text that is not in
//! the file is nobody's, whatever its signature. The text itself is kept nowhere, and no log line
//! has a part of it but the number.

mod given;
pub(super) mod pace;
mod secret;
mod state;

pub use secret::PREFIX;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use given::Given;
use pace::Pace;
use secret::Number;
use state::State;

/// How long a token is good for at most.
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Tokens of one user that are good at the same time.
pub const MOST_OF_USER: usize = 64;
/// Of all users together.
pub const MOST: usize = 1024;
/// Requests a minute at most that a token can be held to.
pub const MOST_A_MINUTE: u32 = 100_000;
/// Bytes of the model's name that a token is for.
pub const MODEL_BYTES: usize = 256;
/// Groups of the issuer that a token remembers. Rights that come from further ones it does not have.
const GROUPS: usize = 64;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To ask.
    Inference,
    /// To bring, check and remove models, as far as the issuer may.
    Models,
    /// What else is for administrators, if the issuer is one.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Inference, Self::Models, Self::Admin];

    pub fn word(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Models => "models",
            Self::Admin => "admin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, which its text has as well.
    pub id: u64,
    /// Who issued it.
    pub uid: u32,
    /// The issuer's name, if they had one: their number may be another's one day.
    #[serde(default)]
    pub name: Option<String>,
    /// The groups that the issuer had.
    pub groups: Vec<u32>,
    pub scopes: Vec<Scope>,
    /// The only model that it may ask, by its id.
    pub model: Option<String>,
    /// Requests a minute.
    pub per_minute: Option<u32>,
    /// Seconds since 1970.
    pub issued: u64,
    pub expires: u64,
    pub revoked: bool,
}

impl Record {
    fn is_good(&self, now: u64) -> bool {
        !self.revoked && now < self.expires
    }
}

/// What a new token is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub uid: u32,
    pub name: Option<String>,
    pub groups: Arc<[u32]>,
    pub scopes: Vec<Scope>,
    pub model: Option<String>,
    pub per_minute: Option<u32>,
    pub ttl: Duration,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not written like one, or another key has signed it.
    Invalid,
    Expired,
    Revoked,
    /// It is signed, and not in the file.
    Unknown,
}

/// Why nothing was issued or changed.
#[derive(Debug)]
pub enum Fault {
    /// The configuration has no place for them.
    Off,
    /// The file could not be used at the start.
    Broken(String),
    /// The service manager keeps the key.
    GivenKey,
    /// The issuer, or everybody together, has as many as can be.
    Full { limit: usize },
    /// The file cannot be written.
    Disk(io::Error),
}

/// Where the key is that signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signs {
    /// In the daemon's own file, with the tokens.
    File,
    /// With the service manager.
    Credential,
}

/// All tokens.
#[derive(Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
    /// Why there are none and can be none.
    broken: Option<String>,
    /// The service manager's.
    given: Given,
    inner: Mutex<Inner>,
    /// Told when tokens are revoked.
    revoked: watch::Sender<()>,
    /// One change at a time: each writes the whole file.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// Of those that have a limit and were used.
    paces: HashMap<u64, Pace>,
}

impl Tokens {
    /// What the file has. One that is there and cannot be used is logged; then no token is taken, and
    /// none is issued.
    pub fn open(file: Option<PathBuf>) -> Self {
        let read = file.as_deref().map(State::read).transpose();
        let (state, broken) = match read {
            Ok(state) => (state.unwrap_or_default(), None),
            Err(error) => {
                let shown = file.as_deref().unwrap_or("".as_ref()).display();
                tracing::error!(file = %shown, %error, "the tokens cannot be read, and none is taken");
                let message = format!(
                    "{shown}: {error}; mend or remove it (`token-file` in gemmad.toml) and start the daemon again"
                );
                (State::default(), Some(message))
            }
        };
        Self {
            file,
            broken,
            given: Given::default(),
            inner: Mutex::new(Inner {
                state,
                paces: HashMap::new(),
            }),
            revoked: watch::Sender::new(()),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The same, signed with the key among these credentials of the service manager's, if it is there. One that
    /// cannot be used is logged; then no token is taken, and none is issued.
    pub fn with_credentials(mut self, folder: &Path) -> Self {
        match Given::read(folder) {
            Ok(given) => self.given = given,
            Err(why) => {
                tracing::error!(%why, "the key of tokens cannot be used, and no token is taken");
                let message =
                    format!("{why}; mend it (LoadCredential=) and start the daemon again");
                self.broken.get_or_insert(message);
                *self.inner() = Inner::default();
            }
        }
        if self.signs() == Some(Signs::Credential) {
            tracing::info!(
                credential = given::SIGNS,
                "tokens are signed with a key that the service manager keeps"
            );
        }
        self
    }

    /// Where the key is that signs; `None`: nothing is signed here.
    pub fn signs(&self) -> Option<Signs> {
        if self.file.is_none() || self.broken.is_some() {
            return None;
        }
        Some(match self.given.signing_key() {
            Some(_) => Signs::Credential,
            None => Signs::File,
        })
    }

    /// Why none is taken and none can be issued, if the file or the key cannot be used.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// The token that is written like this, if it is good.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn check(&self, text: &str, now: SystemTime) -> Result<Arc<Record>, Refusal> {
        let now = seconds(now);
        let inner = self.inner();
        let key = |id| self.given.key(id).or_else(|| inner.state.key(id));
        let number = secret::verify(text, key).ok_or(Refusal::Invalid)?;
        if now >= number.expires {
            return Err(Refusal::Expired);
        }
        let record = inner.state.record(number.id).ok_or(Refusal::Unknown)?;
        match record {
            record if record.revoked => Err(Refusal::Revoked),
            record if now >= record.expires => Err(Refusal::Expired),
            record => Ok(Arc::new(record.clone())),
        }
    }

    /// Counts a request of this token; or says how long it has to wait.
    ///
    /// # Errors
    ///
    /// The time after which one more is within its limit.
    pub fn count(&self, record: &Record, now: Instant) -> Result<(), Duration> {
        let Some(limit) = record.per_minute else {
            return Ok(());
        };
        let mut inner = self.inner();
        let pace = inner.paces.entry(record.id);
        pace.or_insert_with(|| Pace::new(limit, now)).take(now)
    }

    /// What is known of a token; nothing of one that is forgotten because it is over.
    pub fn record(&self, id: u64) -> Option<Record> {
        self.inner().state.record(id).cloned()
    }

    /// Waits until this token is revoked.
    pub async fn until_revoked(&self, id: u64) {
        let mut told = self.revoked.subscribe();
        while !self.record(id).is_some_and(|record| record.revoked) {
            // It is told for as long as we are there.
            let _ = told.changed().await;
        }
    }

    /// Issues a token: its text, which nobody can show again, and what is known of it.
    ///
    /// # Errors
    ///
    /// There are too many, or nothing can be kept.
    pub async fn issue(
        &self,
        order: Order,
        account: impl Fn(u32) -> u32,
        now: SystemTime,
    ) -> Result<(String, Record), Fault> {
        let _alone = self.changing.lock().await;
        let now = seconds(now);
        let mut state = self.current(now)?;
        let good = |mine: bool| {
            let records = state.records().filter(|record| record.is_good(now));
            records
                .filter(|record| !mine || account(record.uid) == account(order.uid))
                .count()
        };
        if good(true) >= MOST_OF_USER {
            return Err(Fault::Full {
                limit: MOST_OF_USER,
            });
        }
        if good(false) >= MOST {
            return Err(Fault::Full { limit: MOST });
        }
        let ttl = order.ttl.min(LONGEST).as_secs();
        let record = Record {
            id: state.free_number().map_err(Fault::Disk)?,
            uid: order.uid,
            name: order.name,
            groups: order.groups.iter().copied().take(GROUPS).collect(),
            scopes: order.scopes,
            model: order.model,
            per_minute: order.per_minute.map(|limit| limit.min(MOST_A_MINUTE)),
            issued: now,
            expires: now + ttl,
            revoked: false,
        };
        let number = Number {
            id: record.id,
            expires: record.expires,
        };
        let text = match self.given.signing_key() {
            Some((id, key)) => {
                // What the file's has signed is good until it is over; a copy of it makes no more.
                state.retire(now + LONGEST.as_secs());
                secret::write(number, id, key)
            }
            None => {
                let (id, key) = state.signing_key().map_err(Fault::Disk)?;
                secret::write(number, id, key)
            }
        };
        state.add(record.clone());
        self.keep(state).await?;
        Ok((text, record))
    }

    /// Those that are not over: of one user, or of all. Revoked ones are among them.
    pub fn list(&self, uid: Option<u32>, now: SystemTime) -> Vec<Record> {
        let now = seconds(now);
        let inner = self.inner();
        let records = inner.state.records().filter(|record| now < record.expires);
        let mut found: Vec<_> = records
            .filter(|record| uid.is_none_or(|uid| record.uid == uid))
            .cloned()
            .collect();
        found.sort_by_key(|record| (record.issued, record.id));
        found
    }

    /// Revokes one token, or all, of one user's or of everybody's: as many as that. It holds at once; that it
    /// cannot be written is said after that.
    ///
    /// # Errors
    ///
    /// They are revoked, but for the daemon's next start.
    pub async fn revoke(
        &self,
        id: Option<u64>,
        uid: Option<u32>,
        now: SystemTime,
    ) -> Result<usize, Fault> {
        let _alone = self.changing.lock().await;
        let mut state = self.current(seconds(now))?;
        let revoked = state.revoke(|record| {
            id.is_none_or(|id| record.id == id) && uid.is_none_or(|uid| record.uid == uid)
        });
        if revoked > 0 {
            self.inner().state = state.clone();
            self.revoked.send_replace(());
            self.keep(state).await?;
        }
        Ok(revoked)
    }

    /// Signs with a new key from now on. The old one is good for what it has signed, and forgotten when
    /// that is over.
    ///
    /// # Errors
    ///
    /// Nothing can be kept; or the service manager keeps the key.
    pub async fn rotate(&self, now: SystemTime) -> Result<(), Fault> {
        if self.signs() == Some(Signs::Credential) {
            return Err(Fault::GivenKey);
        }
        let _alone = self.changing.lock().await;
        let now = seconds(now);
        let mut state = self.current(now)?;
        state.rotate(now + LONGEST.as_secs()).map_err(Fault::Disk)?;
        self.keep(state).await
    }

    /// A copy to be changed, without what is over.
    fn current(&self, now: u64) -> Result<State, Fault> {
        if let Some(broken) = &self.broken {
            return Err(Fault::Broken(broken.clone()));
        }
        if self.file.is_none() {
            return Err(Fault::Off);
        }
        let mut state = self.inner().state.clone();
        state.forget_old(now);
        Ok(state)
    }

    /// Writes the file; then the state is the current one.
    async fn keep(&self, state: State) -> Result<(), Fault> {
        let Some(file) = self.file.clone() else {
            return Err(Fault::Off);
        };
        let written = state.clone();
        tokio::task::spawn_blocking(move || written.write(&file))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(Fault::Disk)?;
        let mut inner = self.inner();
        inner.paces.retain(|id, _| state.record(*id).is_some());
        inner.state = state;
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held; and if it did, the state would still be one of the two.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests;
