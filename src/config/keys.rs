//! The table of all keys: where each is written, what it allows, which field it sets.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::value::{parse_duration, parse_size, show_size};
use super::{BusChoice, Config};
use crate::chat::Networks;
use crate::gemma::variant::Variant;

/// Longest socket path that the kernel takes, in bytes.
const SOCKET_PATH_BYTES: usize = 107;
/// Tokens of context over all slots: four slots of the family's full context.
pub(super) const TOTAL_CONTEXT: u64 = 1 << 20;
/// Longest time that can be set.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// One key.
pub(super) struct Key {
    pub table: &'static str,
    pub name: &'static str,
    rule: Rule,
}

/// What a key allows and the field it sets.
enum Rule {
    Number {
        min: u32,
        max: u32,
        put: fn(&mut Config, u32),
    },
    Size {
        min: u64,
        max: u64,
        put: fn(&mut Config, u64),
    },
    /// At most [`LONGEST`].
    Time {
        may_be_zero: bool,
        put: fn(&mut Config, Duration),
    },
    Switch {
        put: fn(&mut Config, bool),
    },
    Text {
        allowed: &'static str,
        check: fn(&str) -> bool,
        put: fn(&mut Config, String),
    },
    List {
        allowed: &'static str,
        check: fn(&str) -> bool,
        may_be_empty: bool,
        put: fn(&mut Config, Vec<String>),
    },
}

const fn key(table: &'static str, name: &'static str, rule: Rule) -> Key {
    Key { table, name, rule }
}

/// A number of things, at least one.
const fn count(max: u32, put: fn(&mut Config, u32)) -> Rule {
    Rule::Number { min: 1, max, put }
}

