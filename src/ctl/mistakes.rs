//! Mistakes on the command line, as they are told: what was mistyped is shown in one line, and what was
//! probably meant is named.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use super::args::Cli;
use crate::config;

/// Contexts of an error that hold what was typed.
const TYPED: [ContextKind; 4] = [
    ContextKind::InvalidArg,
    ContextKind::InvalidSubcommand,
    ContextKind::InvalidValue,
    ContextKind::PriorArg,
];

/// Prints what is wrong with these arguments, or the help that they ask for. Returns the exit code.
pub fn tell(mut error: clap::Error, arguments: impl Iterator<Item = OsString>) -> u8 {
    let mut command = meant(arguments);
    if error.kind() == ErrorKind::MissingSubcommand {
        eprint!("{}", command.render_help());
        return super::error::USAGE;
    }
    escape(&mut error);
    suggest(&mut error, &command);
    // Nothing can be done when the message cannot be written.
    let _ = error.print();
    if let Some(hint) = elsewhere(&error) {
        eprintln!("\n{hint}");
    }
    u8::try_from(error.exit_code()).unwrap_or(super::error::USAGE)
}

/// What was typed may hold anything that a terminal understands.
fn escape(error: &mut clap::Error) {
    let mut is_changed = false;
    for kind in TYPED {
        let Some(ContextValue::String(typed)) = error.get(kind) else {
            continue;
        };
        let line = config::one_line(typed).into_owned();
        is_changed |= line != *typed;
        error.insert(kind, ContextValue::String(line));
    }
    if is_changed {
        // It repeats what was typed.
        error.remove(ContextKind::Suggested);
    }
}

/// The command that was named, as far as there is one.
fn meant(arguments: impl Iterator<Item = OsString>) -> Command {
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for argument in arguments {
        command = command.find_subcommand(argument).unwrap_or(command);
    }
    command.clone()
}

/// clap's own measure of likeness finds no `ask` in `aks`: the words are too short for it.
fn suggest(error: &mut clap::Error, command: &Command) {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return;
    }
    let names = command.get_subcommands().map(Command::get_name);
    if let Some(meant) = config::closest(name, names) {
        let meant = ContextValue::Strings(vec![meant.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, meant);
    }
}

/// What to say to those who type a command of another program that does something else here.
fn elsewhere(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    Some(match name.as_str() {
        "serve" | "start" => {
            "the daemon is a service of its own: `systemctl start gemmad`, or `gemmad` by hand"
        }
        "pull" | "rm" | "create" | "cp" | "push" => {
            "models are GGUF files in the daemon's model directories, by default /var/lib/gemmad/models: it notices what is \
             put there or taken away; `gemmactl models` lists them"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn told(line: &[&str]) -> String {
        let line = || ["gemmactl"].iter().chain(line).map(OsString::from);
        let mut error = Cli::try_parse_from(line()).unwrap_err();
        escape(&mut error);
        suggest(&mut error, &meant(line()));
        error.to_string()
    }

    #[test]
    fn short_words_get_suggestions_too() {
        for (line, meant) in [
            (&["aks", "x"][..], "'ask'"),
            (&["satus"], "'status'"),
            (&["memory", "paln"], "'plan'"),
            (&["cache", "claer"], "'clear'"),
        ] {
            let text = told(line);
            assert!(
                text.contains(&format!("a similar subcommand exists: {meant}")),
                "{text}"
            );
        }
        let text = told(&["nonsense"]);
        assert!(!text.contains("similar"), "{text}");
    }

    #[test]
    fn what_was_typed_stays_in_its_line() {
        for line in [
            &["a\x1b[2J\nb"][..],
            &["ask", "x", "--temperature", "a\x1b[2J\nb"],
            &["ask", "x", "--a\x1b[2J\nb"],
            &["--color", "a\x1b[2J\nb", "status"],
        ] {
            let text = told(line);
            assert!(text.contains("a\\u{1b}[2J\\nb"), "{text}");
            assert!(!text.contains("\x1b[2J"), "{text}");
        }
    }

    #[test]
    fn numbers_below_zero_are_values_and_refused_as_such() {
        for (line, wanted) in [
            (&["ask", "x", "--temperature", "-1"][..], "from 0 to 2"),
            (&["ask", "x", "--top-k", "-5"], "a whole number"),
            (&["ask", "x", "--max-tokens", "-5"], "-1 for no limit"),
            (&["ask", "x", "--max-tokens", "0"], "a number of tokens"),
            (&["ask", "x", "--seed", "-2"], "-1 for another seed"),
            (&["ask", "x", "--timeout", "-1"], "like 500ms"),
            (&["memory", "plan", "--ctx", "-5"], "from 256 to 262144"),
            (&["memory", "plan", "--ram", "-1G"], "like 4G"),
        ] {
            let text = told(line);
            assert!(
                text.contains("invalid value '-") || text.contains("'0'"),
                "{text}"
            );
            assert!(text.contains(wanted), "{text}");
        }
        for line in [
            &[
                "ask",
                "x",
                "--seed",
                "-1",
                "--max-tokens",
                "-1",
                "--top-k",
                "-1",
            ][..],
            &["ask", "x", "--frequency-penalty", "-1.5"],
        ] {
            let line = ["gemmactl"].iter().chain(line);
            assert!(Cli::try_parse_from(line).is_ok());
        }
    }

    #[test]
    fn an_empty_name_is_no_model() {
        for line in [
            &["ask", "x", "--model", ""][..],
            &["load", ""],
            &["unload", ""],
            &["show", ""],
            &["run", ""],
            &["memory", "plan", ""],
        ] {
            let text = told(line);
            assert!(text.contains("a value is required"), "{text}");
        }
    }
}
