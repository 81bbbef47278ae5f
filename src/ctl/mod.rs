//! gemmactl: the command line, a client of the socket like any other.
//!
//! `args` is what can be typed, `client` what is asked of the daemon, through `http` or `over_bus`; `sse` and
//! `wire` read what comes back, `answer` brings an answer to the terminal, `text` owns what a
//! terminal may be shown, `table` and `map` lay out what the daemon says about itself, `error` has
//! the exit codes, and `blame` says in whose words a refusal is told. `values` reads the values of options,
//! `mistakes` tells what cannot be read. `socket` finds the daemon, `completion` answers shells, `bench` measures the
//! machine. Of a chat, `lines` has what is typed, `tab` completes it, `compose` takes it apart, `settings` is `/set`.

mod answer;
mod args;
mod ask;
mod bar;
mod bench;
mod blame;
mod cache;
mod catalog;
mod chat;
mod client;
mod completion;
mod compose;
mod config_check;
mod confirm;
mod devices;
mod error;
mod foreign;
mod form;
mod http;
mod import;
mod input;
mod interrupt;
mod keep;
mod lines;
mod manual;
mod map;
mod media;
mod memory;
mod mistakes;
mod over_bus;
mod plan;
mod pull;
mod settings;
mod show;
mod show_model;
mod socket;
mod sse;
mod tab;
mod table;
mod text;
mod token;
mod transcribe;
mod upload;
mod usage;
mod values;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use args::{
    CacheArgs, CacheCommand, Cli, Command, ConfigCommand, Meant, MemoryArgs, MemoryCommand,
    TokenArgs, TokenCommand,
};
use client::Client;
use error::Error;
use http::Http;
use interrupt::Interrupts;
use over_bus::OverBus;
use text::Terminal;

/// Runs gemmactl with the process's arguments.
pub fn main() -> ExitCode {
    completion::answer_shell();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(mistakes::tell(error, std::env::args_os())),
    };
    let terminal = Terminal::detect(cli.color);
    match run(cli, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = error.message() {
                terminal.complain(&message);
            }
            ExitCode::from(error.code())
        }
    }
}

fn run(cli: Cli, terminal: &Terminal) -> Result<(), Error> {
    match cli.command {
        Command::Config(args::ConfigArgs {
            command: ConfigCommand::Check { config, user },
        }) => config_check::check(config.as_deref(), user, terminal),
        Command::Completions { shell } => write_out(&completion::script(shell)?),
        Command::Man { directory: None } => write_out(&manual::main_page()?),
        Command::Man {
            directory: Some(directory),
        } => manual::write_pages(&directory),
        Command::Token(TokenArgs {
            command: TokenCommand::Helper(args),
        }) if cli.bus.is_none() => {
            let sockets = socket::candidates(cli.socket);
            let daemon = Http::new(sockets.clone());
            let printed = token::helper::run(&daemon, &args, &sockets, terminal);
            write_out(&runtime()?.block_on(printed)?)
        }
        online => match cli.bus {
            None => talk(online, &Http::new(socket::candidates(cli.socket)), terminal),
            Some(bus) => talk(online, &OverBus::new(bus), terminal),
        },
    }
}

/// Everything that needs the daemon.
fn talk(command: Command, client: &dyn Client, terminal: &Terminal) -> Result<(), Error> {
    let runtime = runtime()?;
    let interrupts = Interrupts::install(terminal)?;
    match command {
        Command::Ask(args) => ask::run(&args, client, &runtime, terminal),
        Command::Chat(args) => chat::run(&args, client, &runtime, &interrupts, terminal),
        Command::Run(args) => match args.meant() {
            Meant::Ask(args) => ask::run(&args, client, &runtime, terminal),
            Meant::Chat(args) => chat::run(&args, client, &runtime, &interrupts, terminal),
        },
        Command::Transcribe(args) => transcribe::run(&args, client, &runtime, terminal),
        Command::Status { json } => {
            write_out(&runtime.block_on(show::status(client, json, terminal))?)
        }
        Command::Models { all, json } => write_out(&match all {
            false => runtime.block_on(show::models(client, json, terminal))?,
            true => runtime.block_on(catalog::list(client, json, terminal))?,
        }),
        Command::Show { model, json } => {
            write_out(&runtime.block_on(show_model::model(client, &model, json, terminal))?)
        }
        Command::Memory(MemoryArgs { json, command }) => write_out(&match command {
            None => runtime.block_on(memory::memory(client, json, terminal))?,
            Some(MemoryCommand::Plan(args)) => {
                runtime.block_on(plan::plan(client, &args, json, terminal))?
            }
        }),
        Command::Devices { json } => {
            write_out(&runtime.block_on(devices::list(client, json, terminal))?)
        }
        Command::Cache(CacheArgs {
            json,
            command: None,
        }) => write_out(&runtime.block_on(cache::list(client, json, terminal))?),
        Command::Cache(CacheArgs {
            json,
            command: Some(CacheCommand::Clear { prompts, all }),
        }) => write_out(&match prompts {
            false => runtime.block_on(cache::clear(client, json, terminal))?,
            true => runtime.block_on(cache::forget(client, all, json, terminal))?,
        }),
        Command::Pull(args) => pull::run(&args, client, &runtime, &interrupts, terminal),
        Command::Load { model } => {
            write_out(&runtime.block_on(show::load(client, &model, terminal))?)
        }
        Command::Unload { model } => {
            write_out(&runtime.block_on(show::unload(client, model.as_deref(), terminal))?)
        }
        Command::Import(args) => {
            write_out(&runtime.block_on(import::run(client, &args, terminal))?)
        }
        Command::Rm(args) => runtime.block_on(keep::rm(client, &args.models, terminal)),
        Command::Verify(args) => {
            let model = args.model.as_deref();
            write_out(&runtime.block_on(keep::verify(client, model, args.json, terminal))?)
        }
        Command::Prune(args) => write_out(&runtime.block_on(keep::prune(client, &args, terminal))?),
        Command::Usage(args) => {
            write_out(&runtime.block_on(usage::run(client, args.json, terminal))?)
        }
        Command::Bench(args) => write_out(&runtime.block_on(bench::run(client, &args, terminal))?),
        Command::Token(args) => {
            write_out(&runtime.block_on(token::run(client, &args.command, terminal))?)
        }
        Command::Du { json } => write_out(&runtime.block_on(keep::du(client, json, terminal))?),
        Command::Config(_) | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Output)
}

fn write_out(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Error::from_output)
}
