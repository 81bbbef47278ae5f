//! Services on other machines that may answer in this one's place: those that `[[upstream]]` names, for
//! the models and the users that it names. `docs/upstreams.md` says what an administrator should know.
//!
//! ```text
//!   choose.rs who is asked, in which order ─▶ attempt.rs one upstream, tried again ─▶ exchange.rs one connection
//!                                                        request.rs what is sent, stream.rs what comes back
//! ```

mod attempt;
mod breaker;
mod choose;
mod exchange;
mod request;
mod stream;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::backend::{
    Answer, Failure, Remote, RemoteModel, RemoteStatus, Reply, UpstreamFault, Why,
};
use crate::chat::{ChatRequest, PrincipalId};
use crate::config;
use breaker::Breaker;
pub use exchange::Way;

/// Bytes of an API key.
const LONGEST_KEY: usize = 4096;

/// Whether a principal is one of these users, or in one of these groups; `None`: it cannot be found out now.
pub type Rights = Arc<
    dyn Fn(PrincipalId, Vec<String>, Vec<String>) -> BoxFuture<'static, Option<bool>> + Send + Sync,
>;

/// How long it is gone by what the system's lists said of somebody.
const FRESH: Duration = Duration::from_secs(60);
/// How long they may take to say it.
const LOOK: Duration = Duration::from_secs(10);
/// Principals of whom it is known.
const MOST_KNOWN: usize = 1024;

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    way: Arc<Way>,
    rights: Rights,
    all: Arc<RwLock<Arc<[Arc<Upstream>]>>>,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.all().iter().map(|one| &one.settings.name))
            .finish()
    }
}

/// One of them.
struct Upstream {
    settings: config::Upstream,
    /// Why there is no key, if there should be one.
    key: Result<Option<String>, String>,
    breaker: Mutex<Breaker>,
    running: AtomicU32,
    served: AtomicU64,
    failed: AtomicU64,
    cause: Mutex<Option<String>>,
    /// Who may use it, as the system's lists said then.
    known: Mutex<HashMap<PrincipalId, (Instant, bool)>>,
}

impl Upstreams {
    /// `way`: how connections are had. `rights` tells who is among the users of one. Reads the keys.
    pub fn new(settings: &[config::Upstream], way: Way, rights: Rights) -> Self {
        let upstreams = Self {
            way: Arc::new(way),
            rights,
            all: Arc::default(),
        };
        upstreams.set(settings);
        upstreams
    }

    /// Goes by these settings from now on. What has begun goes on. Reads the keys.
    pub fn set(&self, settings: &[config::Upstream]) {
        let old = self.all();
        let made = settings.iter().map(|settings| {
            let kept = old.iter().find(|old| old.settings == *settings);
            let key = key(
                settings,
                std::env::var_os("CREDENTIALS_DIRECTORY").as_deref(),
            );
            match (kept, key) {
                (Some(old), key) if old.key == key => old.clone(),
                (_, key) => Arc::new(Upstream::new(settings.clone(), key)),
            }
        });
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = made.collect();
    }

