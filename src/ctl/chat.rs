//! `gemmactl chat`: a conversation. It lives in this process alone and is sent whole with every
//! turn.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::answer;
use super::args::{ChatArgs, ConversationArgs};
use super::client::Client;
use super::compose::{Composer, HELP, Slash, Step};
use super::error::Error;
use super::interrupt::Interrupts;
use super::media;
use super::text::{Printer, Terminal};
use super::wire::{chat_body, message, message_with_media};

/// Lines kept in memory, and in the history file if there is one.
const HISTORY_LINES: usize = 1000;

pub fn run(
    args: &ChatArgs,
    client: &dyn Client,
    runtime: &Runtime,
    interrupts: &Interrupts,
    terminal: &Terminal,
) -> Result<(), Error> {
    let mut lines = Lines::open(args.history.as_ref().map(Option::as_deref))?;
    let mut talk = Talk {
        settings: args.conversation.clone(),
        turns: vec![],
        shown: vec![],
    };
    let mut composer = Composer::default();
    if lines.on_terminal {
        terminal.remark("/help names the commands, Ctrl-D leaves");
    }
    let result = loop {
        let line = match lines.next(if composer.is_open() { "… " } else { "> " }) {
            Ok(Some(line)) => line,
            Ok(None) => break Ok(()),
            Err(ReadlineError::Interrupted) => {
                composer.reset();
                continue;
            }
            Err(error) => break Err(Error::Output(io::Error::other(error))),
        };
        match composer.line(&line) {
            Step::More | Step::Nothing => {}
            Step::Wrong(text) => terminal.remark(&text),
            Step::Do(Slash::Quit) => break Ok(()),
            Step::Do(command) => terminal.remark(&talk.obey(command)),
            Step::Say(text) => {
                match runtime.block_on(talk.turn(&text, client, interrupts, terminal)) {
                    Ok(()) => {}
                    Err(error @ (Error::Closed | Error::Output(_))) => break Err(error),
                    // On a terminal the user can try again; a script's next line would miss this
                    // one.
                    Err(error) if !lines.on_terminal => break Err(error),
                    Err(error) => terminal.complain(&error.message().unwrap_or_default()),
                }
            }
        }
    };
    result.and(lines.save())
}

/// The conversation so far and how it goes on.
struct Talk {
    settings: ConversationArgs,
    turns: Vec<Value>,
    /// Pictures, sounds and files that go with what is said next.
    shown: Vec<Value>,
}

impl Talk {
    /// Does what a command says and returns what to tell.
    fn obey(&mut self, command: Slash) -> String {
        let settings = &mut self.settings;
        match command {
            Slash::Help | Slash::Quit => HELP.into(),
            Slash::System(text) => {
                settings.system = Some(text).filter(|text| !text.is_empty());
                if settings.system.is_some() {
                    "the instructions hold from now on"
                } else {
                    "there are no instructions now"
                }
                .into()
            }
            Slash::ShowSystem => settings
                .system
                .clone()
                .unwrap_or_else(|| "there are no instructions".into()),
            Slash::Image(path) => self.show(&path, media::picture(&path)),
            Slash::Audio(path) => self.show(&path, media::sound(&path)),
            Slash::File(path) => self.show(&path, media::document(&path)),
            Slash::Clear => {
                self.turns.clear();
                self.shown.clear();
                "the conversation is forgotten".into()
            }
            Slash::Think(wish) => {
                let think = wish.unwrap_or(!settings.thinks());
                // Who turns thinking on in a chat wants to see why it takes longer.
                (settings.think, settings.show_thoughts) = (think, think);
                if think {
                    "thinking is on"
                } else {
                    "thinking is off"
                }
                .into()
            }
            Slash::Model(None) => format!("the model is {}", settings.model),
            Slash::Model(Some(model)) => {
                settings.model = model;
                format!("the model is {} from now on", settings.model)
            }
        }
    }

    /// Keeps a picture or a sound for the next question; says so, or why not.
    fn show(&mut self, path: &Path, part: Result<Value, Error>) -> String {
        match part {
            Ok(part) => {
                self.shown.push(part);
                format!("{} goes with what you say next", path.display())
            }
            Err(error) => error.message().unwrap_or_default(),
        }
    }

    /// Asks, prints, remembers. A question without any answer is forgotten, so that it can be asked
    /// again.
    async fn turn(
        &mut self,
        text: &str,
        client: &dyn Client,
        interrupts: &Interrupts,
        terminal: &Terminal,
    ) -> Result<(), Error> {
        let shown = std::mem::take(&mut self.shown);
        self.turns.push(if shown.is_empty() {
            message("user", text)
        } else {
            message_with_media(shown, text)
        });
        let settings = &self.settings;
        let system = settings
            .system
            .as_deref()
            .map(|text| message("system", text));
        let messages: Vec<Value> = system
            .into_iter()
            .chain(self.turns.iter().cloned())
            .collect();
        let body = chat_body(
            &settings.model,
            &messages,
            &settings.sampling,
            settings.thinks(),
            true,
        );
        let mut printer = Printer::new(io::stdout(), io::stderr(), *terminal);
        let mut said = String::new();
        let result = interrupts
            .stops(answer::stream(
                client,
                &body,
                settings.show_thoughts,
                &mut printer,
                &mut said,
            ))
            .await;
        if said.is_empty() && !matches!(result, Some(Ok(_))) {
            self.turns.pop();
        } else {
            self.turns.push(message("assistant", &said));
        }
        if !matches!(result, Some(Err(_))) || !said.is_empty() {
            printer.end().map_err(Error::from_output)?;
        }
        match result {
            None => terminal.remark("(stopped)"),
            Some(result) => {
                if let Some(remark) = answer::remark(result?.as_deref()) {
                    terminal.remark(remark);
                }
            }
        }
        Ok(())
    }
}

/// The user's lines, from a terminal with editing or from a pipe.
struct Lines {
    editor: Editor<(), FileHistory>,
    file: Option<PathBuf>,
    on_terminal: bool,
}

impl Lines {
    /// `history`: nowhere, in the user's own place for such things, or in a file. An empty name, as
    /// an empty environment variable gives it, is nowhere.
    fn open(history: Option<Option<&OsStr>>) -> Result<Self, Error> {
        let broken = |error: ReadlineError| Error::Output(io::Error::other(error));
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .map_err(broken)?
            .build();
        let history_lines = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history_lines).map_err(broken)?;
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
        Ok(Self {
            editor,
            file,
            on_terminal: io::IsTerminal::is_terminal(&io::stdin()),
        })
    }

    /// `None` at the end of input.
    fn next(&mut self, prompt: &str) -> Result<Option<String>, ReadlineError> {
        match self.editor.readline(prompt) {
            Ok(line) => {
                self.editor.add_history_entry(line.as_str())?;
                Ok(Some(line))
            }
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save(&mut self) -> Result<(), Error> {
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
