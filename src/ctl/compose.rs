//! What a line typed in `chat` means: text, a part of longer text, or a command.

use std::path::PathBuf;

/// What to do after a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for the next line.
    More,
    /// Send this.
    Say(String),
    Do(Slash),
    /// Tell the user this.
    Wrong(String),
    Nothing,
}

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub enum Slash {
    Help,
    /// Set the system text; empty takes it away.
    System(String),
    ShowSystem,
    /// Show the model this picture with what is said next.
    Image(PathBuf),
    /// Let it hear this sound, likewise.
    Audio(PathBuf),
    /// Let it read this file, likewise.
    File(PathBuf),
    Clear,
    /// `None` turns it round.
    Think(Option<bool>),
    /// `None` shows it.
    Model(Option<String>),
    /// A setting's name and its value; both empty to show all.
    Set(String, String),
    /// Whether rates are told after each answer.
    Verbose(bool),
    Quit,
}

/// Their names, without those that are other words for the same.
pub const COMMANDS: [&str; 10] = [
    "help", "system", "image", "audio", "file", "clear", "think", "model", "set", "quit",
];

/// The commands, as /help prints them.
pub const HELP: &str = "\
/help          this
/system TEXT   instructions for the conversation; /system shows them, and
               `/system -` takes them away
/image FILE    show a picture with what you say next; in the same way
               /audio FILE plays a sound, and /file FILE is read
/clear         forget the conversation
/think on|off  let the model think before it answers
/model MODEL   another model for what follows; /model shows it
/set NAME X    a sampling option of `gemmactl chat --help`, as in
               /set temperature 0.5; X `default` takes it back; /set shows all;
               /set verbose tells how fast each answer was, /set quiet does not
/quit          leave, as Ctrl-D does
A line that ends with \\ goes on in the next. Lines of \"\"\" hold several lines
between them. Tab completes commands, models and the names of files.
Ctrl-C stops an answer, or clears the line.";

const FENCE: &str = "\"\"\"";

/// Text that is not complete yet.
#[derive(Debug, Default)]
pub struct Composer {
    lines: Vec<String>,
    fenced: bool,
}

impl Composer {
    /// Whether the next line goes on with what was begun.
    pub fn is_open(&self) -> bool {
        self.fenced || !self.lines.is_empty()
    }

    /// Forgets what was begun.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    pub fn line(&mut self, line: &str) -> Step {
        if self.fenced {
            if line.trim_end() == FENCE {
                return self.finish();
            }
            self.lines.push(line.into());
            return Step::More;
        }
        if !self.is_open() {
            if line.trim() == FENCE {
                self.fenced = true;
                return Step::More;
            }
            if let Some(command) = line.trim().strip_prefix('/') {
                return slash(command);
            }
        }
        match line.strip_suffix('\\') {
            Some(begun) => {
                self.lines.push(begun.into());
                Step::More
            }
            None => {
                self.lines.push(line.into());
                self.finish()
            }
        }
    }

    fn finish(&mut self) -> Step {
        let text = std::mem::take(self).lines.join("\n");
        if text.trim().is_empty() {
            Step::Nothing
        } else {
            Step::Say(text)
        }
    }
}

