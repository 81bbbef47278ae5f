//! Who may do what. The kernel says who the caller is; the configuration says who may change things.
//!
//! Everyone who can open the socket may ask, so asking is the business of the socket's mode and group. Loading and
//! unloading take memory from everyone else, so they are for administrators, and so is what else concerns the machine
//! more than one's own requests: root, the daemon's own user, and those named in `[access] admins`.

pub mod gate;
pub mod quota;

use std::io;

use nix::unistd::User;
use tokio::net::UnixStream;

use crate::config::Access;
use crate::engine::Uid;

/// Who is at the other end of a connection, as the kernel saw it when they connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: Uid,
    pub gid: u32,
    /// For log lines only: by now it may be another process. `None` if it is outside of our PID namespace.
    pub pid: Option<i32>,
}

impl Caller {
    /// Asks the kernel (`SO_PEERCRED`).
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() })
    }
}

/// Who may do more than ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The user that the daemon runs as.
    own: Uid,
    admins: Vec<Uid>,
}

impl Policy {
    /// Resolves the configured names once. The error is for whoever edits the configuration.
    pub fn new(access: &Access, own: Uid) -> Result<Self, String> {
        Self::resolve(access, own, uid_of)
    }

    fn resolve(access: &Access, own: Uid, lookup: impl Fn(&str) -> Result<Option<Uid>, String>) -> Result<Self, String> {
        let admins = access
            .admins
            .iter()
            .map(|name| match lookup(name) {
                Ok(Some(uid)) => Ok(uid),
                // A number stands for itself: in a container the host's users have no names.
                Ok(None) => name
                    .parse()
                    .map_err(|_| format!("access.admins names `{name}`, but there is no such user; create the user or take the name out")),
                Err(reason) => Err(format!("access.admins: user `{name}` cannot be looked up: {reason}")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { own, admins })
    }

    /// Whether this caller may do what is for administrators.
    pub fn may_administer(&self, caller: &Caller) -> bool {
        caller.uid == 0 || caller.uid == self.own || self.admins.contains(&caller.uid)
    }
}

fn uid_of(name: &str) -> Result<Option<Uid>, String> {
    match User::from_name(name) {
        Ok(user) => Ok(user.map(|user| user.uid.as_raw())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: Uid) -> Caller {
        Caller { uid, gid: 100, pid: Some(1) }
    }

    fn policy(admins: &[&str]) -> Result<Policy, String> {
        let access = Access { admins: admins.iter().map(|name| name.to_string()).collect() };
        Policy::resolve(&access, 990, |name| match name {
            "anna" => Ok(Some(1000)),
            "broken" => Err("the directory service is down".into()),
            _ => Ok(None),
        })
    }

    #[test]
    fn root_the_daemon_and_named_users_administer() {
        let policy = policy(&["anna", "1007"]).unwrap();
        for (uid, may) in [(0, true), (990, true), (1000, true), (1007, true), (1001, false), (65534, false)] {
            assert_eq!(policy.may_administer(&caller(uid)), may, "uid {uid}");
        }
    }

    #[test]
    fn nobody_else_by_default() {
        let policy = policy(&[]).unwrap();
        assert!(!policy.may_administer(&caller(1000)));
    }

    #[test]
    fn an_unknown_user_is_named() {
        assert!(policy(&["anna", "bert"]).unwrap_err().contains("`bert`"));
        assert!(policy(&["-1"]).unwrap_err().contains("`-1`"));
        assert!(policy(&["broken"]).unwrap_err().contains("the directory service is down"));
    }

    #[test]
    fn real_users_resolve() {
        let access = Access { admins: vec!["root".into()] };
        assert_eq!(Policy::new(&access, 990).unwrap().admins, [0]);
    }

    #[tokio::test]
    async fn the_kernel_knows_the_peer() {
        let (here, _there) = UnixStream::pair().unwrap();
        let caller = Caller::of(&here).unwrap();
        assert_eq!(caller.uid, nix::unistd::getuid().as_raw());
        assert_eq!(caller.pid, Some(std::process::id() as i32));
    }
}
