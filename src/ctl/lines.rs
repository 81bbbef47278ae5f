//! The user's lines: from a terminal with editing, from one that knows too little for that, or from a
//! pipe.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::error::Error;
use super::interrupt::Interrupts;
use super::tab::Tab;

/// Lines kept in memory, and in the history file if there is one.
const HISTORY_LINES: usize = 1000;
/// Terminals on which rustyline does not edit.
const PLAIN: [&str; 3] = ["dumb", "cons25", "emacs"];

/// What came of waiting for a line.
pub enum Typed {
    Line(String),
    /// Ctrl-C took away what was typed.
    Cleared,
    /// The end of input.
    End,
}

/// Where lines come from.
pub struct Lines<'a> {
    editor: Editor<Tab<'a>, FileHistory>,
    file: Option<PathBuf>,
    pub on_terminal: bool,
    /// A terminal on which the line is not edited here.
    plain: Option<Plain>,
    runtime: &'a Runtime,
    interrupts: &'a Interrupts,
}

impl<'a> Lines<'a> {
    /// `history`: nowhere, in the user's own place for such things, or in a file. An empty name, as
    /// an empty environment variable gives it, is nowhere. `models`: their names, for completions.
    pub fn open(
        history: Option<Option<&OsStr>>,
        models: &'a dyn Fn() -> Vec<String>,
        runtime: &'a Runtime,
        interrupts: &'a Interrupts,
    ) -> Result<Self, Error> {
        let broken = |error: ReadlineError| Error::Output(io::Error::other(error));
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .map_err(broken)?
            .completion_type(CompletionType::List)
            .build();
        let history_lines = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history_lines).map_err(broken)?;
        editor.set_helper(Some(Tab::new(models)));
        let file = match history {
            None => None,
            Some(Some(file)) => {
                Some(PathBuf::from(file)).filter(|file| !file.as_os_str().is_empty())
            }
            Some(None) => Some(own_file()?),
        };
        if let Some(file) = file.as_deref().filter(|file| file.exists()) {
            editor
                .load_history(file)
                .map_err(|error| unusable(file, error))?;
        }
        let on_terminal = io::IsTerminal::is_terminal(&io::stdin());
        let knows_little = || {
            let term = std::env::var("TERM").unwrap_or_default();
            PLAIN.iter().any(|plain| plain.eq_ignore_ascii_case(&term))
        };
        let plain = match on_terminal && knows_little() {
            true => Some(Plain::open().map_err(Error::Output)?),
            false => None,
        };
        Ok(Self {
            editor,
            file,
            on_terminal,
            plain,
            runtime,
            interrupts,
        })
    }

    /// Whether lines are edited here, with Tab and what else there is.
    pub fn edits(&self) -> bool {
        self.plain.is_none()
    }

    /// Waits for the next line.
    pub fn next(&mut self, prompt: &str) -> Result<Typed, Error> {
        let typed = match &mut self.plain {
            None => self.edited_line(prompt),
            Some(terminal) => plain_line(prompt, terminal, self.runtime, self.interrupts),
        };
        let typed = typed.map_err(Error::Output)?;
        if let Typed::Line(line) = &typed {
            let kept = self.editor.add_history_entry(line.as_str());
            kept.map_err(|error| Error::Output(io::Error::other(error)))?;
        }
        Ok(typed)
    }

    fn edited_line(&mut self, prompt: &str) -> io::Result<Typed> {
        match self.editor.readline(prompt) {
            Ok(line) => Ok(Typed::Line(line)),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Interrupted) => Ok(Typed::Cleared),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Writes the history file, if there is one.
    pub fn save(&mut self) -> Result<(), Error> {
        match &self.file {
            // Readable by the user alone: rustyline sees to it.
            Some(file) => self
                .editor
                .save_history(file)
                .map_err(|error| unusable(file, error)),
            None => Ok(()),
        }
    }
}

/// Shows the prompt and waits for the line. Ctrl-C is a signal here, which ends the waiting; the
/// terminal forgets what was typed.
fn plain_line(
    prompt: &str,
    terminal: &mut Plain,
    runtime: &Runtime,
    interrupts: &Interrupts,
) -> io::Result<Typed> {
    // Whoever sees the prompt may press Ctrl-C: by then it must be this that it stops.
    let line = interrupts.stops(async {
        let mut out = io::stdout();
        out.write_all(prompt.as_bytes())?;
        out.flush()?;
        terminal.next().await
    });
    match runtime.block_on(line) {
        Some(line) => Ok(line?.map_or(Typed::End, Typed::Line)),
        None => {
            io::stdout().write_all(b"\n")?;
            Ok(Typed::Cleared)
        }
    }
}

/// A terminal that hands over whole lines. A thread of its own reads them, so that Ctrl-C need not wait
/// for one.
struct Plain {
    ask: std::sync::mpsc::Sender<()>,
    lines: UnboundedReceiver<io::Result<Option<String>>>,
    /// A line was asked for and has not come: Ctrl-C came before it.
    is_asked: bool,
}

impl Plain {
    fn open() -> io::Result<Self> {
        let (ask, asked) = std::sync::mpsc::channel();
        let (send, lines) = unbounded_channel();
        let read = move || {
            for () in asked {
                let mut line = String::new();
                let read = io::stdin().read_line(&mut line);
                let line = read.map(|bytes| {
                    let line = line.strip_suffix('\n').unwrap_or(&line).to_owned();
                    Some(line).filter(|_| bytes > 0)
                });
                if send.send(line).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new()
            .name("lines".into())
            .spawn(read)?;
        Ok(Self {
            ask,
            lines,
            is_asked: false,
        })
    }

    /// The next line; `None` at the end of input. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> io::Result<Option<String>> {
        if !self.is_asked {
            self.is_asked = self.ask.send(()).is_ok();
        }
        let line = self.lines.recv().await;
        self.is_asked = false;
        line.unwrap_or(Ok(None))
    }
}

fn unusable(file: &Path, error: ReadlineError) -> Error {
    Error::File {
        path: file.into(),
        cause: io::Error::other(error),
    }
}

/// `$XDG_STATE_HOME/gemmad/history`, its directory made if it is missing.
fn own_file() -> Result<PathBuf, Error> {
    let from = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = from("XDG_STATE_HOME").or_else(|| Some(from("HOME")?.join(".local/state")));
    let directory = state
        .ok_or_else(|| {
            Error::Usage(
                "neither XDG_STATE_HOME nor HOME is set: name the file, --history FILE".into(),
            )
        })?
        .join("gemmad");
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.map_err(|cause| Error::File {
        path: directory.clone(),
        cause,
    })?;
    Ok(directory.join("history"))
}
