//! gemmactl: the command line, a client of the socket like any other.
//!
//! `args` is what can be typed, `client` what is asked of the daemon, through `http` or `over_bus`; `sse` and
//! `wire` read what comes back, `answer` brings an answer to the terminal, `text` owns what a
//! terminal may be shown, `table` and `map` lay out what the daemon says about itself, `error` has
//! the exit codes.

mod answer;
mod args;
mod ask;
mod cache;
mod chat;
mod client;
mod compose;
mod error;
mod form;
mod http;
mod interrupt;
mod manual;
mod map;
mod media;
mod memory;
mod over_bus;
mod plan;
mod show;
mod sse;
mod table;
mod text;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use args::{CacheArgs, CacheCommand, Cli, Command, ConfigCommand, MemoryArgs, MemoryCommand};
use client::Client;
use error::Error;
use http::Http;
use interrupt::Interrupts;
use over_bus::OverBus;
use text::Terminal;

/// Runs gemmactl with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done when the message cannot be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::USAGE));
        }
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
            command: ConfigCommand::Check { config },
        }) => show::config_check(config.as_deref(), terminal),
        Command::Completions { shell } => write_out(&manual::completions(shell)),
        Command::Man { directory: None } => write_out(&manual::main_page()?),
        Command::Man {
            directory: Some(directory),
        } => manual::write_pages(&directory),
        online => match cli.bus {
            None => talk(online, &Http::new(cli.socket), terminal),
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
        Command::Status { json } => {
            write_out(&runtime.block_on(show::status(client, json, terminal))?)
        }
        Command::Models { json } => {
            write_out(&runtime.block_on(show::models(client, json, terminal))?)
        }
        Command::Memory(MemoryArgs { json, command }) => write_out(&match command {
            None => runtime.block_on(memory::memory(client, json, terminal))?,
            Some(MemoryCommand::Plan(args)) => {
                runtime.block_on(plan::plan(client, &args, json, terminal))?
            }
        }),
        Command::Cache(CacheArgs {
            json,
            command: None,
        }) => write_out(&runtime.block_on(cache::list(client, json, terminal))?),
        Command::Cache(CacheArgs {
            json,
            command: Some(CacheCommand::Clear),
        }) => write_out(&runtime.block_on(cache::clear(client, json, terminal))?),
        Command::Load { model } => {
            write_out(&runtime.block_on(show::load(client, &model, terminal))?)
        }
        Command::Unload => write_out(&runtime.block_on(show::unload(client))?),
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
