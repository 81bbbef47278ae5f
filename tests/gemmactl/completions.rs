//! What shells are told.

use super::*;

#[test]
fn completions_know_the_installed_models() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.answer(
            "200 OK",
            "",
            &json!({"data": [{"id": "gemma-4-e2b-q4"}, {"id": "other"}]}),
        );
    });
    let asked = |words: &[&str], socket: &Path| {
        let output = Command::new(GEMMACTL)
            .arg("--")
            .args(words)
            .env("_GEMMACTL_COMPLETE", "bash")
            .env("_CLAP_IFS", "\n")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .env("GEMMAD_SOCKET", socket)
            .output()
            .unwrap();
        texts(&output).0
    };
    let names = asked(&["gemmactl", "load", "gem"], &daemon.socket());
    assert_eq!(names.trim(), "gemma-4-e2b-q4");
    let nobody = Path::new("/nowhere/api.sock");
    let commands = asked(&["gemmactl", "st"], nobody);
    assert_eq!(commands.trim(), "status");
    assert_eq!(
        asked(&["gemmactl", "ask", "--model", ""], nobody).trim(),
        "auto"
    );
    assert!(asked(&["gemmactl", "ask", "--show"], nobody).contains("--show-thoughts"));
    let script = texts(
        &Command::new(GEMMACTL)
            .args(["completions", "bash"])
            .output()
            .unwrap(),
    )
    .0;
    assert!(script.contains("_GEMMACTL_COMPLETE"), "{script}");
}

/// What bash would put in place of the word under the cursor, which is at the end of `line`. `words`
/// is how bash takes the line apart: at `=` and `:`, too.
fn completed_by_bash(socket: &Path, line: &str, words: &[&str]) -> Vec<String> {
    let script = Command::new(GEMMACTL)
        .args(["completions", "bash"])
        .output()
        .unwrap();
    let script = texts(&script).0;
    let last = words.last().unwrap();
    let replaced = if ["=", ":"].contains(last) { "" } else { last };
    let run = "eval \"$1\"; shift; COMP_LINE=$1 word=$2; shift 2; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
               _gemmactl gemmactl \"$word\" x; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let folder = Path::new(GEMMACTL).parent().unwrap();
    let output = Command::new("bash")
        .args(["--norc", "-c", run, "bash", &script, line, replaced])
        .args(words)
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
        .env("GEMMAD_SOCKET", socket)
        .output()
        .unwrap();
    let (out, err, _) = texts(&output);
    assert!(!out.trim().is_empty(), "{line}: {err}");
    out.lines().map(Into::into).collect()
}

#[test]
fn bash_completes_behind_equals_signs_and_colons() {
    let daemon = Daemon::start(3, |_, peer| {
        let models = json!({"data": [
            {"id": "tiny-e2b", "variant": "gemma-4-e2b"}, {"id": "a:b", "variant": "gemma-4-e4b"}]});
        peer.answer("200 OK", "", &models);
    });
    let bash = |line: &str, words: &[&str]| completed_by_bash(&daemon.socket(), line, words);
    let g = "gemmactl";
    assert_eq!(
        bash("gemmactl --color=a", &[g, "--color", "=", "a"]),
        ["auto", "always"]
    );
    assert_eq!(
        bash("gemmactl --color=", &[g, "--color", "="]),
        ["auto", "always", "never"]
    );
    assert_eq!(
        bash("gemmactl ask --model=ti", &[g, "ask", "--model", "=", "ti"]),
        ["tiny-e2b"]
    );
    assert_eq!(bash("gemmactl load a:", &[g, "load", "a", ":"]), ["b"]);
    assert_eq!(bash("gemmactl load e", &[g, "load", "e"]), ["e2b", "e4b"]);
    // Words that stand alone are as they were.
    assert_eq!(bash("gemmactl st", &[g, "st"]), ["status"]);
    assert_eq!(
        bash(
            "gemmactl --color always st",
            &[g, "--color", "always", "st"]
        ),
        ["status"]
    );
    daemon.requests();
}

#[test]
fn plans_are_completed_with_the_whole_family() {
    let nobody = Path::new("/nowhere/api.sock");
    let line = "gemmactl memory plan ";
    let names = completed_by_bash(nobody, line, &["gemmactl", "memory", "plan", ""]);
    for name in ["e2b", "e4b", "12b", "26b-a4b", "31b"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
}

#[test]
fn bash_quotes_files_and_takes_no_command_for_one() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a;b.txt"), "").unwrap();
    std::fs::create_dir(home.path().join("cache")).unwrap();
    let folder = Path::new(GEMMACTL).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    for (line, shown) in [
        ("gemmactl cac\t", "gemmactl cache "),
        ("gemmactl ask --file a\t", "gemmactl ask --file a\\;b.txt "),
        ("gemmactl ask --file=a\t", "gemmactl ask --file=a\\;b.txt "),
        ("gemmactl ask --file c\t", "gemmactl ask --file cache/"),
    ] {
        let rc = "PS1='ready> '; bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; \
                  source <(gemmactl completions bash)\n";
        std::fs::write(home.path().join("rc"), rc).unwrap();
        let output = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gemmactl/typist.py"))
            // Ctrl-A and a number sign make a comment of the line, which is not run.
            .args(["ready> ", &format!("{line}\x01#\r\x1fexit\r"), "/bin/bash"])
            .args(["--noprofile", "--rcfile", "rc", "-i"])
            .current_dir(home.path())
            .env("PATH", &path)
            .env("TERM", "dumb")
            .output()
            .unwrap();
        let shown_at_all = texts(&output).0;
        assert!(shown_at_all.contains(shown), "{line:?}: {shown_at_all:?}");
    }
}
