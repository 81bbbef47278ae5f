//! What can be typed.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser as NotEmpty, OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use clap_complete::{ArgValueCandidates, Shell};
use serde_json::Number;

mod bench;
mod keep;
mod memory;
mod pull;
mod token;
mod transcribe;

pub use bench::BenchArgs;
pub use keep::{Foreign, ImportArgs, PruneArgs, RmArgs, VerifyArgs};
pub use memory::{CacheArgs, CacheCommand, MemoryArgs, MemoryCommand, PlanArgs};
pub use pull::PullArgs;
pub use token::{HelperArgs, IssueArgs, RevokeArgs, TokenArgs, TokenCommand, UsageArgs};
pub use transcribe::{TranscribeArgs, Transcript};

use super::completion::model_names;
use super::error::exit_status_help;
use super::text::Colour;
use super::values;
use crate::chat::{PENALTIES, PROBABILITIES, REPEAT_PENALTIES, TEMPERATURES};
use crate::config::BusChoice;

/// Ask the local Gemma daemon from the command line.
#[derive(Debug, Parser)]
#[command(name = "gemmactl", version, after_help = exit_status_help(), disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// The daemon's socket [default: $XDG_RUNTIME_DIR/gemmad/api.sock if you have a daemon of your
    /// own, else /run/gemmad/api.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "GEMMAD_SOCKET",
        hide_env_values = true,
        // An empty variable is as good as none.
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        value_hint = ValueHint::FilePath
    )]
    pub socket: Option<PathBuf>,

    /// Ask over D-Bus instead of the socket: on the system bus, or on `session`, or on the bus at
    /// an address
    #[arg(long, global = true, value_name = "BUS", num_args = 0..=1, require_equals = true, default_missing_value = "system", value_parser = values::bus)]
    pub bus: Option<BusChoice>,

    /// When to use colours; `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,

    /// Print version
    #[arg(short = 'V', visible_short_alias = 'v', long, action = ArgAction::Version)]
    version: (),
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask one thing and print the answer as it comes
    ///
    /// The words are joined by blanks. Without words, or with `-`, the prompt is read from standard
    /// input. When there are words and standard input is a pipe or a file, what it holds follows
    /// the words after an empty line:
    ///
    /// gemmactl ask "What is wrong here?" < build.log
    ///
    /// In a loop that reads from standard input, give gemmactl its own: `< /dev/null`.
    ///
    /// Pictures and sounds come before the prompt; whether the model can see and hear depends on
    /// the model.
    ///
    /// With --tools the answer may be calls: a line each, the function's name and its arguments as
    /// a JSON object.
    Ask(AskArgs),
    /// Talk: the model remembers the conversation until you leave
    ///
    /// End a line with \ to go on in the next one, or write several lines between lines of """.
    /// Ctrl-C stops the answer or clears the line, Ctrl-D leaves. /help names the commands. Nothing
    /// you type is kept on disk, unless --history says so.
    Chat(ChatArgs),
    /// Write down what is said in a sound of up to an hour
    ///
    /// Long sounds are cut at their pauses and heard piece by piece. Subtitles and times are those of the pieces, which
    /// have 10 s at most then.
    Transcribe(TranscribeArgs),
    /// Chat with a model, or ask it one thing: `chat --model MODEL`, or `ask --model MODEL PROMPT`
    #[command(hide = true)]
    Run(RunArgs),
    /// Show what the daemon is doing; also `ps`
    #[command(alias = "ps")]
    Status {
        /// Print the daemon's own JSON
        #[arg(long)]
        json: bool,
    },
    /// List the installed models; also `ls`
    #[command(aliases = ["ls", "list"])]
    Models {
        /// What could be had instead: what each published file takes on the disk and in memory here
        #[arg(long)]
        all: bool,

        /// Print the daemon's own JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one model: its file, its context, what it can see and hear
    Show {
        /// The model's id, a variant like `e2b`, or `auto`
        #[arg(default_value = "auto", value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
        model: String,

        /// Print the daemon's own JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is in memory
    ///
    /// Draws each file of the loaded model as a map, from its first byte to its last, then says
    /// what the bytes are for and how many of them are in memory:
    ///
    /// layers: weights that every token needs. head: the token embedding, which is the output head
    /// too. experts: weights of which each token needs a few. per-layer: the table of Per-Layer
    /// Embeddings, a row for each token. source: weights that are used in a form that was packed
    /// for the CPU, so these bytes are not needed again. header: metadata and vocabulary, read
    /// once.
    Memory(MemoryArgs),
    /// Show what there is to compute on beside the CPU, and why it is not used
    ///
    /// The daemon starts a process for each installed backend, which loads its driver and asks it.
    /// MODELS says which variants of Gemma 4 could run there.
    Devices {
        /// Print the daemon's own JSON; sizes are bytes
        #[arg(long)]
        json: bool,
    },
    /// List the packed weights that are kept on the disk
    Cache(CacheArgs),
    /// Fetch a model: from the hub, by a name of the catalog, or from an address
    ///
    /// Shows what would come, how large it is, and what room there is, and asks. The daemon fetches it, and goes on when this
    /// ends: after a break, a restart or a reboot it goes on where it was. What has come is checked against its hash before
    /// it can be used. For administrators.
    Pull(PullArgs),
    /// Load a model now, instead of at the next request
    Load {
        /// The model's id, a variant like `e2b`, or `auto`
        #[arg(value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
        model: String,
    },
    /// Unload the model; its memory is free when this returns; also `stop`
    #[command(alias = "stop")]
    Unload {
        /// Only if it is this one that is loaded
        #[arg(value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
        model: Option<String>,
    },
    /// Make models of files that are there already
    ///
    /// Each file is checked first: a Gemma 4 model, a projector or a drafter. Who may write the model directory gets a file
    /// that shares its bytes with the source, where the file system can, or a copy; everyone else sends it to the daemon,
    /// which lets administrators.
    Import(ImportArgs),
    /// Remove installed models, with what belongs to them alone; for administrators
    Rm(RmArgs),
    /// Read files again and say whether they are what they were, or what was published; for administrators
    Verify(VerifyArgs),
    /// Delete what serves no installed model: packed weights of models that are gone, and what is kept of downloads that
    /// failed; shows it and asks; for administrators
    Prune(PruneArgs),
    /// Show what models, packed weights and prompts take on the disk
    Du {
        /// Print it as JSON; sizes are bytes
        #[arg(long)]
        json: bool,
    },
    /// Measure this machine with a model: to compare it, and to send in what it can do
    ///
    /// Starts the model twice, has it read prompts of 512 tokens and write answers of 128, several times, and shows the
    /// medians. Nothing comes from the cache of prompts and nothing is guessed ahead, so the work is the same everywhere. It
    /// is refused while others use the daemon. Only administrators may unload a model, so others see no starts.
    Bench(BenchArgs),
    /// Give programs a part of your rights for some hours
    Token(TokenArgs),
    /// Show how many requests and tokens were used each day: your own, for administrators everybody's
    Usage(UsageArgs),
    /// Look at the daemon's configuration
    Config(ConfigArgs),
    /// Print completions for a shell
    ///
    /// The script asks gemmactl, which asks the daemon for the names of models. `make install` puts
    /// those for bash, zsh and fish where they are found. By hand, for bash:
    /// gemmactl completions bash > ~/.local/share/bash-completion/completions/gemmactl
    Completions { shell: Shell },
    /// Print the manual page, or write all pages to a directory
    Man {
        /// Where to write gemmactl.1, gemmactl-ask.1 and so on
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration as the daemon would, and name every mistake
    Check {
        /// This file and FILE.d/*.toml, instead of /etc/gemmad/gemmad.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,

        /// The configuration of a daemon of your own, as `gemmad --user` reads it
        #[arg(long)]
        user: bool,
    },
}

#[derive(Debug, Args)]
pub struct AskArgs {
    /// What to ask
    #[arg(value_name = "PROMPT")]
    pub prompt: Vec<String>,

    /// Show the model a picture, PNG, JPEG, WebP, GIF, BMP or TIFF; `-` is standard input; an http(s)
    /// address is fetched by the daemon, if it may; may be given several times
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,

    /// Let the model hear a sound, WAV, AIFF, CAF, MP3, FLAC, Ogg, M4A, MP4 or WebM; like --image
    #[arg(long, value_name = "FILE")]
    pub audio: Vec<PathBuf>,

    /// Let the model read a file: text of any kind, HTML, PDF, an office document (docx, xlsx, pptx,
    /// odt, ods, odp, rtf), a book (epub), a mail (eml), a notebook (ipynb) or a table (csv); like
    /// --image
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,

    /// Hold the answer to the JSON Schema in FILE
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,

    /// Offer the model the functions in FILE, a JSON array as in the API's `tools`; calls are
    /// printed, not made
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,

    /// Print what the model would be given, and ask it nothing: of files which pages are read, shown
    /// as pictures or left out and why, then the whole prompt; the words may be left out
    #[arg(long)]
    pub show_input: bool,

    /// Print the whole response object of the API, when it is complete
    #[arg(long, conflicts_with = "show_thoughts")]
    pub json: bool,

    /// Give up after this time, like 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,

    /// Print the answer as it is, without a newline behind it
    #[arg(long, short = 'n', conflicts_with = "json")]
    pub no_newline: bool,

    #[command(flatten)]
    pub conversation: ConversationArgs,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The model's id, a variant like `e2b`, or `auto`
    #[arg(value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub model: String,

    /// What to ask; without it, a conversation
    pub prompt: Vec<String>,

    /// Let the model think before it answers
    #[arg(long)]
    pub think: bool,

    /// Print how fast it was, to standard error
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Keep what you type in FILE; without FILE in $XDG_STATE_HOME/gemmad/history
    #[arg(long, value_name = "FILE", env = "GEMMAD_HISTORY", hide_env_values = true, value_parser = OsStringValueParser::new(), value_hint = ValueHint::FilePath)]
    pub history: Option<Option<OsString>>,

    #[command(flatten)]
    pub conversation: ConversationArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ConversationArgs {
    /// Instructions that come before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,

    /// The model's id (see `gemmactl models`)
    #[arg(long, value_name = "MODEL", default_value = "auto", value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub model: String,

    /// Let the model think before it answers
    #[arg(long)]
    pub think: bool,

    /// Let the model think, and print its thoughts to standard error
    #[arg(long)]
    pub show_thoughts: bool,

    /// Print how many tokens were read and written, and how fast, to standard error
    #[arg(long, short)]
    pub verbose: bool,

    #[command(flatten)]
    pub sampling: Sampling,
}

impl ConversationArgs {
    pub fn thinks(&self) -> bool {
        self.think || self.show_thoughts
    }
}

/// What is not given is left to the daemon, whose defaults are those published for Gemma 4.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// How freely words are drawn; 0 always takes the likeliest [daemon's default: 1.0]
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| values::number(text, TEMPERATURES), allow_hyphen_values = true)]
    pub temperature: Option<f64>,

    /// Draw from this many likeliest tokens [daemon's default: 64]
    #[arg(long, value_name = "COUNT", value_parser = values::top_k, allow_hyphen_values = true)]
    pub top_k: Option<i64>,

    /// Draw from the likeliest tokens that together have this probability [daemon's default: 0.95]
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| values::number(text, PROBABILITIES), allow_hyphen_values = true)]
    pub top_p: Option<f64>,

    /// Leave out tokens less likely than this share of the likeliest [daemon's default: 0]
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| values::number(text, PROBABILITIES), allow_hyphen_values = true)]
    pub min_p: Option<f64>,

    /// Makes the answer repeatable; -1 is another seed each time, as without it
    #[arg(long, value_name = "NUMBER", value_parser = values::seed, allow_hyphen_values = true)]
    pub seed: Option<Number>,

    /// Tokens of the answer at most, thoughts included, like 500 or 4k; -1 is no limit, as without it
    #[arg(long, value_name = "COUNT", value_parser = values::max_tokens, allow_hyphen_values = true)]
    pub max_tokens: Option<i64>,

    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = values::stop, allow_hyphen_values = true)]
    pub stop: Vec<String>,

    /// Make what was said less likely, by this factor [daemon's default: 1.0]
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| values::number(text, REPEAT_PENALTIES), allow_hyphen_values = true)]
    pub repeat_penalty: Option<f64>,

    /// Make what was said less likely, more so the more often
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| values::number(text, PENALTIES), allow_hyphen_values = true)]
    pub frequency_penalty: Option<f64>,

    /// Make what was said less likely, however often
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| values::number(text, PENALTIES), allow_hyphen_values = true)]
    pub presence_penalty: Option<f64>,

    /// Whether several tokens are tried in a step, which changes the speed and no answer
    #[arg(long, value_name = "WHEN", value_parser = ["auto", "on", "off"])]
    pub speculation: Option<String>,
}

