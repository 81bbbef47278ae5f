//! Who may do what. The kernel says who the caller is; the configuration says who may change
//! things.
//!
//! Everyone who can open the socket may ask, so asking is the business of the socket's mode and
//! group. Loading and unloading take memory from everyone else, so they are for administrators, and
//! so is what else concerns the machine more than one's own requests: root, the daemon's own user,
//! and those named in `[access]`, themselves or by a group.
//!
//! A token ([`token`]) stands for a part of the rights of the user who issued it. What it may do is
//! what its scopes and that user's present rights have in common. So it is with tokens of other issuers
//! ([`oidc`]), where the configuration says which user somebody is; others ask, and no more.
//!
//! Apps and containers have sockets of their own ([`app`]): there nobody is a user.

pub mod admission;
pub mod app;
mod names;
pub mod oidc;
pub mod quota;
mod subuid;
pub mod token;

use std::io;
use std::slice::from_ref;
use std::sync::Arc;

use nix::unistd::{Group, User, getgrouplist};
use tokio::net::UnixStream;

use self::admission::Admission;
use self::app::App;
pub use self::names::name_of;
use self::oidc::Subject;
use self::subuid::SubordinateIds;
use self::token::{Record, Scope};
use crate::chat::{AppName, PrincipalId};
use crate::config::{Access, Config, GATEWAY, INSTALLERS, Models};
use crate::sys::socket;

/// Who asks, and what their rights follow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A Unix user, with all their groups in no order. `owner`: the user to whom the number is
    /// assigned for containers, if it is not a user's own.
    User {
        uid: u32,
        groups: Arc<[u32]>,
        owner: Option<u32>,
    },
    /// Whoever has a token. `owner`: the account of the user who issued it.
    Token { record: Arc<Record>, owner: u32 },
    /// Whoever has a token of an OpenID Connect issuer.
    Subject(Arc<Subject>),
    /// Whoever is connected to an app's socket.
    App(Arc<App>),
}

impl Principal {
    /// The key under which their requests, quotas and files are held.
    pub fn id(&self) -> PrincipalId {
        match self {
            Self::User {
                uid,
                owner: Some(owner),
                ..
            } => PrincipalId::SubUser {
                uid: *uid,
                owner: *owner,
            },
            Self::User { uid, .. } => PrincipalId::User(*uid),
            Self::Token { record, owner } => PrincipalId::Token {
                id: record.id,
                owner: *owner,
            },
            Self::Subject(subject) => subject.id,
            Self::App(app) => PrincipalId::App(app.name),
        }
    }

    /// Whether it may do what this scope is for, as far as that is the principal's own matter: users
    /// are kept from nothing here.
    pub fn has(&self, scope: Scope) -> bool {
        match self {
            Self::User { .. } => true,
            Self::Token { record, .. } => record.scopes.contains(&scope),
            Self::Subject(subject) => subject.scopes.contains(&scope),
            Self::App(app) => app.scopes.contains(&scope),
        }
    }

    /// The user, with the groups, whose rights it has, or has a part of; `None`: nobody of this machine.
    fn user(&self) -> Option<(u32, &[u32])> {
        match self {
            Self::User { uid, groups, .. } => Some((*uid, groups)),
            Self::Token { record, .. } => Some((record.uid, &record.groups)),
            Self::Subject(subject) => subject.user.as_ref().map(|(uid, groups)| (*uid, &**groups)),
            Self::App(_) => None,
        }
    }

    /// Whether this is one of the users, or a member of one of the groups, who may manage models. Names that this machine
    /// does not have name nobody.
    pub fn is_among(&self, users: &[String], groups: &[String]) -> bool {
        self.has(Scope::Models) && self.is_one_of(users, groups)
    }

    /// Whether this is one of the users, or a member of one of the groups. Names that this machine does not have name nobody.
    /// Blocks on the system's lists.
    pub fn is_one_of(&self, users: &[String], groups: &[String]) -> bool {
        self.is_among_found(users, groups, find_user, find_group)
    }