/// Every key there is, in the order of the sample.
pub(super) static KEYS: &[Key] = &[
    key(
        "server",
        "socket",
        Rule::Text {
            allowed: "an absolute path of at most 107 bytes",
            check: |path| is_absolute(path) && path.len() <= SOCKET_PATH_BYTES,
            put: |config, path| config.server.socket = path.into(),
        },
    ),
    key(
        "server",
        "socket-mode",
        Rule::Text {
            allowed: "permission bits in octal as a string, from \"0600\" to \"0666\", with read and write for the owner",
            check: |bits| {
                octal(bits).is_some_and(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600)
            },
            put: |config, bits| {
                config.server.socket_mode = octal(&bits).unwrap_or(config.server.socket_mode)
            },
        },
    ),
    key(
        "server",
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
        "server",
        "shutdown-grace",
        Rule::Time {
            may_be_zero: false,
            put: |config, time| config.server.shutdown_grace = time,
        },
    ),
    key(
        "server",
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
        "server",
        "exit-when-idle",
        Rule::Time {
            may_be_zero: true,
            put: |config, time| config.server.exit_when_idle = time,
        },
    ),
    key(
        "models",
        "directories",
        Rule::List {
            allowed: "an array of at least one absolute path",
            check: is_absolute,
            may_be_empty: false,
            put: |config, paths| {
                config.models.directories = paths.into_iter().map(Into::into).collect()
            },
        },
    ),
    key(
        "models",
        "default",
        Rule::Text {
            allowed: "\"auto\" or a model's id",
            check: is_name,
            put: |config, name| config.models.default = name,
        },
    ),
    key(
        "models",
        "prefer",
        Rule::List {
            allowed: "an array of variants, like \"gemma-4-e4b\"",
            check: |name| Variant::named(name).is_some(),
            may_be_empty: true,
            put: |config, names| config.models.prefer = names,
        },
    ),
    key(
        "models",
        "installers",
        Rule::Text {
            allowed: "the name of a group, or \"\" for none",
            check: |name| name.is_empty() || is_name(name),
            put: |config, name| config.models.installers = name,
        },
    ),
    key(
        "models",
        "idle-release",
        Rule::Time {
            may_be_zero: true,
            put: |config, time| config.models.idle_release = time,
        },
    ),
    key(
        "models",
        "idle-unload",
        Rule::Time {
            may_be_zero: true,
            put: |config, time| config.models.idle_unload = time,
        },
    ),
    key(
        "inference",
        "context",
        Rule::Number {
            min: 256,
            max: 262_144,
            put: |config, n| config.inference.context = n,
        },
    ),
    key(
        "inference",
        "least-context",
        Rule::Number {
            min: 256,
            max: 262_144,
            put: |config, n| config.inference.least_context = n,
        },
    ),
    key(
        "inference",
        "slots",
        count(64, |config, n| config.inference.slots = n),
    ),
    key(
        "inference",
        "threads",
        Rule::Number {
            min: 0,
            max: 1024,
            put: |config, n| config.inference.threads = n,
        },
    ),
    key(
        "inference",
        "batch",
        Rule::Number {
            min: 32,
            max: 2048,
            put: |config, n| config.inference.batch = n,
        },
    ),
    key(
        "inference",
        "kv-cache",
        Rule::Text {
            allowed: "\"f16\" or \"q8_0\"",
            check: |kind| ["f16", "q8_0"].contains(&kind),
            put: |config, kind| config.inference.small_kv = kind == "q8_0",
        },
    ),
    key(
        "inference",
        "worker",
        Rule::Text {
            allowed: "an absolute path, or \"\" for gemmad-worker beside gemmad",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.inference.worker = Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "memory",
        "cache-directory",
        Rule::Text {
            allowed: "an absolute path, or \"\" for no cache",
            check: |path| path.is_empty() || is_absolute(path),
            put: |config, path| {
                config.memory.cache_directory =
                    Some(path).filter(|path| !path.is_empty()).map(Into::into)
            },
        },
    ),
    key(
        "memory",
        "cache-size",
        Rule::Size {
            min: 1 << 20,
            max: 1 << 44,
            put: |config, n| config.memory.cache_size = n,
        },
    ),
    key(
        "memory",
        "reserve",
        Rule::Text {
            allowed: "\"auto\" or a size, like \"512 MiB\"",
            check: |text| text == "auto" || parse_size(text).is_some(),
            put: |config, text| config.memory.reserve = parse_size(&text),
        },
    ),
    key(
        "memory",
        "allow-overcommit",
        Rule::Switch {
            put: |config, on| config.memory.allow_overcommit = on,
        },
    ),
    key(
        "memory",
        "per-layer-embeddings",
        Rule::Size {
            min: 1 << 20,
            max: 1 << 40,
            put: |config, n| config.memory.per_layer = n,
        },
    ),
    key(
        "memory",
        "lock-weights",
        Rule::Switch {
            put: |config, on| config.memory.lock_weights = on,
        },
    ),
    key(
        "limits",
        "connections",
        count(65_536, |config, n| config.limits.connections = n),
    ),
    key(
        "limits",
        "connections-per-user",
        count(65_536, |config, n| config.limits.connections_per_user = n),
    ),
    // A request goes to the worker as one frame; `ipc::frame::MAX_FRAME` leaves room beside it.
    key(
        "limits",
        "body-size",
        Rule::Size {
            min: 1 << 10,
            max: 48 << 20,
            put: |config, n| config.limits.body_bytes = n,
        },
    ),
    key(
        "limits",
        "queue",
        count(65_536, |config, n| config.limits.queue = n),
    ),
    key(
        "limits",
        "queue-per-user",
        count(65_536, |config, n| config.limits.queue_per_user = n),
    ),
    key(
        "limits",
        "output-tokens",
        count(262_144, |config, n| config.limits.output_tokens = n),
    ),
    key(
        "limits",
        "request-time",
        Rule::Time {
            may_be_zero: false,
            put: |config, time| config.limits.request_time = time,
        },
    ),
    key(
        "limits",
        "client-stall",
        Rule::Time {
            may_be_zero: false,
            put: |config, time| config.limits.client_stall = time,
        },
    ),
    key(
        "limits",
        "load-time",
        Rule::Time {
            may_be_zero: false,
            put: |config, time| config.limits.load_time = time,
        },
    ),
    key(
        "limits",
        "stored-responses",
        Rule::Number {
            min: 0,
            max: 65_536,
            put: |config, n| config.limits.stored_responses = n,
        },
    ),
    key(
        "limits",
        "stored-size",
        Rule::Size {
            min: 1 << 10,
            max: 1 << 30,
            put: |config, n| config.limits.stored_bytes = n,
        },
    ),
    key(
        "limits",
        "stored-time",
        Rule::Time {
            may_be_zero: false,
            put: |config, time| config.limits.stored_time = time,
        },
    ),
    key(
        "limits",
        "files-size",
        Rule::Size {
            min: 0,
            max: 1 << 30,
            put: |config, n| config.limits.files_bytes = n,
        },
    ),
    key(
        "limits",
        "files-time",
        Rule::Time {
            may_be_zero: false,
            put: |config, time| config.limits.files_time = time,
        },
    ),
    key(
        "access",
        "admins",
        Rule::List {
            allowed: "an array of user names",
            check: is_name,
            may_be_empty: true,
            put: |config, names| config.access.admins = names,
        },
    ),
    key(
        "access",
        "admin-groups",
        Rule::List {
            allowed: "an array of group names",
            check: is_name,
            may_be_empty: true,
            put: |config, names| config.access.admin_groups = names,
        },
    ),
    key(
        "access",
        "fetch-from",
        Rule::List {
            allowed: "an array of \"public\", addresses like \"192.168.1.20\" and networks like \"192.168.1.0/24\"",
            check: |text| Networks::of(&[text]).is_some(),
            may_be_empty: true,
            // Each was checked.
            put: |config, list| config.access.fetch_from = Networks::of(&list).unwrap_or_default(),
        },
    ),
    key(
        "log",
        "level",
        Rule::Text {
            allowed: "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            check: |level| ["error", "warn", "info", "debug", "trace"].contains(&level),
            put: |config, level| config.log.level = level,
        },
    ),
];

impl Key {
    /// Sets the field, or leaves the configuration as it is and returns false when the value is not
    /// allowed.
    pub fn set(&self, config: &mut Config, value: &DeValue<'_>) -> bool {
        self.rule.set(config, value).is_some()
    }

    /// What may be written, as the end of a sentence.
    pub fn allowed(&self) -> String {
        match &self.rule {
            Rule::Number { min, max, .. } => format!("a whole number from {min} to {max}"),
            Rule::Size { min, max, .. } => {
                format!(
                    "a size from {} to {}, like \"32 MiB\", \"512 KiB\" or a number of bytes",
                    show_size(*min),
                    show_size(*max)
                )
            }
            Rule::Time { may_be_zero, .. } => {
                format!(
                    "a time of {}at most {}d, like \"500ms\", \"30s\", \"10m\", \"1h\" or a number of seconds",
                    if *may_be_zero { "" } else { "more than 0 and " },
                    days(LONGEST)
                )
            }
            Rule::Switch { .. } => "true or false".into(),
            Rule::Text { allowed, .. } | Rule::List { allowed, .. } => (*allowed).into(),
        }
    }
}

impl Rule {
    fn set(&self, config: &mut Config, value: &DeValue<'_>) -> Option<()> {
        match self {
            Self::Number { min, max, put } => {
                let number = u32::try_from(whole(value)?)
                    .ok()
                    .filter(|n| (min..=max).contains(&n))?;
                put(config, number);
            }
            Self::Size { min, max, put } => {
                let bytes = whole(value)
                    .or_else(|| parse_size(value.as_str()?))
                    .filter(|n| (min..=max).contains(&n))?;
                put(config, bytes);
            }
            Self::Time { may_be_zero, put } => {
                let time = whole(value)
                    .map(Duration::from_secs)
                    .or_else(|| parse_duration(value.as_str()?))?;
                if (time.is_zero() && !may_be_zero) || time > LONGEST {
                    return None;
                }
                put(config, time);
            }
            Self::Switch { put } => put(config, value.as_bool()?),
            Self::Text { check, put, .. } => {
                let text = value.as_str().filter(|text| check(text))?;
                put(config, text.into());
            }
            Self::List {
                check,
                may_be_empty,
                put,
                ..
            } => {
                let items = value.as_array()?.iter().map(|item| {
                    item.get_ref()
                        .as_str()
                        .filter(|text| check(text))
                        .map(String::from)
                });
                let items = items
                    .collect::<Option<Vec<_>>>()
                    .filter(|items| *may_be_empty || !items.is_empty())?;
                put(config, items);
            }
        }
        Some(())
    }
}

/// A whole number that is not negative.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn is_absolute(path: &str) -> bool {
    Path::new(path).is_absolute() && !path.contains('\0')
}

/// Names of users, groups and models: something to print, without blanks at the ends.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.trim() == name && !name.chars().any(char::is_control)
}

fn octal(bits: &str) -> Option<u32> {
    bits.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| u32::from_str_radix(bits, 8).ok())
        .flatten()
}

const fn days(time: Duration) -> u64 {
    time.as_secs() / 86_400
}
