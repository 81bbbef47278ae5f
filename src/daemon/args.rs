//! The daemon's command line: everything else is in gemmad.toml.

use std::path::PathBuf;

use crate::config::Place;

/// Serve the Gemma 4 family to the programs of this machine.
#[derive(clap::Parser, Debug)]
#[command(
    name = "gemmad",
    version,
    after_help = "Exit codes: 0 ended by a signal, 69 the socket is in use, 71 the system refused, 78 the configuration is wrong."
)]
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
