//! Account of requests: sums of each principal and day, and the log of requests. Nothing of what they were about is in either.

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::gateway::{both_with, gemmactl};
use harness::{Daemon, Options, question, wait_for};
use serde_json::Value;

const FRANCE: &str = "What is the capital of France?";

/// What somebody is shown: user, whether it was a token's, requests, failed, tokens in and out.
type Line = (Option<u64>, bool, u64, u64, u64, u64);

fn lines(usage: &str) -> Vec<Line> {
    let usage: Value = serde_json::from_str(usage).unwrap_or_else(|_| panic!("{usage}"));
    let line = |line: &Value| {
        let number = |name: &str| line[name].as_u64().unwrap();
        (
            line["user"].as_u64(),
            line["token"].is_string(),
            number("requests"),
            number("failed"),
            number("prompt_tokens"),
            number("completion_tokens"),
        )
    };
    usage["data"].as_array().unwrap().iter().map(line).collect()
}

/// The body of what a stranger is answered.
fn of_stranger(daemon: &Daemon, method: &str, path: &str, body: &str) -> String {
    let answer = daemon.ask_as_stranger(method, path, body).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.trim().to_owned()
}

#[test]
fn everybody_sees_what_they_have_used_and_administrators_all() {
    let Some((mut daemon, gateway)) = both_with(Options::default(), "") else {
        return;
    };
    assert_eq!(gemmactl(&daemon, &["usage"]), "nothing has been used yet");
    let token = gemmactl(&daemon, &["token", "issue"]);
    let key = format!("Authorization: Bearer {token}");
    let chat = question(FRANCE).to_string();
    let path = "/v1/chat/completions";
    let usage = daemon.chat(&question(FRANCE)).json()["usage"].clone();
    let (input, output) = (
        usage["prompt_tokens"].as_u64().unwrap(),
        usage["completion_tokens"].as_u64().unwrap(),
    );
    of_stranger(&daemon, "POST", path, &chat);
    of_stranger(&daemon, "POST", path, &chat);
    assert_eq!(gateway.curl(path, &["-H", &key, "-d", &chat]).0, 200);
    let wrong = chat.replace("\"auto\"", "\"gemma-of-nobody\"");
    assert_eq!(gateway.curl(path, &["-H", &key, "-d", &wrong]).0, 404);
    // The number of the token's issuer is root's: this test's own user.
    let root = (Some(0), false, 1, 0, input, output);
    let stranger = (Some(65_534), false, 2, 0, 2 * input, 2 * output);
    let of_token = (Some(0), true, 2, 1, input, output);
    let shown = |daemon: &Daemon| lines(&gemmactl(daemon, &["usage", "--json"]));
    assert_eq!(shown(&daemon), [root, stranger, of_token]);
    assert_eq!(
        lines(&of_stranger(&daemon, "GET", "/usage", "")),
        [stranger]
    );
    let (status, own) = gateway.curl("/usage", &["-H", &key]);
    assert_eq!((status, lines(&own)), (200, vec![of_token]));
    assert_eq!(gateway.curl("/usage", &[]).0, 401);
    // Over restarts, whether it could say farewell or not.
    let file = daemon.dir.path().join("usage.json");
    daemon.restart("TERM");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(shown(&daemon), [root, stranger, of_token]);
    let before = fs::read(&file).unwrap();
    daemon.chat(&question(FRANCE));
    wait_for("the file", || fs::read(&file).unwrap() != before);
    daemon.restart("KILL");
    assert_eq!(shown(&daemon)[0].2, 2);
    let table = gemmactl(&daemon, &["usage"]);
    assert!(
        table.contains("tokens in") && table.contains("token "),
        "{table}"
    );
    // A file that is damaged is replaced.
    daemon.signal("STOP");
    fs::write(&file, "{").unwrap();
    daemon.signal("CONT");
    daemon.restart("KILL");
    assert!(daemon.log().contains("counted anew"), "{}", daemon.log());
    assert_eq!(gemmactl(&daemon, &["usage"]), "nothing has been used yet");
}

#[test]
fn a_line_for_each_request_is_written_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let mut daemon = Daemon::with(Options {
        audit: format!("log = \"{}\"\n", path.display()),
        ..Options::default()
    });
    let (text, _) = daemon.stream(&question(FRANCE)).text();
    let refused = question(FRANCE)
        .to_string()
        .replace("\"auto\"", "\"my secret\"");
    daemon.post_raw("/v1/chat/completions", refused.as_bytes());
    // Whoever leaves.
    let mut long = question("Tell me about France");
    long["stream"] = true.into();
    let stream = daemon.send("/v1/chat/completions", long.to_string().as_bytes());
    drop(stream);
    daemon.restart("TERM");
    let log = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!((2..=3).contains(&lines.len()), "{log}");
    assert_eq!(lines[0]["outcome"], "answered");
    assert_eq!(lines[0]["model"], harness::TINY);
    assert_eq!(lines[0]["backend"], "local");
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(lines[0]["uid"], own);
    assert!(lines[0]["completion_tokens"].as_u64() > Some(1), "{log}");
    assert_eq!(
        (&lines[1]["outcome"], &lines[1]["model"]),
        (&"model_not_found".into(), &Value::Null)
    );
    for secret in ["France", "capital", "secret", &text] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn the_journal_has_them_whatever_its_level() {
    let daemon = Daemon::with(Options {
        audit: "log = \"journal\"\n[log]\nlevel = \"error\"\n".into(),
        ..Options::default()
    });
    daemon.chat(&question(FRANCE));
    wait_for("the line", || daemon.log().contains("gemmad::audit"));
    let log = daemon.log();
    assert!(
        log.contains("outcome=\"answered\"") && log.contains(harness::TINY),
        "{log}"
    );
    assert!(!log.contains("capital"), "{log}");
}
