//! `/set` in a chat: sampling options by the names that they have on the command line. Pure.

use std::collections::BTreeMap;
use std::fmt;

use clap::{CommandFactory, FromArgMatches, Parser};

use super::args::Sampling;

/// Takes an option's value back to what the chat began with.
const DEFAULT: &str = "default";

/// The options alone: clap checks a value here as it does on the command line.
#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Options {
    #[command(flatten)]
    sampling: Sampling,
}

/// The sampling options of a chat.
pub struct Settings {
    /// What the command line said.
    first: Sampling,
    /// What was set since, by name.
    set: BTreeMap<String, String>,
    now: Sampling,
}

impl Settings {
    pub fn new(first: Sampling) -> Self {
        Self {
            now: first.clone(),
            first,
            set: BTreeMap::new(),
        }
    }

    /// What holds now.
    pub fn sampling(&self) -> &Sampling {
        &self.now
    }

    /// The value of an option, in JSON.
    fn value(&self, name: &str) -> String {
        let body = super::wire::chat_body("", &[], &self.now, false, false);
        let value = body.get(name.replace('-', "_"));
        value.map_or(DEFAULT.into(), ToString::to_string)
    }

    /// Sets an option, or takes it back, and says what holds now. Fails, and changes nothing, with
    /// what is wrong.
    pub fn set(&mut self, name: &str, value: &str) -> Result<String, String> {
        let name = match name {
            // As in other programs.
            "num-predict" => "max-tokens",
            name => name,
        };
        if !names().iter().any(|known| known == name) {
            return Err(format!(
                "there is no setting {name}; there are {}, verbose and quiet",
                names().join(", ")
            ));
        }
        let mut set = self.set.clone();
        match value {
            "" => return Err(format!("write /set {name} and a value, or `{DEFAULT}`")),
            DEFAULT => set.remove(name),
            value => set.insert(name.into(), value.into()),
        };
        self.now = parse(&self.first, &set)?;
        self.set = set;
        Ok(format!("{name} is {} from now on", self.value(name)))
    }
}

/// The options with their values, a line for each.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = names()
            .into_iter()
            .map(|name| format!("{name:<17} {}", self.value(&name)));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The names of all options of sampling, without dashes.
pub fn names() -> Vec<String> {
    let command = Options::command();
    let longs = command.get_arguments().filter_map(|arg| arg.get_long());
    longs.map(Into::into).collect()
}

fn parse(first: &Sampling, set: &BTreeMap<String, String>) -> Result<Sampling, String> {
    let words = set.iter().map(|(name, value)| format!("--{name}={value}"));
    let line = [String::new()].into_iter().chain(words);
    let matches = Options::command()
        .try_get_matches_from(line)
        .map_err(|error| {
            // Of the usual report, with its hints for a command line, the first line.
            let report = error.to_string();
            let first = report.lines().next().unwrap_or_default();
            first
                .trim_start_matches("error: ")
                .replace(" for '--", " for '")
        })?;
    let mut sampling = first.clone();
    sampling
        .update_from_arg_matches(&matches)
        .map_err(|error| error.to_string())?;
    Ok(sampling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_as_on_the_command_line() {
        let first = Sampling {
            seed: Some(7.into()),
            ..Sampling::default()
        };
        let mut settings = Settings::new(first);
        let told = settings.set("temperature", "0.5").unwrap();
        assert_eq!(told, "temperature is 0.5 from now on");
        settings.set("stop", "a b").unwrap();
        settings.set("seed", "8").unwrap();
        settings.set("num-predict", "9").unwrap();
        let now = settings.sampling();
        assert_eq!(
            (now.temperature, now.seed.clone(), now.max_tokens),
            (Some(0.5), Some(8.into()), Some(9))
        );
        assert_eq!(now.stop, ["a b"]);
        let said = settings.to_string();
        let lines: Vec<Vec<_>> = said
            .lines()
            .map(|line| line.splitn(2, char::is_whitespace).map(str::trim).collect())
            .collect();
        assert_eq!(lines[..2], [["temperature", "0.5"], ["top-k", "default"]]);
        assert!(lines.contains(&vec!["stop", "[\"a b\"]"]), "{said}");

        settings.set("seed", "default").unwrap();
        settings.set("temperature", "default").unwrap();
        let now = settings.sampling();
        assert_eq!((now.temperature, now.seed.clone()), (None, Some(7.into())));
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        let mut settings = Settings::new(Sampling::default());
        let hot = settings.set("temperature", "hot").unwrap_err();
        assert!(
            hot.contains("'hot' for 'temperature") && hot.contains("from 0 to 2"),
            "{hot}"
        );
        let unknown = settings.set("num-ctx", "4096").unwrap_err();
        assert!(
            unknown.contains("num-ctx") && unknown.contains("top-k"),
            "{unknown}"
        );
        assert!(
            settings
                .set("top-k", "")
                .unwrap_err()
                .contains("/set top-k")
        );
        assert_eq!(settings.sampling().top_k, None);
        let below = settings.set("seed", "-5").unwrap_err();
        assert!(
            below.contains("'-5' for 'seed") && below.contains("-1 for another"),
            "{below}"
        );
        settings.set("seed", "-1").unwrap();
        assert_eq!(settings.sampling().seed, Some((-1).into()));
    }
}
