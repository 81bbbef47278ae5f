//! Manual pages: gemmactl(1) and gemmad(8) out of the same description as `--help`, gemmad.toml(5)
//! out of what the configuration's reader knows of its keys.

use std::fmt::Display;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::Cli;
use super::error::{EXIT_STATUS, Error};
use crate::config::{self, KeyReference, TableReference};
use crate::gateway;

/// What the environment can say, where the command line does not.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("GEMMAD_SOCKET", "The daemon's socket, as --socket."),
    (
        "XDG_RUNTIME_DIR",
        "Where a daemon of your own listens, at gemmad/api.sock there. It comes before the system's.",
    ),
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

/// The same of the daemon.
const DAEMON_ENVIRONMENT: &[(&str, &str)] = &[
    (
        "XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_CACHE_HOME, XDG_STATE_HOME, XDG_RUNTIME_DIR",
        "Where the files of --user are, in a directory gemmad of each.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "A file prompt-cache.key there, systemd's credential, takes the place of `prompt-cache-key`; tokens.key signs tokens \
            in the place of the key in `token-file`, and what tokens.old.key has signed is good as well.",
    ),
    (
        "LISTEN_FDS, NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM",
        "What systemd gives its services; see systemd.exec(5) and sd_notify(3).",
    ),
];

const DAEMON: &str = "gemmad serves models of the Gemma 4 family to the programs of this machine, over HTTP \
    on a Unix socket and over D-Bus. It loads a model with the first request, in a process of its own \
    (gemmad-worker), and frees the memory when it is idle. Usually systemd starts it with the first \
    program that connects. For everything but the options below see gemmad.toml(5).";

const GATEWAY: &str = "gemmad-gateway listens for TCP, speaks TLS, HTTP/1.1 and HTTP/2, and passes requests \
    to gemmad(8) on its socket, which answers those that have a token of gemmactl-token(1). It is off until \
    gemmad-gateway.socket is enabled. Everything but the options below is in gateway.toml, and described there.";

const GATEWAY_FILES: &[(&str, &str)] = &[
    (
        "/etc/gemmad/gateway.toml",
        "The configuration. It need not be there; the sample is with the documentation.",
    ),
    (
        "/etc/gemmad/tls",
        "Where --self-signed puts certificate and key.",
    ),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "No more requests are taken; answers that are under way may end within shutdown-grace.",
    ),
    (
        "SIGHUP",
        "The configuration is read again. One with mistakes changes nothing.",
    ),
];

const DAEMON_FILES: &[(&str, &str)] = &[
    (
        "/etc/gemmad/gemmad.toml, /etc/gemmad/gemmad.toml.d/*.toml",
        "The configuration; see gemmad.toml(5).",
    ),
    ("/run/gemmad/api.sock", "The socket for HTTP."),
    ("/var/lib/gemmad/models", "Models, as GGUF files."),
    ("/var/cache/gemmad", "Weights that were packed for the CPU."),
];

const SETTINGS: &str = "gemmad(8) reads the first of these files, then the others in the order of \
    their names; the last one that sets a key wins. All of them are optional: a key that none sets has \
    the value that is given below.";

const SETTINGS_FILES: &[(&str, &str)] = &[
    ("/etc/gemmad/gemmad.toml", "Read first."),
    (
        "/etc/gemmad/gemmad.toml.d/*.toml",
        "Read after it, in the order of their names.",
    ),
    (
        "~/.config/gemmad/gemmad.toml, ~/.config/gemmad/gemmad.toml.d/*.toml",
        "The same for gemmad --user.",
    ),
];

/// gemmactl(1).
pub fn main_page() -> Result<Vec<u8>, Error> {
    page(&described()).map_err(Error::Output)
}

/// The command line, without `help`, which needs no pages: each command has its own.
fn described() -> Command {
    fn without_help(command: Command) -> Command {
        let names: Vec<_> = command
            .get_subcommands()
            .map(|below| below.get_name().to_owned())
            .collect();
        names
            .into_iter()
            .fold(command.disable_help_subcommand(true), |command, name| {
                command.mut_subcommand(name, without_help)
            })
    }
    let mut command = without_help(Cli::command());
    command.build();
    command
}

/// Writes gemmactl.1, one page for each command, gemmad.8, gemmad-gateway.8 and gemmad.toml.5 into `directory`, which
/// is made if it is missing.
pub fn write_pages(directory: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(|cause| Error::File {
        path: directory.into(),
        cause,
    })?;
    write_tree(&described(), directory)?;
    write(directory, "gemmad.8", daemon_page())?;
    write(directory, "gemmad-gateway.8", gateway_page())?;
    write(directory, "gemmad.toml.5", Ok(settings_page()))
}

fn write(directory: &Path, name: &str, page: io::Result<Vec<u8>>) -> Result<(), Error> {
    let path = directory.join(name);
    page.and_then(|page| std::fs::write(&path, page))
        .map_err(|cause| Error::File { path, cause })
}

