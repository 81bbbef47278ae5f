//! Where the daemon listens: the user's own one, or the system's.

use std::path::{Path, PathBuf};

use rustix::process::getuid;

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
}
