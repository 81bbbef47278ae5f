//! `gemmactl chat`: a conversation. It lives in this process alone and is sent whole with every
//! turn.

use std::io;

use serde_json::Value;
use tokio::runtime::Runtime;

use super::answer::Question;
use super::args::{ChatArgs, ConversationArgs};
use super::blame::Origin;
use super::client::Client;
use super::completion;
use super::compose::{Composer, HELP, Slash, Step};
use super::error::Error;
use super::interrupt::Interrupts;
use super::lines::{Lines, Typed};
use super::media::{self, Attached, attach};
use super::settings::Settings;
use super::show::promptly;
use super::text::{Printer, Terminal};
use super::wire::{ask_for_progress, chat_body, message, message_with_media};
use crate::config;

pub fn run(
    args: &ChatArgs,
    client: &dyn Client,
    runtime: &Runtime,
    interrupts: &Interrupts,
    terminal: &Terminal,
) -> Result<(), Error> {
    let check = |model: &str| runtime.block_on(promptly(client.model(model))).map(drop);
    check(&args.conversation.model)?;
    let models = || {
        let installed = completion::installed(client, runtime);
        ["auto".into()].into_iter().chain(installed).collect()
    };
    let history = args.history.as_ref().map(Option::as_deref);
    let mut lines = Lines::open(history, &models, runtime, interrupts)?;
    let mut talk = Talk {
        settings: args.conversation.clone(),
        sampling: Settings::new(args.conversation.sampling.clone()),
        turns: vec![],
        shown: vec![],
    };
    let mut composer = Composer::default();
    if lines.on_terminal {
        let tab = if lines.edits() {
            ", Tab completes them"
        } else {
            ""
        };
        terminal.remark(&format!("/help names the commands{tab}, Ctrl-D leaves"));
    }
    let result = loop {
        let step = match lines.next(if composer.is_open() { "… " } else { "> " }) {
            Ok(Typed::Line(line)) => composer.line(&line),
            Ok(Typed::End) => break Ok(()),
            Ok(Typed::Cleared) => {
                composer.reset();
                continue;
            }
            Err(error) => break Err(error),
        };
        let done = match step {
            Step::More | Step::Nothing => Ok(()),
            Step::Wrong(text) => Err(Error::Usage(text)),
            Step::Do(Slash::Quit) => break Ok(()),
            Step::Do(command) => talk.obey(command, check).map(|said| terminal.remark(&said)),
            Step::Say(text) => runtime.block_on(talk.turn(&text, client, interrupts, terminal)),
        };
        match done {
            Ok(()) => {}
            Err(error @ (Error::Closed | Error::Output(_))) => break Err(error),
            // On a terminal the user can try again; a script's next line would miss this one.
            Err(error) if !lines.on_terminal => break Err(error),
            Err(error) => terminal.complain(&error.message().unwrap_or_default()),
        }
    };
    result.and(lines.save())
}

/// What was said, and the files that went with it.
struct Turn {
    message: Value,
    files: Vec<String>,
}

/// The conversation so far and how it goes on.
struct Talk {
    settings: ConversationArgs,
    sampling: Settings,
    turns: Vec<Turn>,
    /// Pictures, sounds and files that go with what is said next.
    shown: Vec<Attached>,
}

impl Talk {
    /// Does what a command says and returns what to tell. `check` says whether there is such a model.
    fn obey(
        &mut self,
        command: Slash,
        check: impl Fn(&str) -> Result<(), Error>,
    ) -> Result<String, Error> {
        let settings = &mut self.settings;
        Ok(match command {
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
            Slash::Image(path) | Slash::Audio(path) | Slash::File(path)
                if media::is_input(&path) =>
            {
                return Err(Error::Usage(
                    "standard input is what you type here: name a file".into(),
                ));
            }
            Slash::Image(path) => self.show(attach(&path, media::picture)?),
            Slash::Audio(path) => self.show(attach(&path, media::sound)?),
            Slash::File(path) => self.show(attach(&path, media::document)?),
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
            Slash::Set(name, _) if name.is_empty() => self.sampling.to_string(),
            Slash::Set(name, value) => self.sampling.set(&name, &value).map_err(Error::Usage)?,
            Slash::Verbose(verbose) => {
                settings.verbose = verbose;
                if verbose {
                    "rates are told after each answer"
                } else {
                    "rates are not told"
                }
                .into()
            }
            Slash::Model(None) => format!("the model is {}", settings.model),
            Slash::Model(Some(model)) => {
                check(&model)?;
                settings.model = model;
                format!("the model is {} from now on", settings.model)
            }
        })
    }

    /// Keeps a file for the next question, and says so.
    fn show(&mut self, attached: Attached) -> String {
        let name = config::one_line(&attached.name);
        let said = format!("{name} goes with what you say next");
        self.shown.push(attached);
        said
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
        let has_files = !shown.is_empty();
        let (files, parts) = shown.into_iter().map(|one| (one.name, one.part)).unzip();
        self.turns.push(Turn {
            message: message_with_media(parts, text),
            files,
        });
        let (mut body, origin) = self.request();
        if terminal.shows_waiting() {
            ask_for_progress(&mut body);
        }
        let mut printer = Printer::new(io::stdout(), io::stderr(), *terminal);
        let mut said = String::new();
        let question = Question {
            client,
            body: &body,
            thoughts: self.settings.show_thoughts,
            printer: &mut printer,
            said: &mut said,
        };
        let result = interrupts.stops(question.stream()).await;
        if said.is_empty() && !matches!(result, Some(Ok(_))) {
            self.turns.pop();
            if has_files {
                terminal.remark("(what you had added to the question is forgotten with it)");
            }
        } else {
            self.turns.push(Turn {
                message: message("assistant", &said),
                files: vec![],
            });
        }
        if !matches!(result, Some(Err(_))) || !said.is_empty() {
            printer.end().map_err(Error::from_output)?;
        }
        match result {
            None => terminal.remark("(stopped)"),
            Some(result) => result
                .map_err(|error| origin.explain(error))?
                .remark(self.settings.verbose, terminal),
        }
        Ok(())
    }

    /// The conversation so far as a request, and what that is made of.
    fn request(&self) -> (Value, Origin) {
        let settings = &self.settings;
        let system = settings.system.as_deref();
        let turns = self.turns.iter();
        let messages: Vec<_> = system
            .map(|text| message("system", text))
            .into_iter()
            .chain(turns.clone().map(|turn| turn.message.clone()))
            .collect();
        let files = system.map(|_| vec![]).into_iter();
        let origin = Origin {
            files: files.chain(turns.map(|turn| turn.files.clone())).collect(),
            ..Origin::default()
        };
        let sampling = self.sampling.sampling();
        let body = chat_body(
            &settings.model,
            &messages,
            sampling,
            settings.thinks(),
            true,
        );
        (body, origin)
    }
}