    fn is_among_found(
        &self,
        users: &[String],
        groups: &[String],
        user: Lookup,
        group: Lookup,
    ) -> bool {
        let Some((uid, own)) = self.user() else {
            return false;
        };
        let number = |name: &String, lookup: Lookup| match lookup(name) {
            Ok(Some(number)) => Some(number),
            _ => name.parse().ok(),
        };
        let is_user = users.iter().any(|name| number(name, user) == Some(uid));
        is_user
            || groups
                .iter()
                .filter_map(|name| number(name, group))
                .any(|number| own.contains(&number))
    }
}

/// Who is at the other end of a connection, as the kernel saw it when they connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub principal: Principal,
    /// For log lines only: by now it may be another process. `None` if it is outside of our PID
    /// namespace.
    pub pid: Option<i32>,
}

impl Caller {
    /// Asks the kernel (`SO_PEERCRED`, `SO_PEERGROUPS`).
    pub fn of(stream: &UnixStream, admission: &Admission) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let mut groups = socket::peer_groups(stream)?;
        groups.push(peer.gid());
        Ok(Self {
            principal: admission.principal(peer.uid(), groups.into()),
            pid: peer.pid(),
        })
    }

    /// Whoever is connected to this app's socket: who that is plays no part. `None`: the app may do nothing any more.
    pub fn of_app(stream: &UnixStream, name: AppName, admission: &Admission) -> Option<Self> {
        Some(Self {
            principal: Principal::App(admission.apps.find(name)?),
            pid: stream.peer_cred().ok().and_then(|peer| peer.pid()),
        })
    }

    /// See [`Principal::id`].
    pub fn id(&self) -> PrincipalId {
        self.principal.id()
    }
}

/// Who may do more than ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The user that the daemon runs as.
    own: u32,
    admins: Vec<u32>,
    admin_groups: Vec<u32>,
    /// The user that the gateway runs as, where there is one.
    gateway: Option<u32>,
    subordinate: SubordinateIds,
}

/// What a configuration names and this machine does not have, a sentence for each key: with any of
/// these the daemon does not start.
pub fn unknown_names(config: &Config) -> Vec<String> {
    let (access, group) = (&config.access, config.server.socket_group.as_slice());
    let installers = Some(&config.models.installers)
        .filter(|name| !name.is_empty() && *name != INSTALLERS)
        .cloned();
    let gateway = Some(&config.access.gateway)
        .filter(|name| !name.is_empty() && *name != GATEWAY)
        .cloned();
    let checks = [
        numbers("access.gateway", "user", gateway.as_slice(), find_user),
        numbers("access.admins", "user", &access.admins, find_user),
        numbers(
            "access.admin-groups",
            "group",
            &access.admin_groups,
            find_group,
        ),
        numbers(
            "models.installers",
            "group",
            installers.as_slice(),
            find_group,
        ),
        numbers("server.socket-group", "group", group, find_group),
    ];
    let apps = config.apps.iter();
    let apps = apps.map(|app| {
        let group = app.socket_group.as_slice();
        numbers("app.socket-group", "group", group, find_group)
    });
    let users = config.oidc.iter().flat_map(|issuer| issuer.users.values());
    let subjects = users.map(|user| numbers("oidc.users", "user", from_ref(user), find_user));
    let checks = checks.into_iter().chain(apps).chain(subjects);
    checks.filter_map(Result::err).collect()
}

fn find_user(name: &str) -> nix::Result<Option<u32>> {
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

fn find_group(name: &str) -> nix::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// The number and the groups of a user whom the configuration names. Blocks on the system's lists.
///
/// # Errors
/// There is no such user.
pub fn user_of_subject(name: &str) -> Result<(u32, Arc<[u32]>), String> {
    let found = numbers("oidc.users", "user", &[name.to_owned()], find_user)?;
    let uid = found.first().copied().unwrap_or(u32::MAX);
    Ok((uid, groups_of(uid).into()))
}

/// The groups of a user, by the system's lists; of one who is in none of them: none.
fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(uid.into()) else {
        return vec![];
    };
    let Ok(name) = std::ffi::CString::new(user.name) else {
        return vec![];
    };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(|group| group.as_raw()).collect()
}

/// Finds the number of a name.
type Lookup = fn(&str) -> nix::Result<Option<u32>>;

impl Policy {
    /// Resolves the configured names once. The error is for whoever edits the configuration.
    pub fn new(access: &Access, own: u32) -> Result<Self, String> {
        let policy = Self::resolve(access, own, find_user, find_group)?;
        Ok(Self {
            subordinate: SubordinateIds::read(),
            ..policy
        })
    }

