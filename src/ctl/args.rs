//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::OsStringValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::error::exit_status_help;
use super::text::Colour;
use crate::config::BusChoice;

/// Ask the local Gemma daemon from the command line.
#[derive(Debug, Parser)]
#[command(name = "gemmactl", version, after_help = exit_status_help(), propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// The daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "GEMMAD_SOCKET",
        hide_env_values = true,
        default_value = "/run/gemmad/api.sock"
    )]
    pub socket: PathBuf,

    /// Ask over D-Bus instead of the socket: on the system bus, or on `session`, or on the bus at
    /// an address
    #[arg(long, global = true, value_name = "BUS", num_args = 0..=1, require_equals = true, default_missing_value = "system", value_parser = bus)]
    pub bus: Option<BusChoice>,

    /// When to use colours; `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
}

fn bus(name: &str) -> Result<BusChoice, String> {
    match name {
        "system" => Ok(BusChoice::System),
        "session" => Ok(BusChoice::Session),
        address if address.starts_with("unix:") => Ok(BusChoice::Address(address.into())),
        _ => Err("it must be `system`, `session` or an address like `unix:path=/run/dbus/system_bus_socket`".into()),
    }
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
    /// Show what the daemon is doing
    Status {
        /// Print the daemon's own JSON
        #[arg(long)]
        json: bool,
    },
    /// List the installed models
    Models {
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
    /// List the packed weights that are kept on the disk
    Cache(CacheArgs),
    /// Load a model now, instead of at the next request
    Load {
        /// The model's id, or `auto`
        model: String,
    },
    /// Unload the model; its memory is free when this returns
    Unload,
    /// Look at the daemon's configuration
    Config(ConfigArgs),
    /// Print completions for a shell
    ///
    /// For bash: gemmactl completions bash > ~/.local/share/bash-completion/completions/gemmactl
    Completions { shell: Shell },
    /// Print the manual page, or write all pages to a directory
    Man {
        /// Where to write gemmactl.1, gemmactl-ask.1 and so on
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// Print the daemon's own JSON; sizes are bytes
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Option<MemoryCommand>,
}

#[derive(Debug, Subcommand)]
pub enum MemoryCommand {
    /// Show what each model would take, before it is loaded or downloaded
    ///
    /// For every installed model and every variant of the family. TOTAL is what has to be in memory
    /// for the model to run at full speed; UNEVICTABLE is the part of it that the system cannot
    /// take back: the KV cache, buffers, tables. The bars show both, and what is over the memory
    /// that is free. Of experts a third is counted.
    Plan(PlanArgs),
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Only this model or variant; a part of the name is enough
    pub model: Option<String>,

    /// For a context of so many tokens, instead of several
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(256..=262_144))]
    pub ctx: Option<u32>,

    /// As if so much memory were free, like 4G or 1500M, instead of what is free now
    #[arg(long, value_name = "SIZE", value_parser = ram)]
    pub ram: Option<u64>,
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Print the daemon's own JSON; sizes are bytes
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Option<CacheCommand>,
}

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Remove them; they are packed anew when their model is loaded
    ///
    /// For administrators. A model that is loaded goes on; what it uses is free once it is
    /// unloaded.
    Clear,
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
    },
}

#[derive(Debug, Args)]
pub struct AskArgs {
    /// What to ask
    #[arg(value_name = "PROMPT")]
    pub prompt: Vec<String>,

    /// Show the model a picture, PNG, JPEG, WebP, GIF or BMP; `-` is standard input; an http(s)
    /// address is fetched by the daemon, if it may; may be given several times
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,

    /// Let the model hear a sound of 30 s at most, WAV, MP3, FLAC or Ogg (Vorbis, Opus); like
    /// --image
    #[arg(long, value_name = "FILE")]
    pub audio: Vec<PathBuf>,

    /// Let the model read a file: text of any kind, HTML or PDF; like --image
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,

    /// Hold the answer to the JSON Schema in FILE
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,

    /// Offer the model the functions in FILE, a JSON array as in the API's `tools`; calls are
    /// printed, not made
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,

    /// Print the whole response object of the API, when it is complete
    #[arg(long, conflicts_with = "show_thoughts")]
    pub json: bool,

    /// Give up after this time, like 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    #[command(flatten)]
    pub conversation: ConversationArgs,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Keep what you type in FILE; without FILE in $XDG_STATE_HOME/gemmad/history
    #[arg(long, value_name = "FILE", env = "GEMMAD_HISTORY", hide_env_values = true, value_parser = OsStringValueParser::new())]
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
    #[arg(long, value_name = "MODEL", default_value = "auto")]
    pub model: String,

    /// Let the model think before it answers
    #[arg(long)]
    pub think: bool,

    /// Let the model think, and print its thoughts to standard error
    #[arg(long)]
    pub show_thoughts: bool,

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
    #[arg(long, value_name = "NUMBER", value_parser = finite, allow_negative_numbers = true)]
    pub temperature: Option<f64>,

    /// Draw from this many likeliest tokens [daemon's default: 64]
    #[arg(long, value_name = "COUNT")]
    pub top_k: Option<u32>,

    /// Draw from the likeliest tokens that together have this probability [daemon's default: 0.95]
    #[arg(long, value_name = "NUMBER", value_parser = finite, allow_negative_numbers = true)]
    pub top_p: Option<f64>,

    /// Leave out tokens less likely than this share of the likeliest [daemon's default: 0]
    #[arg(long, value_name = "NUMBER", value_parser = finite, allow_negative_numbers = true)]
    pub min_p: Option<f64>,

    /// Makes the answer repeatable
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Tokens of the answer at most, thoughts included
    #[arg(long, value_name = "COUNT")]
    pub max_tokens: Option<u32>,

    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,

    /// Make what was said less likely, by this factor [daemon's default: 1.0]
    #[arg(long, value_name = "NUMBER", value_parser = finite, allow_negative_numbers = true)]
    pub repeat_penalty: Option<f64>,

    /// Make what was said less likely, more so the more often
    #[arg(long, value_name = "NUMBER", value_parser = finite, allow_negative_numbers = true)]
    pub frequency_penalty: Option<f64>,

    /// Make what was said less likely, however often
    #[arg(long, value_name = "NUMBER", value_parser = finite, allow_negative_numbers = true)]
    pub presence_penalty: Option<f64>,
}

/// JSON has no infinities; which numbers make sense is the daemon's to say.
fn finite(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| "not a number".into())
}

/// A size as memory is sold: `4G` and `4GiB` are the same.
fn ram(text: &str) -> Result<u64, String> {
    let long = text
        .strip_suffix(['G', 'M', 'K'])
        .map(|number| format!("{number}{}iB", &text[number.len()..]));
    let bytes =
        crate::config::parse_size(long.as_deref().unwrap_or(text)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "write a size like 4G, 1500M or 2GiB".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = crate::config::parse_duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "write a time like 500ms, 30s, 10m or 1h".into())
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
    fn numbers_and_times() {
        assert_eq!(finite("0.5"), Ok(0.5));
        assert_eq!(
            (ram("4G"), ram("512MiB"), ram("1000")),
            (Ok(4 << 30), Ok(512 << 20), Ok(1000))
        );
        assert!(ram("0").is_err() && ram("G").is_err() && ram("4 T").is_err());
        assert!(finite("nan").is_err() && finite("inf").is_err() && finite("x").is_err());
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0").is_err() && duration("soon").is_err());
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
