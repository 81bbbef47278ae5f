//! Where the daemon listens: the user's own one, or the system's; and why a connection fails.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User, getuid};

use super::error::Error;

const SYSTEM: &str = "/run/gemmad/api.sock";
/// Below a user's runtime directory.
const OWN: &str = "gemmad/api.sock";

/// The sockets to try, in this order: the one that was named, or else the user's own, if there is
/// one, and the system's.
pub fn candidates(named: Option<PathBuf>) -> Vec<PathBuf> {
    let named = named.or_else(|| std::env::var_os("GEMMAD_SOCKET").map(PathBuf::from));
    match named.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => vec![path],
        None => usual(&runtime_directory()),
    }
}

/// What XDG_RUNTIME_DIR says. Where it says nothing, as in a shell of su(1) or a cron job: systemd's place for this
/// user.
pub fn runtime_directory() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| Path::new("/run/user").join(getuid().as_raw().to_string()))
}

fn usual(runtime_directory: &Path) -> Vec<PathBuf> {
    let own = Some(runtime_directory.join(OWN)).filter(|path| path.exists());
    own.into_iter().chain([SYSTEM.into()]).collect()
}

/// Why the socket could not be opened.
pub fn not_connected(socket: &Path, cause: io::Error) -> Error {
    let socket = socket.to_path_buf();
    match cause.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted {
            remedy: who_may(&socket),
            socket,
        },
        // The listener's backlog is full.
        io::ErrorKind::WouldBlock => Error::Busy {
            message: "too many programs are connecting to gemmad".into(),
            retry_after: None,
        },
        io::ErrorKind::InvalidInput => {
            Error::Usage(format!("{} cannot be a socket: {cause}", socket.display()))
        }
        // What the kernel says of a connection to any other file, too.
        io::ErrorKind::ConnectionRefused if is_no_socket(&socket) => {
            Error::Usage(format!("{} is not a socket", socket.display()))
        }
        _ => Error::NotRunning {
            sockets: vec![(socket, cause)],
        },
    }
}

fn is_no_socket(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| !metadata.file_type().is_socket())
}

/// How this user could be let in: who owns the socket, or the directory that hides it, and what to
/// do.
fn who_may(socket: &Path) -> String {
    let shown = [Some(socket), socket.parent()]
        .into_iter()
        .flatten()
        .find_map(|path| Some((path, path.metadata().ok()?)));
    let Some((path, metadata)) = shown else {
        return "a directory on the way to it is closed to you; ask the administrator".into();
    };
    let me = User::from_uid(getuid())
        .ok()
        .flatten()
        .map_or_else(|| getuid().to_string(), |user| user.name);
    let group = Group::from_gid(metadata.gid().into())
        .ok()
        .flatten()
        .map_or_else(|| metadata.gid().to_string(), |group| group.name);
    entrance(
        &path.display().to_string(),
        metadata.mode(),
        metadata.gid(),
        &group,
        &me,
    )
}

/// Socket and directory are both opened to a group by some of its bits; root's group is no one's to
/// join.
fn entrance(path: &str, mode: u32, gid: u32, group: &str, me: &str) -> String {
    let owned = format!(
        "{path} belongs to the group {group} (mode {:04o})",
        mode & 0o7777
    );
    if gid != 0 && mode & 0o070 != 0 {
        format!(
            "{owned}; an administrator can let you in with `usermod -aG {group} {me}`, after which you log in again"
        )
    } else {
        format!("{owned}; an administrator can set `socket-group` and `socket-mode` in gemmad.toml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_ones_own_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let runtime = home.path();
        assert_eq!(usual(runtime), [Path::new(SYSTEM)]);
        std::fs::create_dir(home.path().join("gemmad")).unwrap();
        std::fs::write(home.path().join(OWN), "").unwrap();
        assert_eq!(usual(runtime), [&home.path().join(OWN), Path::new(SYSTEM)]);
        assert_eq!(candidates(Some("/x".into())), [Path::new("/x")]);
    }

    #[test]
    fn the_way_in_is_the_group_where_it_may_be_one() {
        let text = entrance("/run/s", 0o140660, 990, "gemma", "alice");
        assert!(
            text.contains("group gemma (mode 0660)") && text.contains("`usermod -aG gemma alice`"),
            "{text}"
        );
        for (mode, gid) in [(0o600, 990), (0o660, 0)] {
            let text = entrance("/run/s", mode, gid, "g", "alice");
            assert!(
                text.contains("socket-group") && !text.contains("usermod"),
                "{text}"
            );
        }
    }
}
