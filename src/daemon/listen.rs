//! The daemon's sockets: passed by systemd, or made here.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::{EX_CONFIG, EX_OSERR, StartError};
use crate::access::app::SOCKETS;
use crate::api::Listener;
use crate::chat::AppName;
use crate::config::{App, Server};

/// `sysexits.h`: somebody else serves there.
const EX_UNAVAILABLE: u8 = 69;

/// What the daemon listens on, and what it has to clear away at its end.
pub struct Listeners {
    pub sockets: Vec<Listener>,
    pub files: Vec<SocketFile>,
    /// The apps whose sockets systemd has passed.
    pub passed_apps: HashSet<AppName>,
}

impl Listeners {
    /// Whether somebody listens there when the daemon has left.
    pub fn kept_by_systemd(&self) -> bool {
        self.files.is_empty()
    }

    /// Makes a socket that systemd has not passed.
    fn make(&mut self, wanted: &Wanted<'_>, app: Option<AppName>) -> Result<(), StartError> {
        let (socket, file) = make(wanted)?;
        self.sockets.push(Listener { socket, app });
        self.files.push(file);
        Ok(())
    }
}

/// A socket's name in the file system; removed with it.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A socket as the configuration has it.
struct Wanted<'a> {
    path: &'a Path,
    mode: u32,
    group: Option<&'a str>,
}

/// systemd's sockets; the configured one if there are none; and those of apps that have a path.
pub fn listeners(server: &Server, apps: &[App]) -> Result<Listeners, StartError> {
    let sockets = passed()?;
    let mut listeners = Listeners {
        passed_apps: sockets.iter().filter_map(|socket| socket.app).collect(),
        sockets,
        files: vec![],
    };
    if listeners.sockets.is_empty() {
        let wanted = Wanted {
            path: &server.socket,
            mode: server.socket_mode,
            group: server.socket_group.as_deref(),
        };
        listeners.make(&wanted, None)?;
    }
    for app in apps {
        let is_missing = |name: &AppName| !listeners.passed_apps.contains(name);
        let Some(name) = AppName::parse(&app.name).filter(is_missing) else {
            continue;
        };
        match &app.socket {
            Some(path) => {
                let wanted = Wanted {
                    path,
                    mode: app.socket_mode,
                    group: app.socket_group.as_deref(),
                };
                listeners.make(&wanted, Some(name))?;
            }
            None => tracing::warn!(
                app = app.name,
                "the app has no socket: its [[app]] has no `socket`, and systemd passes none (gemmad-app@.socket)"
            ),
        }
    }
    Ok(listeners)
}

/// What systemd has passed.
fn passed() -> Result<Vec<Listener>, StartError> {
    let unusable = |error: io::Error| StartError {
        code: EX_OSERR,
        message: format!("the sockets passed by systemd cannot be used: {error}"),
    };
    let passed = crate::sys::listen_fds::listeners().map_err(unusable)?;
    let listener = |(name, socket): (String, StdListener)| {
        let app = match name.strip_prefix(SOCKETS) {
            None if is_like_an_apps(&name) => return Err(no_name(&name)),
            None => None,
            Some(app) => Some(AppName::parse(app).ok_or_else(|| no_name(app))?),
        };
        let socket = to_tokio(socket).map_err(unusable)?;
        Ok(Listener { socket, app })
    };
    passed.into_iter().map(listener).collect()
}

/// Whether a name is probably that of an app's socket, written otherwise: a unit's own (`gemmad-app@NAME.socket`), or `App-NAME`.
fn is_like_an_apps(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.starts_with("app") || name.contains("-app")
}

/// Served as the daemon's own it would give more than it is meant for.
fn no_name(app: &str) -> StartError {
    StartError {
        code: EX_CONFIG,
        message: format!(
            "systemd passes a socket for the app `{app}`, which is no app's name: set `FileDescriptorName={SOCKETS}NAME` in its unit, where NAME is at most {} letters, digits, `-`, `_` and `.`",
            AppName::MOST_BYTES
        ),
    }
}

fn make(wanted: &Wanted<'_>) -> Result<(UnixListener, SocketFile), StartError> {
    let path = wanted.path;
    let group = wanted.group.map(group_id).transpose()?;
    let failed = |what: &str, error: io::Error| StartError {
        code: EX_OSERR,
        message: format!("{}: {what}: {error}", path.display()),
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| failed("its directory cannot be made", error))?;
    }
    clear_stale(path)?;
    // Nobody may connect before the permissions are what they should be.
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = StdListener::bind(path);
    rustix::process::umask(umask);
    let listener = bound.map_err(|error| failed("cannot listen", error))?;
    let file = SocketFile(path.to_owned());
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(group))
            .map_err(|error| failed("its group cannot be set", error.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(wanted.mode))
        .map_err(|error| failed("its mode cannot be set", error))?;
    let socket = to_tokio(listener).map_err(|error| failed("cannot listen", error))?;
    Ok((socket, file))
}

fn to_tokio(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Removes what a daemon left that did not end well. A socket on which someone answers is not
/// touched, and neither is anything that is no socket.
fn clear_stale(path: &Path) -> Result<(), StartError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(StartError {
            code: EX_CONFIG,
            message: format!(
                "{} is in the way and is no socket; set `socket` in gemmad.toml to another path",
                path.display()
            ),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| StartError {
                code: EX_OSERR,
                message: format!(
                    "{}: the stale socket cannot be removed: {error}",
                    path.display()
                ),
            }),
        Ok(_) => Err(StartError {
            code: EX_UNAVAILABLE,
            message: format!("another program already serves on {}", path.display()),
        }),
        Err(error) => Err(StartError {
            code: EX_OSERR,
            message: format!("{}: {error}", path.display()),
        }),
    }
}

fn group_id(name: &str) -> Result<rustix::fs::Gid, StartError> {
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(rustix::fs::Gid::from_raw(group.gid.as_raw())),
        // A number stands for itself: in a container the host's groups have no names.
        Ok(None) => name.parse().map(rustix::fs::Gid::from_raw).map_err(|_| StartError {
            code: EX_CONFIG,
            message: format!(
                "there is no group `{name}` (`socket-group` in gemmad.toml); create it with `groupadd --system {name}`"
            ),
        }),
        Err(error) => Err(StartError {
            code: EX_OSERR,
            message: format!("group `{name}` cannot be looked up: {error}"),
        }),
    }
}
