//! `[server]`: where the daemon listens.

use super::{Key, Rule, SOCKET_PATH_BYTES, is_absolute, is_name, key, octal, time, time_or_zero};
use crate::config::BusChoice;

/// What a socket's mode may be.
pub(super) const MODE: &str = "permission bits in octal as a string, from \"0600\" to \"0666\", with read and write for the owner";

pub(super) fn is_mode(bits: &str) -> bool {
    octal(bits).is_some_and(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600)
}

/// Where a socket can be.
pub(super) fn is_socket(path: &str) -> bool {
    is_absolute(path) && path.len() <= SOCKET_PATH_BYTES
}

pub(super) static KEYS: &[Key] = &[
    key(
        "socket",
        Rule::Text {
            allowed: "an absolute path of at most 107 bytes",
            check: is_socket,
            put: |config, path| config.server.socket = path.into(),
        },
    ),
    key(
        "socket-mode",
        Rule::Text {
            allowed: MODE,
            check: is_mode,
            put: |config, bits| {
                config.server.socket_mode = octal(&bits).unwrap_or(config.server.socket_mode)
            },
        },
    ),
    key(
        "socket-group",
        Rule::Text {
            allowed: "the name of a group, or \"\" for the daemon's own",
            check: |name| name.is_empty() || is_name(name),
            put: |config, name| {
                config.server.socket_group = Some(name).filter(|name| !name.is_empty())
            },
        },
    ),
    key(
        "shutdown-grace",
        time(|config, time| config.server.shutdown_grace = time),
    ),
    key(
        "dbus",
        Rule::Text {
            allowed: "\"system\", \"session\", \"none\" or the address of a bus, like \"unix:path=/run/dbus/system_bus_socket\"",
            check: |bus| ["system", "session", "none"].contains(&bus) || bus.starts_with("unix:"),
            put: |config, bus| {
                config.server.dbus = match bus.as_str() {
                    "system" => BusChoice::System,
                    "session" => BusChoice::Session,
                    "none" => BusChoice::None,
                    _ => BusChoice::Address(bus),
                }
            },
        },
    ),
    key(
        "exit-when-idle",
        time_or_zero(|config, time| config.server.exit_when_idle = time),
    ),
];