/// What `run` stands for.
pub enum Meant {
    Ask(Box<AskArgs>),
    Chat(Box<ChatArgs>),
}

impl RunArgs {
    /// A conversation, unless there is something to ask: words, or input that no one types.
    pub fn meant(self) -> Meant {
        let is_question = !self.prompt.is_empty() || !std::io::stdin().is_terminal();
        let (name, options) = match is_question {
            true => ("ask", self.prompt),
            false => ("chat", vec![]),
        };
        let words = ["gemmactl", name, "--model", &self.model].map(String::from);
        let flags = [(self.verbose, "--verbose"), (self.think, "--think")];
        let flags = flags.into_iter().filter(|(is_given, _)| *is_given);
        let flags = flags.map(|(_, flag)| flag.into());
        let line = words.into_iter().chain(flags).chain(["--".into()]);
        match Cli::parse_from(line.chain(options)).command {
            Command::Ask(args) => Meant::Ask(Box::new(args)),
            Command::Chat(args) => Meant::Chat(Box::new(args)),
            _ => unreachable!("the line is one of these two"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn history_is_off_unless_asked_for() {
        let history = |line: &[&str]| match Cli::try_parse_from(line).unwrap().command {
            Command::Chat(chat) => chat.history,
            _ => None,
        };
        assert_eq!(history(&["gemmactl", "chat"]), None);
        assert_eq!(history(&["gemmactl", "chat", "--history"]), Some(None));
        assert_eq!(
            history(&["gemmactl", "chat", "--history", "h"]),
            Some(Some("h".into()))
        );
    }
}
