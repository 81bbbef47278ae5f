//! Tokens on the daemon's socket: what signs them, and what ends with them.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::gateway::gemmactl;
use harness::{Daemon, Options, Reply, TINY, endless, wait_for};
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

#[test]
fn the_helper_prints_one_good_token_and_keeps_it_while_it_is_good() {
    let daemon = Daemon::start();
    let runtime = tempfile::tempdir().unwrap();
    let call = |socket: &Path, options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
            .env("XDG_RUNTIME_DIR", runtime.path())
            .arg("--socket")
            .arg(socket)
            .args(["token", "helper"])
            .args(options)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let print = |options: &[&str]| {
        let (went_well, out, err) = call(&daemon.socket, options);
        assert!(went_well && err.is_empty(), "{err}");
        // The token and a line break, and nothing else.
        assert!(
            out.len() == 73 && out.starts_with("gmd_") && out.ends_with('\n'),
            "{out}"
        );
        out.trim_end().to_owned()
    };
    let is_taken = |token: &str| reply(ask(&daemon, token, "GET", "/v1/models", "")).status == 200;
    let first = print(&[]);
    assert!(is_taken(&first));
    assert_eq!(print(&[]), first);
    let kept = runtime.path().join("gemmactl/tokens.json");
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Another kind is another token, and so is one that is nearly over.
    let other = print(&["--model", TINY, "--limit", "1/min"]);
    assert_ne!(other, first);
    assert_eq!(print(&["--model", TINY, "--limit", "1/min"]), other);
    assert_eq!(
        print(&["--model", TINY, "--limit", "1/min"]),
        other,
        "its limit is no reason"
    );
    let short = print(&["--ttl", "2s"]);
    assert_eq!(print(&["--ttl", "2s"]), short);
    std::thread::sleep(Duration::from_millis(1100));
    assert_ne!(print(&["--ttl", "2s"]), short);
    // What was revoked is not printed again.
    gemmactl(&daemon, &["token", "revoke", "--all"]);
    let next = print(&[]);
    assert!(next != first && is_taken(&next) && !is_taken(&first));
    // Nor is what others could read.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    let private = print(&[]);
    assert_ne!(private, next);
    assert_eq!(print(&[]), private);
    fs::write(&kept, "{").unwrap();
    assert_ne!(print(&[]), private);
    // Errors are on standard error alone.
    let nowhere = runtime.path().join("nobody.sock");
    for (socket, options, why) in [
        (&nowhere, &[][..], "not running"),
        (
            &daemon.socket,
            &["--model", "nothing"][..],
            "no model `nothing`",
        ),
    ] {
        let (went_well, out, err) = call(socket, options);
        assert!(
            !went_well && out.is_empty() && err.contains(why),
            "{out}{err}"
        );
    }
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

#[test]
fn what_a_revoked_token_is_answered_breaks_off_at_once() {
    let daemon = Daemon::start();
    daemon.load();
    let chat = endless();
    let messages = &chat["messages"];
    let several = {
        let mut body = chat.clone();
        body["n"] = json!(2);
        body
    };
    // In the other APIs only a schema keeps an answer from its end.
    let long = json!({"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": "string", "minLength": 3000}}});
    let format = json!({"type": "json_schema", "name": "long", "schema": long});
    let anthropic = json!({"messages": messages, "max_tokens": 1900, "temperature": 1.0,
        "output_config": {"format": {"type": "json_schema", "schema": long}}});
    let ollama = json!({"messages": messages, "format": long,
        "options": {"num_predict": 1900, "temperature": 1.0}});
    let responses = json!({"input": "Count", "temperature": 1.0, "max_output_tokens": 1900,
        "text": {"format": format}});
    let code = "\"code\":\"token_revoked\"";
    let kind = "\"type\":\"authentication_error\"";
    for (path, mut body, begun, error) in [
        ("/v1/chat/completions", chat.clone(), "\"content\":\"", code),
        ("/v1/chat/completions", several, "\"content\":\"", code),
        ("/v1/messages", anthropic, "text_delta", kind),
        (
            "/api/chat",
            ollama,
            "\"content\":\"",
            "{\"error\":\"the token was",
        ),
        ("/v1/responses", responses, "output_text.delta", code),
    ] {
        let mut others = daemon.stream(&endless());
        assert!(others.next().is_some());
        let token = gemmactl(&daemon, &["token", "issue"]);
        body["model"] = json!("auto");
        body["stream"] = json!(true);
        let stream = ask(&daemon, &token, "POST", path, &body.to_string());
        let mut reader = BufReader::new(stream);
        let mut seen = String::new();
        while !seen.contains(begun) {
            assert_ne!(reader.read_line(&mut seen).unwrap(), 0, "{path}: {seen}");
        }
        gemmactl(&daemon, &["token", "revoke", "--all"]);
        let since = Instant::now();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let took = since.elapsed();
        assert!(took < Duration::from_secs(1), "{path}: {took:?}");
        assert!(
            rest.contains(error) && rest.contains("the token was revoked"),
            "{path}: {rest}"
        );
        for end in [
            "[DONE]",
            "message_stop",
            "response.completed",
            "\"done\":true",
        ] {
            assert!(!rest.contains(end), "{path}: {rest}");
        }
        // The worker computes nothing more for it, and goes on for others.
        wait_for("one answer alone", || daemon.status()["running"] == 1);
        assert!(others.next().is_some());
    }
}

