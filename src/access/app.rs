//! Apps that have sockets of their own. Whoever is connected to one is that app: of whom the kernel says that they are connected,
//! nothing counts there. So a container that sees no other socket has the app's rights, whatever user it runs as, and another
//! user's files, responses and cached prompts are no more its own than anybody else's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::token::Scope;
use super::token::pace::Pace;
use crate::chat::AppName;
use crate::config;

/// What the names of sockets begin with that systemd passes for apps (`FileDescriptorName=` in systemd.socket(5)). The rest is the
/// app's name.
pub const SOCKETS: &str = "app-";

/// An app, with what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    pub name: AppName,
    pub scopes: Vec<Scope>,
    /// The ids of the models that it may ask, of which the first is its `auto`; empty: all.
    pub models: Vec<String>,
    /// Requests a minute.
    pub per_minute: Option<u32>,
}

impl App {
    /// One that the configuration does not mention: it may ask.
    fn plain(name: AppName) -> Self {
        Self {
            name,
            scopes: vec![Scope::Inference],
            models: vec![],
            per_minute: None,
        }
    }

    fn of(config: &config::App) -> Option<Self> {
        let scopes = config.scopes.iter();
        Some(Self {
            name: AppName::parse(&config.name)?,
            scopes: scopes.filter_map(|word| Scope::parse(word)).collect(),
            models: config.models.clone(),
            per_minute: config.limit,
        })
    }
}

/// All apps.
#[derive(Debug, Default)]
pub struct Apps {
    /// Those of the configuration; replaced when that is read again.
    configured: RwLock<HashMap<AppName, Arc<App>>>,
    /// Those whose sockets systemd has passed. They need no configuration.
    passed: OnceLock<HashSet<AppName>>,
    /// Of those that have a limit.
    paces: Mutex<HashMap<AppName, Pace>>,
}

impl Apps {
    /// Goes by this configuration from now on, whose names have been checked.
    pub fn set(&self, configured: &[config::App]) {
        let apps = configured.iter().filter_map(App::of);
        let apps: HashMap<_, _> = apps.map(|app| (app.name, Arc::new(app))).collect();
        let limit = |apps: &HashMap<AppName, Arc<App>>, name: &AppName| apps.get(name)?.per_minute;
        let mut known = self
            .configured
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // What was asked counts as long as the limit is the same.
        self.paces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|name, _| limit(&known, name) == limit(&apps, name));
        *known = apps;
    }

    /// Says which apps' sockets systemd has passed. Said once.
    pub fn set_passed(&self, names: HashSet<AppName>) {
        // What was passed at the start is what there is.
        let _ = self.passed.set(names);
    }

    /// What the app of this name may do now; `None`: it may do nothing any more.
    pub fn find(&self, name: AppName) -> Option<Arc<App>> {
        let known = self
            .configured
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let is_passed = || self.passed.get().is_some_and(|all| all.contains(&name));
        match known.get(&name) {
            Some(app) => Some(app.clone()),
            None => is_passed().then(|| Arc::new(App::plain(name))),
        }
    }

    /// Counts a request of an app; or says how long it has to wait.
    ///
    /// # Errors
    /// The limit, and the time after which one more is within it.
    pub fn count(&self, app: &App, now: Instant) -> Result<(), (u32, Duration)> {
        let Some(limit) = app.per_minute else {
            return Ok(());
        };
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.entry(app.name);
        let pace = pace.or_insert_with(|| Pace::new(limit, now));
        pace.take(now).map_err(|after| (limit, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_has_what_its_table_says_and_without_one_it_asks() {
        let name = |name: &str| AppName::parse(name).unwrap();
        let apps = Apps::default();
        apps.set_passed(HashSet::from([name("notes"), name("mail")]));
        let table = |name: &str| config::App {
            name: name.into(),
            scopes: vec!["inference".into(), "models".into()],
            models: vec!["a".into()],
            limit: Some(2),
            ..config::App::default()
        };
        apps.set(&[table("mail"), table("draw")]);
        let of = |app: &str| apps.find(name(app));
        assert_eq!(of("notes"), Some(Arc::new(App::plain(name("notes")))));
        let mail = of("mail").unwrap();
        assert_eq!(mail.scopes, [Scope::Inference, Scope::Models]);
        assert_eq!(of("other"), None);
        // Each has its own minute.
        let now = Instant::now();
        let draw = of("draw").unwrap();
        assert!(apps.count(&mail, now).is_ok() && apps.count(&mail, now).is_ok());
        assert!(matches!(apps.count(&mail, now), Err((2, _))));
        assert!(apps.count(&draw, now).is_ok());

        // The configuration is read again, and has neither.
        apps.set(&[]);
        assert_eq!(of("draw"), None);
        assert_eq!(of("mail").unwrap().models, Vec::<String>::new());
    }
}
