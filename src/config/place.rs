//! Where everything is, for the system's instance and for a user's own.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{BusChoice, Config};

/// An instance's configuration file, and what holds where it says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub file: PathBuf,
    pub defaults: Config,
}

impl Place {
    pub fn system() -> Self {
        Self {
            file: "/etc/gemmad/gemmad.toml".into(),
            defaults: Config::default(),
        }
    }

    /// A user's own, in the directories that the XDG Base Directory Specification names. `variable`
    /// looks into the environment. The system's models are there too, behind the user's.
    pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let absolute = |name: &str| {
            variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home =
            absolute("HOME").ok_or("HOME is not set, so the user's files cannot be found")?;
        let runtime = absolute("XDG_RUNTIME_DIR")
            .ok_or("XDG_RUNTIME_DIR is not set, so there is no place for the user's socket")?;
        let directory = |name: &str, usual: &str| {
            absolute(name)
                .unwrap_or_else(|| home.join(usual))
                .join("gemmad")
        };
        let mut defaults = Config::default();
        defaults.server.socket = runtime.join("gemmad/api.sock");
        defaults.server.socket_mode = 0o600;
        defaults.server.dbus = BusChoice::Session;
        defaults
            .models
            .directories
            .insert(0, directory("XDG_DATA_HOME", ".local/share").join("models"));
        defaults.memory.cache_directory = Some(directory("XDG_CACHE_HOME", ".cache"));
        let state = directory("XDG_STATE_HOME", ".local/state");
        defaults.memory.prompt_cache_key = Some(state.join("prompt-cache.key"));
        defaults.access.token_file = Some(state.join("tokens.json"));
        defaults.audit.usage_file = Some(state.join("usage.json"));
        // A user's own daemon serves one user: it could not tell the gateway from the user's other programs.
        defaults.access.gateway = String::new();
        let own = directory("XDG_CONFIG_HOME", ".config");
        defaults.models.catalog_directory = Some(own.join("catalog.d"));
        Ok(Self {
            file: own.join("gemmad.toml"),
            defaults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_files_are_where_the_specification_says() {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/anna".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            "XDG_CACHE_HOME" => Some("/fast/cache".into()),
            // Relative paths are to be ignored.
            "XDG_DATA_HOME" => Some("data".into()),
            _ => None,
        };
        let place = Place::of_user(variable).unwrap();
        assert_eq!(
            place.file.to_str(),
            Some("/home/anna/.config/gemmad/gemmad.toml")
        );
        let Config {
            server,
            models,
            memory,
            ..
        } = place.defaults;
        assert_eq!(
            server.socket.to_str(),
            Some("/run/user/1000/gemmad/api.sock")
        );
        assert_eq!(
            models.directories,
            [
                "/home/anna/.local/share/gemmad/models",
                "/var/lib/gemmad/models"
            ]
            .map(PathBuf::from)
        );
        assert_eq!(memory.cache_directory, Some("/fast/cache/gemmad".into()));
        assert_eq!(
            memory.prompt_cache_key,
            Some("/home/anna/.local/state/gemmad/prompt-cache.key".into())
        );
        let catalogs = models.catalog_directory.clone();
        assert_eq!(catalogs, Some("/home/anna/.config/gemmad/catalog.d".into()));
        assert!(Place::of_user(|_| None).unwrap_err().contains("HOME"));
    }
}