#[test]
fn a_bad_token_is_refused_in_the_shape_of_each_api() {
    let daemon = Daemon::start();
    for path in [
        "/v1/messages",
        "/messages/count_tokens",
        "/api/chat",
        "/api/nothing",
        "/v1/chat/completions",
    ] {
        let refused = reply(ask(&daemon, "gmd_none", "POST", path, "{}"));
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let body = refused.json();
        if path.contains("/messages") {
            assert_eq!(body["type"], "error", "{body}");
            assert_eq!(body["error"]["type"], "authentication_error");
            assert_eq!(refused.header("request-id"), refused.header("x-request-id"));
        } else if path.starts_with("/api/") {
            assert!(body["error"].is_string(), "{body}");
        } else {
            assert_eq!(body["error"]["code"], "invalid_token");
        }
    }
}

#[test]
fn a_request_that_waits_ends_with_its_token() {
    let daemon = Daemon::with(Options {
        inference: "slots = 1".into(),
        ..Options::default()
    });
    let mut running = daemon.stream(&endless());
    assert!(running.next().is_some());
    let token = gemmactl(&daemon, &["token", "issue"]);
    let ask = |path: &str, stream: bool| {
        let mut body = json!({"model": "auto", "stream": stream,
            "messages": [{"role": "user", "content": "What is the capital of France?"}]});
        if path == "/v1/messages" {
            body["max_tokens"] = json!(200);
        }
        ask(&daemon, &token, "POST", path, &body.to_string())
    };
    let whole = ask("/v1/chat/completions", false);
    let (messages, ollama) = (ask("/v1/messages", false), ask("/api/chat", false));
    wait_for("requests that wait", || daemon.status()["waiting"] == 3);
    gemmactl(&daemon, &["token", "revoke", "--all"]);
    let (whole, messages, ollama) = (reply(whole), reply(messages), reply(ollama));
    let statuses = [whole.status, messages.status, ollama.status];
    assert_eq!(statuses, [401; 3], "{}", whole.text());
    assert_eq!(whole.json()["error"]["code"], "token_revoked");
    assert_eq!(whole.header("www-authenticate"), Some("Bearer"));
    assert_eq!(messages.json()["error"]["type"], "authentication_error");
    assert!(ollama.json()["error"].as_str().unwrap().contains("revoked"));
    wait_for("an empty queue", || daemon.status()["waiting"] == 0);
    assert!(running.next().is_some());
}
