//! All keys: where each is written, what it allows, which field it sets. A file for each table.

mod access;
mod app;
mod audit;
mod inference;
mod limits;
mod log;
mod memory;
mod models;
mod pull;
mod server;
mod upstream;

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::Config;
use super::value::{parse_duration, parse_size, show_size};

/// Longest socket path that the kernel takes, in bytes.
const SOCKET_PATH_BYTES: usize = 107;
/// Tokens of context over all slots: four slots of the family's full context.
pub const TOTAL_CONTEXT: u64 = 1 << 20;
/// What a list of networks allows.
const NETWORKS: &str =
    "an array of \"public\", addresses like \"192.168.1.20\" and networks like \"192.168.1.0/24\"";
/// Longest time that can be set.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// A table of `gemmad.toml`.
pub(super) struct Table {
    pub name: &'static str,
    pub keys: &'static [Key],
    /// What makes it a list: it is written as `[[name]]`, once for each thing.
    pub list: Option<&'static ListTable>,
}

/// A table that is written once for each thing.
pub(super) struct ListTable {
    /// Makes room for one more, which the keys then set.
    pub begin: fn(&mut Config),
    /// What is wrong with the last one as a whole, once its keys are set.
    pub problem: fn(&Config) -> Option<String>,
}

/// One key.
pub(super) struct Key {
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
    /// `None` is "auto".
    NumberOrAuto {
        min: u32,
        max: u32,
        put: fn(&mut Config, Option<u32>),
    },
    Size {
        min: u64,
        max: u64,
        put: fn(&mut Config, u64),
    },
    Time {
        may_be_zero: bool,
        most: Duration,
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

const fn table(name: &'static str, keys: &'static [Key]) -> Table {
    Table {
        name,
        keys,
        list: None,
    }
}

const fn list(name: &'static str, keys: &'static [Key], list: &'static ListTable) -> Table {
    Table {
        name,
        keys,
        list: Some(list),
    }
}

const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule }
}

/// A number of things, at least one.
const fn count(max: u32, put: fn(&mut Config, u32)) -> Rule {
    Rule::Number { min: 1, max, put }
}

/// A time of more than 0.
const fn time(put: fn(&mut Config, Duration)) -> Rule {
    Rule::Time {
        may_be_zero: false,
        most: LONGEST,
        put,
    }
}

/// A time, or 0 for what the key says of it.
const fn time_or_zero(put: fn(&mut Config, Duration)) -> Rule {
    Rule::Time {
        may_be_zero: true,
        most: LONGEST,
        put,
    }
}

/// Every table there is, in the order of the sample.
pub(super) static TABLES: [Table; 11] = [
    table("server", server::KEYS),
    table("models", models::KEYS),
    table("pull", pull::KEYS),
    table("inference", inference::KEYS),
    table("memory", memory::KEYS),
    table("limits", limits::KEYS),
    table("access", access::KEYS),
    table("log", log::KEYS),
    table("audit", audit::KEYS),
    list("app", app::KEYS, &app::LIST),
    list("upstream", upstream::KEYS, &upstream::LIST),
];

impl Table {
    /// The table of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

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
            Rule::NumberOrAuto { min, max, .. } => {
                format!("\"auto\" or a whole number from {min} to {max}")
            }
            Rule::Size { min, max, .. } => {
                format!(
                    "a size from {} to {}, like \"32 MiB\", \"512 KiB\" or a number of bytes",
                    show_size(*min),
                    show_size(*max)
                )
            }
            Rule::Time {
                may_be_zero, most, ..
            } => {
                format!(
                    "a time of {}at most {}, like \"500ms\", \"30s\"{} or a number of seconds",
                    if *may_be_zero { "" } else { "more than 0 and " },
                    show_time(*most),
                    if *most == LONGEST {
                        ", \"10m\", \"1h\""
                    } else {
                        ""
                    },
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
            Self::Number { min, max, put } => put(config, number(value, *min, *max)?),
            Self::NumberOrAuto { put, .. } if value.as_str() == Some("auto") => put(config, None),
            Self::NumberOrAuto { min, max, put } => put(config, Some(number(value, *min, *max)?)),
            Self::Size { min, max, put } => {
                let bytes = whole(value)
                    .or_else(|| parse_size(value.as_str()?))
                    .filter(|n| (min..=max).contains(&n))?;
                put(config, bytes);
            }
            Self::Time {
                may_be_zero,
                most,
                put,
            } => {
                let time = whole(value)
                    .map(Duration::from_secs)
                    .or_else(|| parse_duration(value.as_str()?))?;
                if (time.is_zero() && !may_be_zero) || time > *most {
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

/// A whole number within these bounds.
fn number(value: &DeValue<'_>, min: u32, max: u32) -> Option<u32> {
    let number = u32::try_from(whole(value)?).ok();
    number.filter(|n| (min..=max).contains(n))
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

/// In whole days, or else in whole minutes.
fn show_time(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        seconds => format!("{}m", seconds / 60),
    }
}