fn write_tree(command: &Command, directory: &Path) -> Result<(), Error> {
    let name = Man::new(command.clone()).get_filename();
    write(directory, &name, page(command))?;
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

/// gemmad(8).
fn daemon_page() -> io::Result<Vec<u8>> {
    let mut page = vec![];
    let command = config::Args::command()
        .long_about(DAEMON)
        .after_help(None::<&str>);
    Man::new(command)
        .section("8")
        .manual("gemmad")
        .render(&mut page)?;
    section(&mut page, "SIGNALS", SIGNALS);
    section(&mut page, "FILES", DAEMON_FILES);
    section(&mut page, "ENVIRONMENT", DAEMON_ENVIRONMENT);
    section(&mut page, "EXIT STATUS", config::EXIT_STATUS);
    see_also(&mut page, "gemmactl(1), gemmad.toml(5), systemd(1)");
    Ok(page)
}

/// gemmad-gateway(8).
fn gateway_page() -> io::Result<Vec<u8>> {
    let mut page = vec![];
    Man::new(gateway::Args::command().long_about(GATEWAY))
        .section("8")
        .manual("gemmad")
        .render(&mut page)?;
    section(&mut page, "FILES", GATEWAY_FILES);
    see_also(&mut page, "gemmad(8), gemmactl-token(1), systemd(1)");
    Ok(page)
}

/// gemmad.toml(5).
fn settings_page() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH gemmad.toml 5 \"\" \"gemmad {version}\" gemmad\n\
         .SH NAME\ngemmad.toml \\- configuration of gemmad\n\
         .SH SYNOPSIS\n/etc/gemmad/gemmad.toml\n.br\n/etc/gemmad/gemmad.toml.d/*.toml\n\
         .SH DESCRIPTION\n"
    )
    .into_bytes();
    page.extend(format!("{}\n", roff(SETTINGS)).bytes());
    for paragraph in config::introduction() {
        page.extend(format!(".PP\n{}\n", roff(&paragraph)).bytes());
    }
    for TableReference {
        name,
        is_list,
        keys,
    } in config::reference()
    {
        let (open, close) = if is_list { ("[[", "]]") } else { ("[", "]") };
        page.extend(format!(".SH \"{open}{}{close}\"\n", roff(name)).bytes());
        for KeyReference {
            name,
            default,
            text,
            allowed,
        } in keys
        {
            let (name, default) = (roff(name), roff(default));
            let (text, allowed) = (roff(&text), roff(&allowed));
            page.extend(
                format!(".TP\n\\fB{name}\\fR = {default}\n{text}\n.sp\nAllowed: {allowed}.\n")
                    .bytes(),
            );
        }
    }
    section(&mut page, "FILES", SETTINGS_FILES);
    see_also(&mut page, "gemmad(8), gemmactl(1)");
    page
}

fn see_also(page: &mut Vec<u8>, pages: &str) {
    page.extend(format!(".SH \"SEE ALSO\"\n{}\n", roff(pages)).bytes());
}

fn section<T: Display>(page: &mut Vec<u8>, name: &str, entries: &[(T, &str)]) {
    page.extend(format!(".SH \"{name}\"\n").bytes());
    for (term, text) in entries {
        let (term, text) = (roff(&term.to_string()), roff(text));
        page.extend(format!(".TP\n\\fB{term}\\fR\n{text}\n").bytes());
    }
}

/// A line of text as roff(7) wants it: a point or an apostrophe at its start would make it a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // groff itself reads ASCII, whatever the locale of who calls it.
    let text: String = text
        .chars()
        .map(|c| match c.is_ascii() {
            true => c.to_string(),
            false => format!("\\[u{:04X}]", u32::from(c)),
        })
        .collect();
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(page: Vec<u8>) -> String {
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn every_key_is_in_the_page_of_the_configuration() {
        let page = text(settings_page());
        for TableReference {
            name,
            is_list,
            keys,
        } in config::reference()
        {
            let head = if is_list {
                format!("[[{name}]]")
            } else {
                format!("[{name}]")
            };
            let (_, table) = page.split_once(&format!("\n.SH \"{head}\"\n")).unwrap();
            let (table, _) = table.split_once("\n.SH ").unwrap();
            for key in keys {
                let entry = format!("\\fB{}\\fR = {}\n", roff(key.name), roff(key.default));
                assert!(table.contains(&entry), "{entry}");
                assert!(table.contains(&roff(&key.text)), "{}", key.name);
                assert!(table.contains(&roff(&key.allowed)), "{}", key.name);
            }
        }
    }

    #[test]
    fn the_page_of_the_daemon_has_its_options_and_exit_codes() {
        let page = text(daemon_page().unwrap());
        assert!(page.contains(".TH gemmad 8"), "{page}");
        for option in config::Args::command().get_arguments() {
            let option = roff(&format!("--{}", option.get_id()));
            assert!(page.contains(&option), "{option}");
        }
        for (status, text) in config::EXIT_STATUS {
            assert!(
                page.contains(&format!("\\fB{status}\\fR\n{text}")),
                "{status}"
            );
        }
        for section in ["SIGNALS", "FILES", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"] {
            assert!(page.contains(&format!(".SH \"{section}\"")), "{section}");
        }
    }

    #[test]
    fn text_makes_no_requests() {
        assert_eq!(roff(".TP - \\"), "\\&.TP \\- \\e");
        assert_eq!(roff("'x"), "\\&'x");
        assert_eq!(roff("2 × 3"), "2 \\[u00D7] 3");
    }

    #[test]
    fn pages_are_ascii() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path()).unwrap();
        for page in std::fs::read_dir(folder.path()).unwrap() {
            let page = page.unwrap().path();
            assert!(std::fs::read(&page).unwrap().is_ascii(), "{page:?}");
        }
    }
}
