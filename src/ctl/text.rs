//! What a terminal is shown. Model output is not to be trusted: on a terminal it loses its control
//! characters, so that it cannot move the cursor, rename the window or type for the user.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";
/// Takes the line away that the cursor is in.
const CLEAR_LINE: &str = "\r\x1b[K";
/// Columns where nobody says how many there are.
const COLUMNS: usize = 80;

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Auto,
    Always,
    Never,
}

/// What stands behind an output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub is_terminal: bool,
    pub colour: bool,
}

/// What stands behind standard output and standard error.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    pub out: Stream,
    pub err: Stream,
}

impl Stream {
    fn new(is_terminal: bool, wish: Colour, plain_environment: bool) -> Self {
        let colour = match wish {
            Colour::Auto => is_terminal && !plain_environment,
            Colour::Always => true,
            Colour::Never => false,
        };
        Self {
            is_terminal,
            colour,
        }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint(BOLD, text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint(DIM, text)
    }

    /// In one of the terminal's own colours: an SGR code.
    pub fn tint(self, code: u8, text: &str) -> String {
        self.paint(&format!("\x1b[{code}m"), text)
    }

    /// Takes a colour back, where there are any.
    pub fn uncoloured(self) -> &'static str {
        if self.colour { PLAIN } else { "" }
    }

    fn paint(self, with: &str, text: &str) -> String {
        if self.colour {
            format!("{with}{text}{PLAIN}")
        } else {
            text.into()
        }
    }

    /// Text that someone else wrote, made safe for this stream.
    pub fn clean(self, text: &str) -> Cow<'_, str> {
        if self.is_terminal {
            clean(text)
        } else {
            text.into()
        }
    }
}

impl Terminal {
    pub fn detect(wish: Colour) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let plain = set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            out: Stream::new(io::stdout().is_terminal(), wish, plain),
            err: Stream::new(io::stderr().is_terminal(), wish, plain),
        }
    }

    /// Whether somebody sees a line that goes away again.
    pub fn shows_waiting(&self) -> bool {
        self.err.is_terminal && self.out.is_terminal
    }

    /// An error message. What it quotes may come from anyone.
    pub fn complain(&self, message: &str) {
        // There is no one left to tell when this fails.
        let _ = writeln!(
            io::stderr(),
            "{} {}",
            self.err.paint(RED, "gemmactl:"),
            clean(message)
        );
    }

    /// A remark beside the answer.
    pub fn remark(&self, message: &str) {
        let _ = writeln!(io::stderr(), "{}", self.err.dim(&clean(message)));
    }
}

/// Whether text may be in UTF-8, by the locale: the first of the variables that decide has the word
/// (locale(7)).
pub fn speaks_utf8() -> bool {
    utf8_locale(|name| std::env::var(name).ok())
}

fn utf8_locale(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        ["utf-8", "utf8"]
            .iter()
            .any(|charset| locale.to_ascii_lowercase().contains(charset))
    })
}

/// Columns of the terminal that standard output is, as far as there is one.
pub fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| size.ws_col.into())
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}

