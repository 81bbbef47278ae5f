//! What Tab completes in a chat: commands, and what stands behind them.

use std::path::Path;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::compose::{self, COMMANDS};
use super::settings;

/// Completes lines.
pub struct Tab<'a> {
    models: &'a dyn Fn() -> Vec<String>,
}

/// What the end of a line can be completed to.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Command,
    File,
    Model,
    Setting,
    Switch,
}

impl<'a> Tab<'a> {
    /// `models`: their names, asked for when they are wanted.
    pub fn new(models: &'a dyn Fn() -> Vec<String>) -> Self {
        Self { models }
    }

    fn candidates(&self, line: &str) -> (usize, Vec<Pair>) {
        let Some((wanted, start)) = wanted(line) else {
            return (line.len(), vec![]);
        };
        let typed = &line[start..];
        let words = match wanted {
            Wanted::File => {
                let (below, files) = files(typed);
                return (start + below, files);
            }
            Wanted::Command => COMMANDS.iter().map(|name| format!("/{name}")).collect(),
            Wanted::Model => (self.models)(),
            Wanted::Setting => {
                let more = ["verbose".into(), "quiet".into()];
                settings::names().into_iter().chain(more).collect()
            }
            Wanted::Switch => vec!["on".into(), "off".into()],
        };
        let fitting = words.into_iter().filter(|word| word.starts_with(typed));
        let pairs = fitting.map(|word| Pair {
            replacement: format!("{word}{}", if takes_more(&word) { " " } else { "" }),
            display: word,
        });
        (start, pairs.collect())
    }
}

/// What could stand at the end of a line, and where it begins.
fn wanted(line: &str) -> Option<(Wanted, usize)> {
    let command = line.trim_start();
    let start = line.len() - command.len();
    let name = command.strip_prefix('/')?;
    let Some((name, rest)) = name.split_once(char::is_whitespace) else {
        return Some((Wanted::Command, start));
    };
    let rest = rest.trim_start();
    let wanted = match name {
        "image" | "audio" | "file" => Wanted::File,
        "model" => Wanted::Model,
        "set" if !rest.contains(char::is_whitespace) => Wanted::Setting,
        "think" => Wanted::Switch,
        _ => return None,
    };
    Some((wanted, line.len() - rest.len()))
}

/// Whether something stands behind a command or the name of a setting.
fn takes_more(word: &str) -> bool {
    match word.strip_prefix('/') {
        Some(command) => {
            ["system", "image", "audio", "file", "think", "model", "set"].contains(&command)
        }
        None => settings::names().iter().any(|name| name == word),
    }
}

/// The files whose path begins as typed, and where the part of it begins that they replace.
fn files(typed: &str) -> (usize, Vec<Pair>) {
    let quote = typed
        .chars()
        .next()
        .filter(|first| ['\'', '"'].contains(first));
    let path = &typed[quote.map_or(0, char::len_utf8)..];
    let (folder, begun) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    let plain = |text: &str| match quote {
        Some(_) => text.into(),
        None => compose::path(text),
    };
    let folder = match folder {
        "" => Path::new(".").into(),
        folder => plain(folder),
    };
    let begun = match quote {
        Some(_) => begun.to_owned(),
        None => compose::unescaped(begun),
    };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // Files that are hidden are shown to those who begin with a point.
            let is_shown = !name.starts_with('.') || begun.starts_with('.');
            let fits = is_shown && name.starts_with(&begun) && !name.contains(char::is_control);
            fits.then(|| candidate(name, entry.path().is_dir(), quote))
        })
        .collect();
    files.sort_by(|a, b| a.display.cmp(&b.display));
    (
        typed.len() - path.len() + path.rfind('/').map_or(0, |slash| slash + 1),
        files,
    )
}

fn candidate(name: String, is_folder: bool, quote: Option<char>) -> Pair {
    let typed = match quote {
        Some(_) => name.clone(),
        None => compose::escaped(&name),
    };
    let end = match (is_folder, quote) {
        (true, _) => "/".to_owned(),
        (false, Some(quote)) => quote.to_string(),
        (false, None) => String::new(),
    };
    Pair {
        display: format!("{name}{}", if is_folder { "/" } else { "" }),
        replacement: typed + &end,
    }
}

impl Completer for Tab<'_> {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(self.candidates(&line[..cursor]))
    }
}

impl Hinter for Tab<'_> {
    type Hint = String;
}

impl Highlighter for Tab<'_> {}
impl Validator for Tab<'_> {}
impl Helper for Tab<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let models = || vec!["auto".to_owned(), "e2b".to_owned()];
        let (start, pairs) = Tab::new(&models).candidates(line);
        let begin = &line[..start];
        pairs
            .into_iter()
            .map(|pair| format!("{begin}{}", pair.replacement))
            .collect()
    }

    #[test]
    fn commands_and_their_words() {
        assert_eq!(completed("/he"), ["/help"]);
        assert_eq!(completed(" /s"), [" /system ", " /set "]);
        assert_eq!(completed("/model "), ["/model auto", "/model e2b"]);
        assert_eq!(completed("/model e"), ["/model e2b"]);
        assert_eq!(completed("/set top"), ["/set top-k ", "/set top-p "]);
        assert_eq!(completed("/set v"), ["/set verbose"]);
        assert_eq!(completed("/think of"), ["/think off"]);
        for line in [
            "",
            "hello",
            "what is /he",
            "/set top-k 5",
            "/system x",
            "/nope x",
        ] {
            assert!(completed(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn files_are_completed_as_they_may_be_typed() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        for name in ["a b.png", "a'c.png", ".hidden", "back\\slash"] {
            std::fs::write(home.path().join(name), "").unwrap();
        }
        std::fs::create_dir(home.path().join("folder")).unwrap();
        for (typed, ends) in [
            ("a", &["a b.png", "a\\'c.png"][..]),
            ("a\\'", &["a\\'c.png"]),
            (".", &[".hidden"]),
            ("b", &["back\\\\slash"]),
            ("fo", &["folder/"]),
            ("none", &[]),
        ] {
            let expected: Vec<_> = ends.iter().map(|end| format!("/file {at}/{end}")).collect();
            let lines = completed(&format!("/file {at}/{typed}"));
            assert_eq!(lines, expected);
            for (line, end) in lines.iter().zip(ends) {
                let path = compose::path(line.strip_prefix("/file ").unwrap());
                assert!(path.exists(), "{end}");
            }
        }
        let quoted = completed(&format!("/image \"{at}/a b"));
        assert_eq!(quoted, [format!("/image \"{at}/a b.png\"")]);
    }
}
