//! Completions: a script for the shell, and what it is answered when it asks.

use std::collections::HashSet;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Zsh};
use clap_complete::{CompleteEnv, CompletionCandidate, Shell};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::args::Cli;
use super::client::Client;
use super::error::Error;
use super::http::Http;
use super::socket;

/// The variable by which a shell's script says that it wants completions.
const VARIABLE: &str = "_GEMMACTL_COMPLETE";
const PROGRAM: &str = "gemmactl";
/// The variants of the family, as people call them.
const FAMILY: [&str; 5] = ["e2b", "e4b", "12b", "26b-a4b", "31b"];
/// Nobody waits longer for a completion.
const PATIENCE: Duration = Duration::from_millis(500);

/// The script for bash. clap's own takes bash's word for what a word is, and bash ends one at each
/// `=` and `:`. Here what stands together on the line is one word; of what it could become bash gets
/// the part that it replaces. Names that need it are quoted as files, or one called `a;b` would be two
/// commands; not all are, or a command that is called as a folder here would get a slash.
const BASH: &str = r#"_gemmactl() {
    local IFS=$'\013' line=$COMP_LINE i word words=() before=
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ -n $line && $line != [[:space:]]* ]]; then
            before=${words[-1]}
        else
            before=
            words+=("")
        fi
        line=${line#*"$word"}
        if ((i == COMP_CWORD)); then
            # Where the cursor stands behind a separator, that is the word, and nothing of it is replaced.
            [[ -z $2 && $word == [=:]* ]] && before+=$word
            word=$2
        fi
        words[-1]=$before$word
    done
    COMPREPLY=($(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX="$((${#words[@]} - 1))" _GEMMACTL_COMPLETE=bash \
        gemmactl -- "${words[@]}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    for word in "${COMPREPLY[@]}"; do
        [[ $word == *[!a-zA-Z0-9.:_=+-]* ]] && compopt -o filenames
    done
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace
    fi
}
complete -o bashdefault -o nosort -F _gemmactl gemmactl
"#;

/// Ends the program if it is a shell that asks.
pub fn answer_shell() {
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .bin(PROGRAM)
        .complete();
}

/// The script for a shell.
pub fn script(shell: Shell) -> Result<Vec<u8>, Error> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => return Ok(BASH.into()),
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Zsh => &Zsh,
        other => {
            return Err(Error::Usage(format!(
                "there are no completions for {other}"
            )));
        }
    };
    let mut script = vec![];
    completer
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .map_err(Error::Output)?;
    Ok(script)
}

/// Names that a model can be asked for by; `auto` alone where the daemon does not answer at once.
pub fn model_names() -> Vec<CompletionCandidate> {
    candidates(["auto".into()].into_iter().chain(installed_here()))
}

/// Names for `memory plan`, which knows the whole family.
pub fn planned_names() -> Vec<CompletionCandidate> {
    let variants = FAMILY.iter().map(|name| (*name).to_owned());
    candidates(variants.chain(installed_here()))
}

fn candidates(names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let mut seen = HashSet::new();
    names
        .filter(|name| seen.insert(name.clone()))
        .map(CompletionCandidate::new)
        .collect()
}

fn installed_here() -> Vec<String> {
    let client = Http::new(socket::candidates(None));
    super::runtime().map_or_else(|_| vec![], |runtime| installed(&client, &runtime))
}

/// The installed models: their ids, and the short names of their variants, like `e2b`. None where
/// the daemon does not answer at once.
pub fn installed(client: &dyn Client, runtime: &Runtime) -> Vec<String> {
    let models = runtime.block_on(async { timeout(PATIENCE, client.models()).await });
    let models = match models {
        Ok(Ok(models)) => models["data"].as_array().cloned().unwrap_or_default(),
        _ => vec![],
    };
    let named = |key: &'static str| models.iter().filter_map(move |model| model[key].as_str());
    let mut names: Vec<String> = named("id").map(Into::into).collect();
    for short in named("variant").filter_map(|variant| variant.strip_prefix("gemma-4-")) {
        if !names.iter().any(|name| name == short) {
            names.push(short.into());
        }
    }
    names
}
