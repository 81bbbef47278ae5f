//! The daemon's command line: everything else is in gemmad.toml.

use std::path::PathBuf;

use super::Place;

/// Status 1 and others are no promise.
pub const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "A signal has ended it."),
    (69, "Another program serves on the socket."),
    (70, "A part of the daemon has failed."),
    (71, "The system refused what the daemon needs to start."),
    (78, "The configuration has mistakes."),
];

/// Serve the Gemma 4 family to the programs of this machine.
#[derive(clap::Parser, Debug)]
#[command(name = "gemmad", version, after_help = exit_status_help())]
pub struct Args {
    /// Read this file, and the drop-ins beside it, instead of /etc/gemmad/gemmad.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve one user: socket, models, cache and configuration in the user's own directories
    #[arg(long)]
    pub user: bool,
}

impl Args {
    /// Whose instance it is.
    pub fn place(&self) -> Result<Place, String> {
        if self.user {
            Place::of_user(|name| std::env::var_os(name))
        } else {
            Ok(Place::system())
        }
    }
}

fn exit_status_help() -> String {
    let lines = EXIT_STATUS
        .iter()
        .map(|(status, text)| format!("\n  {status:>3}  {text}"));
    format!("Exit status:{}", lines.collect::<String>())
}
