//! Completions and manual pages, out of the same description as `--help`.

use std::fmt::Display;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Cli;
use super::error::{EXIT_STATUS, Error};

/// What the environment can say, where the command line does not.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("GEMMAD_SOCKET", "The daemon's socket, as --socket."),
    (
        "GEMMAD_HISTORY",
        "Where chat keeps what you type, as --history. Nowhere when it is empty or not set.",
    ),
    (
        "XDG_STATE_HOME",
        "Where --history without a file keeps it: in gemmad/history there, or in ~/.local/state.",
    ),
    ("NO_COLOR", "No colours, unless --color says so."),
];

pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "gemmactl", &mut script);
    script
}

/// gemmactl(1).
pub fn main_page() -> Result<Vec<u8>, Error> {
    let mut command = Cli::command();
    command.build();
    page(&command).map_err(Error::Output)
}

/// Writes gemmactl.1 and one page for each command into `directory`, which is made if it is
/// missing.
pub fn write_pages(directory: &Path) -> Result<(), Error> {
    let mut command = Cli::command();
    command.build();
    std::fs::create_dir_all(directory).map_err(|cause| Error::File {
        path: directory.into(),
        cause,
    })?;
    write_tree(&command, directory)
}

fn write_tree(command: &Command, directory: &Path) -> Result<(), Error> {
    let path = directory.join(Man::new(command.clone()).get_filename());
    page(command)
        .and_then(|page| std::fs::write(&path, page))
        .map_err(|cause| Error::File { path, cause })?;
    command
        .get_subcommands()
        .try_for_each(|command| write_tree(command, directory))
}

/// A page, with environment and exit status as sections of their own, where manual pages have them.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = vec![];
    Man::new(command.clone().after_help(None::<&str>))
        .manual("gemmad")
        .render(&mut page)?;
    section(&mut page, "ENVIRONMENT", ENVIRONMENT);
    section(&mut page, "EXIT STATUS", EXIT_STATUS);
    Ok(page)
}

fn section<T: Display>(page: &mut Vec<u8>, name: &str, entries: &[(T, &str)]) {
    page.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
    for (term, text) in entries {
        page.extend_from_slice(
            format!(".TP\n\\fB{term}\\fR\n{}\n", text.replace('-', "\\-")).as_bytes(),
        );
    }
}