fn slash(command: &str) -> Step {
    let (name, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    let rest = rest.trim();
    Step::Do(match (name, rest) {
        ("help" | "?", _) => Slash::Help,
        ("system", "") => Slash::ShowSystem,
        ("system", "-") => Slash::System(String::new()),
        ("system", text) => Slash::System(text.into()),
        ("image" | "audio" | "file", "") => return Step::Wrong(format!("write /{name} FILE")),
        ("image", file) => Slash::Image(path(file)),
        ("audio", file) => Slash::Audio(path(file)),
        ("file", file) => Slash::File(path(file)),
        ("clear", _) => Slash::Clear,
        ("think", "") => Slash::Think(None),
        ("think", "on") => Slash::Think(Some(true)),
        ("think", "off") => Slash::Think(Some(false)),
        ("think", _) => return Step::Wrong("write /think on or /think off".into()),
        ("model", "") => Slash::Model(None),
        ("model", model) => Slash::Model(Some(model.into())),
        ("set", rest) => set(rest),
        ("quit" | "exit" | "bye", _) => Slash::Quit,
        _ => {
            return Step::Wrong(format!(
                "there is no command /{name}; /help names them. To send such a line, put it between lines of {FENCE}"
            ));
        }
    })
}

/// `parameter` may stand before a name, as in other programs.
fn set(rest: &str) -> Slash {
    let halves = |text: &str| {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        (name.to_owned(), value.trim().to_owned())
    };
    let (mut name, mut value) = halves(rest);
    if name == "parameter" {
        (name, value) = halves(&value);
    }
    match (name.as_str(), value.as_str()) {
        ("verbose", "") => Slash::Verbose(true),
        ("quiet", "") => Slash::Verbose(false),
        ("think", "") => Slash::Think(Some(true)),
        ("nothink", "") => Slash::Think(Some(false)),
        ("system", "") => Slash::ShowSystem,
        ("system", text) => Slash::System(text.trim_matches('"').into()),
        ("model", "") => Slash::Model(None),
        ("model", model) => Slash::Model(Some(model.into())),
        _ => Slash::Set(name.replace('_', "-"), value),
    }
}

/// A path as it is typed or pasted: a file that was dropped onto a terminal comes in quotes, or with a
/// backslash before each blank.
pub fn path(text: &str) -> PathBuf {
    let quoted = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(path) = quoted('\'').or_else(|| quoted('"')) {
        return path.into();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match (text.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => home.join(unescaped(below)),
        _ => unescaped(text).into(),
    }
}

/// Without the backslashes that a shell would take away.
pub fn unescaped(text: &str) -> String {
    let mut chars = text.chars().peekable();
    let mut path = String::new();
    while let Some(c) = chars.next() {
        let escapes = c == '\\' && chars.peek().is_some_and(|next| !next.is_alphanumeric());
        path.extend(if escapes { chars.next() } else { Some(c) });
    }
    path
}

/// A name as it must be typed to be taken as it is.
pub fn escaped(name: &str) -> String {
    let mut typed = String::with_capacity(name.len());
    for c in name.chars() {
        if ['\\', '\'', '"'].contains(&c) {
            typed.push('\\');
        }
        typed.push(c);
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(lines: &[&str]) -> Step {
        let mut composer = Composer::default();
        let mut steps: Vec<_> = lines.iter().map(|line| composer.line(line)).collect();
        let last = steps.pop().unwrap();
        assert!(
            steps.iter().all(|step| *step == Step::More),
            "{lines:?}: {steps:?}"
        );
        assert_eq!(composer.is_open(), last == Step::More);
        last
    }

    #[test]
    fn text_over_one_or_more_lines() {
        let say = |text: &str| Step::Say(text.into());
        assert_eq!(last(&["hello"]), say("hello"));
        assert_eq!(last(&["a\\", "b\\", "c"]), say("a\nb\nc"));
        assert_eq!(last(&["a\\", "/quit"]), say("a\n/quit"));
        assert_eq!(
            last(&["\"\"\"", "a", "", "/b\\", "\"\"\""]),
            say("a\n\n/b\\")
        );
        assert_eq!(last(&["\"\"\"", "a"]), Step::More);
        assert_eq!(last(&["\"\"\"", "\"\"\""]), Step::Nothing);
        assert_eq!(last(&["  "]), Step::Nothing);
        assert_eq!(last(&["\\", ""]), Step::Nothing);
    }

    #[test]
    fn commands() {
        assert_eq!(last(&["/quit"]), Step::Do(Slash::Quit));
        assert_eq!(
            last(&[" /system  Be brief. "]),
            Step::Do(Slash::System("Be brief.".into()))
        );
        assert_eq!(last(&["/system -"]), Step::Do(Slash::System(String::new())));
        assert_eq!(last(&["/system"]), Step::Do(Slash::ShowSystem));
        assert_eq!(
            last(&["/image a b.png"]),
            Step::Do(Slash::Image("a b.png".into()))
        );
        assert_eq!(
            last(&["/audio '/tmp/a b.wav' "]),
            Step::Do(Slash::Audio("/tmp/a b.wav".into()))
        );
        assert_eq!(
            last(&["/file /tmp/a\\ \\(b\\).txt"]),
            Step::Do(Slash::File("/tmp/a (b).txt".into()))
        );
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        assert_eq!(
            last(&["/file ~/a b.txt"]),
            Step::Do(Slash::File(home.join("a b.txt")))
        );
        assert!(matches!(last(&["/image"]), Step::Wrong(text) if text.contains("/image FILE")));
        assert_eq!(last(&["/think"]), Step::Do(Slash::Think(None)));
        assert_eq!(last(&["/think off"]), Step::Do(Slash::Think(Some(false))));
        assert_eq!(
            last(&["/model e4b"]),
            Step::Do(Slash::Model(Some("e4b".into())))
        );
        let set = |name: &str, value: &str| Step::Do(Slash::Set(name.into(), value.into()));
        assert_eq!(last(&["/set top_k  5"]), set("top-k", "5"));
        assert_eq!(last(&["/set parameter seed 1"]), set("seed", "1"));
        assert_eq!(last(&["/set stop two words"]), set("stop", "two words"));
        assert_eq!(last(&["/set"]), set("", ""));
        assert_eq!(last(&["/set verbose"]), Step::Do(Slash::Verbose(true)));
        assert_eq!(last(&["/set nothink"]), Step::Do(Slash::Think(Some(false))));
        assert_eq!(
            last(&["/set system \"Be brief.\""]),
            Step::Do(Slash::System("Be brief.".into()))
        );
        assert!(matches!(last(&["/think maybe"]), Step::Wrong(_)));
        assert!(
            matches!(last(&["/etc/passwd is what?"]), Step::Wrong(text) if text.contains("/etc/passwd"))
        );
    }

    #[test]
    fn help_names_every_command_and_fits_a_terminal() {
        for name in COMMANDS {
            assert!(HELP.contains(&format!("/{name}")), "{name}");
            assert!(
                !matches!(last(&[&format!("/{name}")]), Step::Wrong(text) if text.contains("no command"))
            );
        }
        for line in HELP.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn names_of_files_survive_their_typing() {
        for name in ["a b", "a\\b", "'a'", "\"a b\"", "\\", "a\\ b"] {
            assert_eq!(path(&escaped(name)), PathBuf::from(name), "{name}");
        }
    }
}