    fn resolve(access: &Access, own: u32, user: Lookup, group: Lookup) -> Result<Self, String> {
        let admins = numbers("access.admins", "user", &access.admins, user)?;
        let admin_groups = numbers("access.admin-groups", "group", &access.admin_groups, group)?;
        Ok(Self {
            own,
            admins,
            admin_groups,
            gateway: gateway(access, own, user)?,
            subordinate: SubordinateIds::default(),
        })
    }

    /// The principal that a user with these groups is.
    pub fn principal(&self, uid: u32, groups: Arc<[u32]>) -> Principal {
        Principal::User {
            uid,
            groups,
            owner: self.subordinate.owner(uid),
        }
    }

    /// The users and the groups whose model files may be used besides root's and the daemon's own:
    /// administrators, and the group that the configuration names.
    pub fn installers(&self, models: &Models) -> Result<(Vec<u32>, Vec<u32>), String> {
        self.resolve_installers(&models.installers, find_group)
    }

    fn resolve_installers(
        &self,
        name: &str,
        group: Lookup,
    ) -> Result<(Vec<u32>, Vec<u32>), String> {
        let mut groups = self.admin_groups.clone();
        // The group of a system where the service is installed; elsewhere there is none.
        let is_there = name != INSTALLERS || matches!(group(name), Ok(Some(_)));
        if !name.is_empty() && is_there {
            groups.extend(numbers(
                "models.installers",
                "group",
                &[name.to_owned()],
                group,
            )?);
        }
        Ok((self.admins.clone(), groups))
    }

    /// Whether this principal may do what is for administrators.
    pub fn may_administer(&self, principal: &Principal) -> bool {
        principal.has(Scope::Admin) && self.is_administrator(principal)
    }

    /// Whether this principal may bring, change and remove models: an administrator, but for tokens of theirs that
    /// are not meant for it.
    pub fn may_manage_models(&self, principal: &Principal) -> bool {
        principal.has(Scope::Models) && self.is_administrator(principal)
    }

    /// Whether it is an administrator, a token of one, or an app: its scopes are an administrator's to give.
    fn is_administrator(&self, principal: &Principal) -> bool {
        if let Principal::App(_) = principal {
            return true;
        }
        let Some((uid, groups)) = principal.user() else {
            return false;
        };
        uid == 0
            || uid == self.own
            || self.admins.contains(&uid)
            || self.admin_groups.iter().any(|group| groups.contains(group))
    }

    /// The user on whose account a user counts: the one to whom the number is subordinate (subuid(5)), or the same.
    pub fn account_of(&self, uid: u32) -> u32 {
        self.subordinate.owner(uid).unwrap_or(uid)
    }

    /// The principal that the holder of a token is.
    pub fn holder(&self, record: Arc<Record>) -> Principal {
        let owner = self.account_of(record.uid);
        Principal::Token { record, owner }
    }

    /// Whether this is the user of the gateway, who speaks for others.
    pub fn is_gateway(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::User { uid, .. } if Some(*uid) == self.gateway)
    }
}

/// The gateway's user. The usual one need not exist: without a gateway there is none.
fn gateway(access: &Access, own: u32, user: Lookup) -> Result<Option<u32>, String> {
    let name = &access.gateway;
    if name.is_empty() || name == GATEWAY && !matches!(user(name), Ok(Some(_))) {
        return Ok(None);
    }
    let found = numbers("access.gateway", "user", from_ref(name), user)?;
    match found.first() {
        Some(0) => Err("access.gateway names root; give the gateway a user of its own".to_owned()),
        Some(uid) if *uid == own => Err(
            "access.gateway names the daemon's own user; give the gateway a user of its own"
                .to_owned(),
        ),
        found => Ok(found.copied()),
    }
}