/// Drops control characters other than newline and tab. What is left of an escape sequence is
/// harmless text.
pub fn clean(text: &str) -> Cow<'_, str> {
    let unsafe_here = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(unsafe_here) {
        text.chars()
            .filter(|c| !unsafe_here(*c))
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

/// Prints one answer: text to one stream, thoughts to the other.
pub struct Printer<O, E> {
    out: O,
    err: E,
    terminal: Terminal,
    /// Newlines held back: on a terminal an answer ends with exactly one.
    newlines: usize,
    /// A line of the answer was begun.
    in_line: bool,
    /// Nothing is added to the answer where it does not go to a terminal.
    bare: bool,
    thinking: bool,
    /// A line says that the answer has not begun.
    waiting: bool,
}

impl<O: Write, E: Write> Printer<O, E> {
    pub fn new(out: O, err: E, terminal: Terminal) -> Self {
        Self {
            out,
            err,
            terminal,
            newlines: 0,
            in_line: false,
            bare: false,
            thinking: false,
            waiting: false,
        }
    }

    /// The answer has not begun: this is why. Said in a line that goes away when it does, where
    /// people see it.
    pub fn waits(&mut self, why: &str) -> io::Result<()> {
        if !self.terminal.shows_waiting() {
            return Ok(());
        }
        self.waiting = true;
        // A line that is longer than the terminal is wide would not go away.
        let why: String = why.chars().take(columns().saturating_sub(1)).collect();
        write!(self.err, "{CLEAR_LINE}{}", self.terminal.err.dim(&why))?;
        self.err.flush()
    }

    /// Takes that line away, if it is there.
    pub fn stop_waiting(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.waiting) {
            return Ok(());
        }
        self.err.write_all(CLEAR_LINE.as_bytes())?;
        self.err.flush()
    }

    /// Leaves the newline out that ends the answer, as long as that does not go to a terminal.
    pub fn bare(self, bare: bool) -> Self {
        Self { bare, ..self }
    }

    /// A piece of the answer. It is on its way when this returns.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.stop_waiting()?;
        self.end_thought()?;
        if !self.terminal.out.is_terminal {
            self.in_line = !text.ends_with('\n');
            self.out.write_all(text.as_bytes())?;
            return self.out.flush();
        }
        let text = clean(text);
        let body = text.trim_end_matches('\n');
        if !body.is_empty() {
            self.out.write_all("\n".repeat(self.newlines).as_bytes())?;
            self.out.write_all(body.as_bytes())?;
            self.newlines = 0;
        }
        // More empty lines than fit on any screen say nothing more.
        self.newlines = (self.newlines + text.len() - body.len()).min(1000);
        self.out.flush()
    }

    /// A piece of the model's thoughts.
    pub fn thought(&mut self, text: &str) -> io::Result<()> {
        self.stop_waiting()?;
        if !self.thinking && self.terminal.err.colour {
            self.err.write_all(DIM.as_bytes())?;
        }
        self.thinking = true;
        self.err
            .write_all(self.terminal.err.clean(text).as_bytes())?;
        self.err.flush()
    }

    /// Ends the line, whether or not the answer came to its end.
    pub fn end(&mut self) -> io::Result<()> {
        self.stop_waiting()?;
        self.end_thought()?;
        self.newlines = 0;
        let begun = std::mem::take(&mut self.in_line) && !self.bare;
        if self.terminal.out.is_terminal || begun {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    fn end_thought(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.thinking) {
            return Ok(());
        }
        self.err
            .write_all(self.terminal.err.uncoloured().as_bytes())?;
        self.err.write_all(if self.terminal.err.is_terminal {
            b"\n\n"
        } else {
            b"\n"
        })?;
        self.err.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTY: Stream = Stream {
        is_terminal: true,
        colour: true,
    };
    const PIPE: Stream = Stream {
        is_terminal: false,
        colour: false,
    };

    fn printed(terminal: Terminal, thoughts: &[&str], texts: &[&str]) -> (String, String) {
        let (mut out, mut err) = (vec![], vec![]);
        let mut printer = Printer::new(&mut out, &mut err, terminal);
        thoughts
            .iter()
            .for_each(|text| printer.thought(text).unwrap());
        texts.iter().for_each(|text| printer.text(text).unwrap());
        printer.end().unwrap();
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn a_terminal_gets_exactly_one_newline_at_the_end() {
        let terminal = Terminal { out: TTY, err: TTY };
        for texts in [&["a"][..], &["a\n"], &["a", "\n", "\n\n"], &["a\n", "\n"]] {
            assert_eq!(printed(terminal, &[], texts).0, "a\n", "{texts:?}");
        }
        assert_eq!(
            printed(terminal, &[], &["a\n", "\nb", "\n", "c\n"]).0,
            "a\n\nb\nc\n"
        );
    }

    #[test]
    fn a_pipe_gets_what_the_model_wrote_and_whole_lines() {
        let terminal = Terminal {
            out: PIPE,
            err: PIPE,
        };
        assert_eq!(
            printed(terminal, &[], &["a\x1b[2J\n", "\n"]).0,
            "a\x1b[2J\n\n"
        );
        assert_eq!(printed(terminal, &[], &["a", "b"]).0, "ab\n");
        assert_eq!(printed(terminal, &[], &[]).0, "");
        let mut out = vec![];
        let mut printer = Printer::new(&mut out, io::sink(), terminal).bare(true);
        printer.text("a").unwrap();
        printer.end().unwrap();
        assert_eq!(out, b"a");
    }

    #[test]
    fn who_waits_at_a_terminal_is_told_until_the_answer_comes() {
        let shown = |terminal| {
            let (mut out, mut err) = (vec![], vec![]);
            let mut printer = Printer::new(&mut out, &mut err, terminal);
            printer.waits("loading the model, 2 s").unwrap();
            printer.waits(&"long ".repeat(1000)).unwrap();
            printer.waits("waiting for the first word, 4 s").unwrap();
            printer.text("yes").unwrap();
            printer.end().unwrap();
            String::from_utf8(err).unwrap()
        };
        let said = shown(Terminal { out: TTY, err: TTY });
        assert!(said.contains("first word, 4 s"), "{said:?}");
        assert!(said.len() < 1000, "{said:?}");
        assert!(said.ends_with("\x1b[0m\r\x1b[K"), "{said:?}");
        assert_eq!(
            shown(Terminal {
                out: PIPE,
                err: TTY
            }),
            ""
        );
        assert_eq!(
            shown(Terminal {
                out: TTY,
                err: PIPE
            }),
            ""
        );
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let terminal = Terminal { out: TTY, err: TTY };
        let evil = "a\x1b]0;title\x07\x1b[31mb\r\x08\u{9b}2Jc\td\x7f";
        assert_eq!(
            printed(terminal, &[evil], &[evil]).0,
            "a]0;title[31mb2Jc\td\n"
        );
        assert_eq!(
            printed(terminal, &[evil], &[]).1,
            "\x1b[2ma]0;title[31mb2Jc\td\x1b[0m\n\n"
        );
        assert_eq!(clean("tab\tline\nä"), "tab\tline\nä");
    }

    #[test]
    fn thoughts_keep_off_the_answer() {
        let (out, err) = printed(
            Terminal {
                out: PIPE,
                err: PIPE,
            },
            &["hm", "m"],
            &["yes"],
        );
        assert_eq!((out.as_str(), err.as_str()), ("yes\n", "hmm\n"));
        let (out, err) = printed(Terminal { out: TTY, err: TTY }, &["hm", "m"], &["yes"]);
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("yes\n", "\x1b[2mhmm\x1b[0m\n\n")
        );
    }

    #[test]
    fn the_locale_says_whether_there_is_utf8() {
        let locale = |set: &[(&str, &str)]| {
            utf8_locale(|name| {
                set.iter()
                    .find(|(variable, _)| *variable == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(
            locale(&[("LANG", "de_DE.UTF-8")]) && locale(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")])
        );
        assert!(locale(&[("LC_ALL", ""), ("LANG", "en_GB.UTF-8@euro")]));
        assert!(
            !locale(&[])
                && !locale(&[("LANG", "C")])
                && !locale(&[("LC_ALL", "POSIX"), ("LANG", "C.UTF-8")])
        );
    }

    #[test]
    fn colours_are_for_terminals_unless_the_user_says_otherwise() {
        let colour = |terminal, wish, plain| Stream::new(terminal, wish, plain).colour;
        assert!(colour(true, Colour::Auto, false));
        assert!(!colour(false, Colour::Auto, false));
        assert!(!colour(true, Colour::Auto, true));
        assert!(!colour(true, Colour::Never, false));
        assert!(colour(false, Colour::Always, true));
    }
}
