//! The daemon's sockets: passed by systemd, or made here.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::{EX_CONFIG, EX_OSERR, StartError};
use crate::config::Server;

/// `sysexits.h`: somebody else serves there.
const EX_UNAVAILABLE: u8 = 69;

/// What the daemon listens on, and what it has to clear away at its end.
pub struct Listeners {
    pub sockets: Vec<UnixListener>,
    pub files: Vec<SocketFile>,
}

impl Listeners {
    /// Whether somebody listens there when the daemon has left.
    pub fn kept_by_systemd(&self) -> bool {
        self.files.is_empty()
    }
}

/// A socket's name in the file system; removed with it.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// systemd's sockets if there are any, else the configured one.
pub fn listeners(config: &Server) -> Result<Listeners, StartError> {
    let passed = crate::sys::listen_fds::listeners().map_err(|error| StartError {
        code: EX_OSERR,
        message: format!("the sockets passed by systemd cannot be used: {error}"),
    })?;
    if !passed.is_empty() {
        let sockets = passed.into_iter().map(to_tokio).collect::<io::Result<_>>();
        let sockets = sockets.map_err(|error| StartError {
            code: EX_OSERR,
            message: format!("the sockets passed by systemd cannot be used: {error}"),
        })?;
        return Ok(Listeners {
            sockets,
            files: vec![],
        });
    }
    let group = config.socket_group.as_deref().map(group_id).transpose()?;
    let failed = |what: &str, error: io::Error| StartError {
        code: EX_OSERR,
        message: format!("{}: {what}: {error}", config.socket.display()),
    };
    if let Some(dir) = config.socket.parent() {
        fs::create_dir_all(dir).map_err(|error| failed("its directory cannot be made", error))?;
    }
    clear_stale(&config.socket)?;
    // Nobody may connect before the permissions are what they should be.
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = StdListener::bind(&config.socket);
    rustix::process::umask(umask);
    let listener = bound.map_err(|error| failed("cannot listen", error))?;
    let file = SocketFile(config.socket.clone());
    if let Some(group) = group {
        rustix::fs::chown(&config.socket, None, Some(group))
            .map_err(|error| failed("its group cannot be set", error.into()))?;
    }
    fs::set_permissions(
        &config.socket,
        fs::Permissions::from_mode(config.socket_mode),
    )
    .map_err(|error| failed("its mode cannot be set", error))?;
    let socket = to_tokio(listener).map_err(|error| failed("cannot listen", error))?;
    Ok(Listeners {
        sockets: vec![socket],
        files: vec![file],
    })
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