fn numbers(key: &str, kind: &str, names: &[String], lookup: Lookup) -> Result<Vec<u32>, String> {
    let number = |name: &String| {
        match lookup(name) {
        Ok(Some(number)) => Ok(number),
        // A number stands for itself: in a container the host's users have no names.
        Ok(None) => {
            name.parse().map_err(|_| format!("{key} names `{name}`, but there is no such {kind}; create the {kind} or take the name out"))
        }
        Err(error) => Err(format!("{key}: {kind} `{name}` cannot be looked up: {}", error.desc())),
    }
    };
    names.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, groups: &[u32]) -> Principal {
        Principal::User {
            uid,
            groups: groups.into(),
            owner: None,
        }
    }

    fn policy(admins: &[&str], groups: &[&str]) -> Result<Policy, String> {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let known: Lookup = |name| match name {
            "anna" => Ok(Some(1000)),
            "wheel" => Ok(Some(10)),
            "broken" => Err(nix::errno::Errno::EIO),
            _ => Ok(None),
        };
        Policy::resolve(
            &Access {
                admins: names(admins),
                admin_groups: names(groups),
                ..Access::default()
            },
            990,
            known,
            known,
        )
    }

    #[test]
    fn root_the_daemon_and_named_users_administer() {
        let policy = policy(&["anna", "1007"], &["wheel", "77"]).unwrap();
        for (uid, may) in [
            (0, true),
            (990, true),
            (1000, true),
            (1007, true),
            (1001, false),
            (65534, false),
            (10, false),
        ] {
            assert_eq!(
                policy.may_administer(&user(uid, &[100, 1000])),
                may,
                "uid {uid}"
            );
        }
        for (groups, may) in [
            (&[10][..], true),
            (&[100, 77], true),
            (&[100, 1000], false),
            (&[0], false),
            (&[], false),
        ] {
            assert_eq!(
                policy.may_administer(&user(1001, groups)),
                may,
                "groups {groups:?}"
            );
        }
    }

    #[test]
    fn who_is_named_by_name_number_or_group_is_among_them() {
        let one = |name: &str| Ok((name == "anna").then_some(1000));
        let staff = |name: &str| Ok((name == "staff").then_some(50));
        let is_among = |users: &[&str], groups: &[&str]| {
            let owned = |names: &[&str]| -> Vec<String> {
                names.iter().map(|name| (*name).to_owned()).collect()
            };
            user(1000, &[50]).is_among_found(&owned(users), &owned(groups), one, staff)
        };
        assert!(is_among(&["anna"], &[]) && is_among(&["1000"], &[]));
        assert!(is_among(&[], &["staff"]) && is_among(&["bob"], &["50"]));
        assert!(!is_among(&[], &[]) && !is_among(&["bob", "staff"], &["anna", "1000"]));
    }

    #[test]
    fn a_token_has_what_its_scopes_and_its_issuer_have_in_common() {
        let policy = policy(&["anna"], &["wheel"]).unwrap();
        let token = |uid, groups: &[u32], scopes: &[Scope]| {
            policy.holder(Arc::new(Record {
                id: 5,
                uid,
                name: None,
                groups: groups.into(),
                scopes: scopes.into(),
                model: None,
                per_minute: None,
                issued: 0,
                expires: 0,
                revoked: false,
            }))
        };
        let admin = token(1000, &[], &[Scope::Admin]);
        assert!(policy.may_administer(&admin) && !policy.may_manage_models(&admin));
        assert!(!admin.has(Scope::Inference));
        let models = token(1001, &[10], &[Scope::Models, Scope::Inference]);
        assert!(!policy.may_administer(&models) && policy.may_manage_models(&models));
        // Whoever is no administrator, or no more, gives nobody such rights.
        let nobody = token(1001, &[50], &Scope::ALL);
        assert!(!policy.may_administer(&nobody) && !policy.may_manage_models(&nobody));
        let one = |name: &str| Ok((name == "anna").then_some(1000));
        assert!(models.has(Scope::Models) && !models.is_among(&["1002".into()], &["11".into()]));
        assert!(models.is_among_found(&["1001".into()], &[], one, one));
        assert!(!admin.is_among(&["1000".into()], &[]), "not for models");
        let id = PrincipalId::Token { id: 5, owner: 1001 };
        assert_eq!((models.id(), id.account()), (id, PrincipalId::User(1001)));
        assert_ne!(nobody.id(), user(1001, &[50]).id());
        assert_eq!(id.to_string(), "1001 (token 0000000000000005)");
    }

    #[test]
    fn only_the_gateways_user_is_the_gateway() {
        let user_of = |gateway: &str, own| {
            let known: Lookup = |name| Ok((name == GATEWAY).then_some(980));
            let access = Access {
                gateway: gateway.into(),
                ..Access::default()
            };
            Policy::resolve(&access, own, known, known).map(|policy| policy.gateway)
        };
        assert_eq!(user_of(GATEWAY, 990), Ok(Some(980)));
        assert_eq!(user_of("", 990), Ok(None));
        assert_eq!(user_of("977", 990), Ok(Some(977)));
        assert!(user_of("unknown", 990).unwrap_err().contains("`unknown`"));
        assert!(user_of("0", 990).unwrap_err().contains("root"));
        assert!(user_of("990", 990).unwrap_err().contains("own user"));
        let unused = policy(&[], &[]).unwrap();
        assert_eq!(unused.gateway, None);
        assert!(!unused.is_gateway(&user(980, &[])));
    }

    #[test]
    fn nobody_else_by_default() {
        assert!(!policy(&[], &[]).unwrap().may_administer(&user(1000, &[10])));
    }

    #[test]
    fn an_unknown_name_is_named() {
        assert!(
            policy(&["anna", "bert"], &[])
                .unwrap_err()
                .contains("admins names `bert`, but there is no such user")
        );
        assert!(
            policy(&[], &["staff"])
                .unwrap_err()
                .contains("admin-groups names `staff`, but there is no such group")
        );
        assert!(policy(&["-1"], &[]).unwrap_err().contains("`-1`"));
        assert!(
            policy(&["broken"], &[])
                .unwrap_err()
                .contains("cannot be looked up")
        );
    }

    #[test]
    fn administrators_and_a_group_install() {
        let policy = policy(&["anna"], &["wheel"]).unwrap();
        let group: Lookup = |name| Ok((name == "staff").then_some(50));
        let resolve = |name| policy.resolve_installers(name, group);
        assert_eq!(resolve("staff"), Ok((vec![1000], vec![10, 50])));
        assert_eq!(resolve(""), Ok((vec![1000], vec![10])));
        assert_eq!(resolve(INSTALLERS), Ok((vec![1000], vec![10])));
        assert!(
            resolve("nobodys")
                .unwrap_err()
                .contains("models.installers names `nobodys`")
        );
        let there: Lookup = |_| Ok(Some(51));
        let found = policy.resolve_installers(INSTALLERS, there);
        assert_eq!(found, Ok((vec![1000], vec![10, 51])));
    }

    #[test]
    fn names_that_nobody_has_are_found_before_the_start() {
        let mut config = Config::default();
        assert_eq!(unknown_names(&config), [] as [String; 0]);
        config.access.admins = vec!["root".into(), "nobody-of-this-name".into()];
        config.models.installers = "no-such-installers".into();
        config.server.socket_group = Some("no-such-group".into());
        let found = unknown_names(&config);
        let named = |key: &str, name: &str| {
            let is = |line: &String| line.starts_with(key) && line.contains(name);
            assert!(found.iter().any(is), "{found:?}");
        };
        assert_eq!(found.len(), 3);
        named("access.admins", "`nobody-of-this-name`");
        named("models.installers", "`no-such-installers`");
        named("server.socket-group", "`no-such-group`");
    }

    #[test]
    fn real_names_resolve() {
        let access = Access {
            admins: vec!["root".into()],
            admin_groups: vec!["root".into()],
            ..Access::default()
        };
        let policy = Policy::new(&access, 990).unwrap();
        assert_eq!((policy.admins, policy.admin_groups), (vec![0], vec![0]));
    }

    #[tokio::test]
    async fn the_kernel_knows_the_peer() {
        let (here, _there) = UnixStream::pair().unwrap();
        let admission = Admission::new(
            policy(&[], &[]).unwrap(),
            0,
            token::Tokens::open(None),
            oidc::Oidc::default(),
        );
        let caller = Caller::of(&here, &admission).unwrap();
        let (uid, groups) = caller.principal.user().unwrap();
        assert_eq!(uid, nix::unistd::getuid().as_raw());
        assert_eq!(caller.pid, Some(std::process::id() as i32));
        assert!(groups.contains(&nix::unistd::getgid().as_raw()));
    }
}
