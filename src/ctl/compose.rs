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
    Quit,
}

/// The commands, as /help prints them.
pub const HELP: &str = "\
/help          this
/system TEXT   instructions before the conversation; `/system -` takes them away, /system shows them
/image FILE    show a picture with what you say next; /audio FILE plays a sound, /file FILE is read
/clear         forget the conversation
/think on|off  let the model think before it answers
/model MODEL   another model for what follows; /model shows it
/quit          leave, as Ctrl-D does
A line that ends with \\ goes on in the next. Lines of \"\"\" hold several lines between them.
Ctrl-C stops an answer.";

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
        ("quit" | "exit" | "bye", _) => Slash::Quit,
        _ => {
            return Step::Wrong(format!(
                "there is no command /{name}; /help names them. To send such a line, put it between lines of {FENCE}"
            ));
        }
    })
}

/// A path as it is typed or pasted: a file that was dropped onto a terminal often comes in quotes.
fn path(text: &str) -> PathBuf {
    let quoted = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    quoted('\'').or_else(|| quoted('"')).unwrap_or(text).into()
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
        assert!(matches!(last(&["/image"]), Step::Wrong(text) if text.contains("/image FILE")));
        assert_eq!(last(&["/think"]), Step::Do(Slash::Think(None)));
        assert_eq!(last(&["/think off"]), Step::Do(Slash::Think(Some(false))));
        assert_eq!(
            last(&["/model e4b"]),
            Step::Do(Slash::Model(Some("e4b".into())))
        );
        assert!(matches!(last(&["/think maybe"]), Step::Wrong(_)));
        assert!(
            matches!(last(&["/etc/passwd is what?"]), Step::Wrong(text) if text.contains("/etc/passwd"))
        );
    }

    #[test]
    fn help_names_every_command() {
        for name in [
            "/help", "/system", "/image", "/audio", "/file", "/clear", "/think", "/model", "/quit",
        ] {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
