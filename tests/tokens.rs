//! Tokens on the daemon's socket: what signs them, and what ends with them.

mod harness;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use harness::gateway::gemmactl;
use harness::{Daemon, Options, Reply};
use serde_json::{Value, json};

#[test]
fn a_credential_signs_and_the_status_says_so() {
    let credentials = tempfile::tempdir().unwrap();
    let put = |bytes: &[u8]| fs::write(credentials.path().join("tokens.key"), bytes).unwrap();
    let start = || {
        let folder = credentials.path().to_str().unwrap();
        Daemon::with_environment(Options::default(), &[("CREDENTIALS_DIRECTORY", folder)])
    };
    put(&[0xa5; 32]);
    let mut daemon = start();
    assert_eq!(daemon.status()["tokens"]["key"], "credential");
    assert!(daemon.log().contains("credential=\"tokens.key\""));
    assert!(gemmactl(&daemon, &["status"]).contains("credential tokens.key"));
    let token = gemmactl(&daemon, &["token", "issue"]);
    let taken = |daemon: &Daemon| reply(ask(daemon, &token, "GET", "/v1/models", "")).status;
    assert_eq!(taken(&daemon), 200);
    let kept = fs::read_to_string(daemon.dir.path().join("tokens.json")).unwrap();
    assert!(kept.contains("\"keys\":[]"), "{kept}");
    let refused = daemon.post("/tokens/rotate", &Value::Null);
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("tokens.old.key"));
    // Started again without it.
    daemon.restart("TERM");
    assert_eq!(daemon.status()["tokens"]["key"], "file");
    assert_eq!(taken(&daemon), 401);

    put(b"too short");
    let daemon = start();
    let tokens = &daemon.status()["tokens"];
    assert!(tokens["key"].is_null(), "{tokens}");
    let cause = tokens["cause"].as_str().unwrap();
    assert!(cause.contains("tokens.key: it has 9 bytes only"), "{cause}");
    assert!(daemon.log().contains("ERROR ") && daemon.log().contains("9 bytes only"));
    assert!(gemmactl(&daemon, &["status"]).contains("none is taken"));
    let refused = daemon.post("/tokens", &json!({}));
    assert!(
        refused.error().contains("9 bytes only"),
        "{}",
        refused.error()
    );
}

/// Sends a request with this token.
fn ask(daemon: &Daemon, token: &str, method: &str, path: &str, body: &str) -> UnixStream {
    let mut stream = daemon.connect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn reply(stream: UnixStream) -> Reply {
    Reply::read(stream).unwrap()
}