    fn all(&self) -> Arc<[Arc<Upstream>]> {
        self.all
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Those that may be asked, in no order.
    fn taking(&self, owner: PrincipalId, model: &str, why: Why) -> Vec<Arc<Upstream>> {
        let all = self.all();
        let taking = all
            .iter()
            .filter(|one| one.theirs(model).is_some() && one.takes(why) && one.is_for(owner));
        taking.cloned().collect()
    }
}

impl Upstream {
    fn new(settings: config::Upstream, key: Result<Option<String>, String>) -> Self {
        if let Err(reason) = &key {
            tracing::warn!(upstream = settings.name, reason, "an upstream has no key");
        }
        Self {
            settings,
            key,
            breaker: Mutex::default(),
            running: AtomicU32::new(0),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cause: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// What it calls the model of this name.
    fn theirs(&self, model: &str) -> Option<&str> {
        let models = self.settings.models.iter();
        let mut named = models.filter(|one| one.asked.eq_ignore_ascii_case(model));
        named.next().map(|one| one.theirs.as_str())
    }

    fn is_for_everybody(&self) -> bool {
        self.settings.users.iter().any(|user| user == "*")
    }

    /// Whether somebody may use it, as far as that was found out.
    fn is_for(&self, owner: PrincipalId) -> bool {
        let known = || self.known().get(&owner.account()).map(|(_, may)| *may);
        self.is_for_everybody() || known() == Some(true)
    }

    /// Finds out whether somebody may use it, unless that is known.
    async fn meet(&self, owner: PrincipalId, rights: &Rights) {
        let who = owner.account();
        let is_fresh = |(at, _): &(Instant, bool)| at.elapsed() < FRESH;
        if self.is_for_everybody() || self.known().get(&who).is_some_and(is_fresh) {
            return;
        }
        let config::Upstream { users, groups, .. } = &self.settings;
        let looked = timeout(LOOK, rights(who, users.clone(), groups.clone())).await;
        let mut known = self.known();
        match looked {
            Ok(Some(may)) => {
                if known.len() >= MOST_KNOWN {
                    known.clear();
                }
                known.insert(who, (Instant::now(), may));
            }
            // Whoever was somebody a minute ago may be nobody now.
            Ok(None) | Err(_) => {
                known.remove(&who);
                tracing::warn!(upstream = self.settings.name, %who, "it cannot be found out whether this user may use the upstream");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PrincipalId, (Instant, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes(&self, why: Why) -> bool {
        match why {
            Why::Named => true,
            Why::Failover => self.settings.failover,
            Why::Overflow(waiting) => {
                let least = self.settings.overflow;
                least > 0 && waiting >= least
            }
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.breaker().succeed();
    }

    /// It did not answer. `cause` is shown to everybody, so it quotes nobody.
    fn failed(&self, cause: &str) {
        self.breaker().fail(Instant::now());
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_owned());
        tracing::warn!(
            upstream = self.settings.name,
            cause,
            "an upstream does not answer"
        );
    }

    fn status(&self) -> RemoteStatus {
        let models = self.settings.models.iter();
        RemoteStatus {
            name: self.settings.name.clone(),
            models: models.map(|model| model.asked.clone()).collect(),
            running: self.running.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            cause: match &self.key {
                Err(reason) => Some(reason.clone()),
                Ok(_) => self
                    .cause
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
            },
            resting: self.breaker().rest(Instant::now()),
        }
    }
}

impl Remote for Upstreams {
    fn meet<'a>(&'a self, owner: PrincipalId, model: Option<&'a str>) -> BoxFuture<'a, ()> {
        let all = self.all();
        async move {
            let is_meant =
                |one: &&Arc<Upstream>| model.is_none_or(|model| one.theirs(model).is_some());
            for one in all.iter().filter(is_meant) {
                one.meet(owner, &self.rights).await;
            }
        }
        .boxed()
    }

    fn takes(&self, owner: PrincipalId, model: &str, why: Why) -> bool {
        !self.taking(owner, model, why).is_empty()
    }

    fn chat<'a>(
        &'a self,
        owner: PrincipalId,
        model: &'a str,
        why: Why,
        request: ChatRequest,
    ) -> Reply<'a, Answer> {
        let taking = self.taking(owner, model, why);
        Box::pin(async move {
            let mut left = taking;
            let mut last = None;
            while let Some(next) = choose::next(&mut left, |one| &one.settings, random()) {
                match attempt::ask(&self.way, next, model, &request).await {
                    Ok(answer) => return Ok(answer),
                    // Another one would refuse it as well.
                    Err(failure) if failure.is_of_the_request() => return Err(failure),
                    Err(failure) => last = Some(failure),
                }
            }
            Err(last.unwrap_or_else(|| Failure::Upstream {
                fault: UpstreamFault::Unavailable,
                text: format!("no upstream is set up for `{model}` any more"),
            }))
        })
    }

    fn models(&self, owner: PrincipalId) -> Vec<RemoteModel> {
        let all = self.all();
        let mine = all.iter().filter(|one| one.is_for(owner));
        mine.flat_map(|one| {
            let models = one.settings.models.iter();
            models.map(|model| RemoteModel {
                id: model.asked.clone(),
                upstream: one.settings.name.clone(),
            })
        })
        .collect()
    }

    fn statuses(&self) -> Vec<RemoteStatus> {
        self.all().iter().map(|one| one.status()).collect()
    }
}

/// For choices among equals and for pauses; no secret.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// The API key of an upstream. `credentials`: where systemd passes them.
///
/// # Errors
/// There should be one, and it cannot be used: a sentence.
fn key(
    settings: &config::Upstream,
    credentials: Option<&std::ffi::OsStr>,
) -> Result<Option<String>, String> {
    let (file, must) = match (&settings.key_file, credentials) {
        (Some(file), _) => (file.clone(), true),
        (None, Some(folder)) => {
            let name = format!("upstream-{}", settings.name);
            (PathBuf::from(folder).join(name), false)
        }
        (None, None) => return Ok(None),
    };
    match read_key(&file) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must => Ok(None),
        Err(error) => Err(format!(
            "its key cannot be read: {}: {error}; `key-file` in gemmad.toml names it",
            file.display()
        )),
    }
}

fn read_key(file: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    let most = LONGEST_KEY as u64 + 1;
    fs::File::open(file)?.take(most).read_to_string(&mut text)?;
    let key = text.trim();
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.len() > LONGEST_KEY || !is_key {
        return Err(io::Error::other("it has no key of printable characters"));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests;
