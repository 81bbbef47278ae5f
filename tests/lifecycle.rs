//! The daemon's start, reload and end.

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Daemon, Options, TINY, endless, question, wait_for, write_config};
use serde_json::json;

#[test]
fn it_starts_without_weights_and_loads_with_the_first_request() {
    let daemon = Daemon::start();
    let status = daemon.status();
    assert_eq!(
        (&status["state"], &status["pid"]),
        (&json!("cold"), &json!(null))
    );
    assert_eq!(daemon.get("/health").status, 200, "it can serve");
    daemon.chat(&question("What is the capital of France?"));
    assert_eq!(daemon.status()["state"], "ready");
    let worker = daemon.status()["pid"].as_u64().unwrap();
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
    assert_eq!(daemon.status()["state"], "cold");
    assert!(
        !fs::exists(format!("/proc/{worker}")).unwrap(),
        "the worker is gone, zombie and all"
    );
}

#[test]
fn an_idle_model_is_unloaded_and_loaded_again_when_asked() {
    let daemon = Daemon::with(Options {
        models_keys: "idle-unload = \"300ms\"".into(),
        ..Options::default()
    });
    let worker = daemon.load();
    wait_for("the worker to go", || daemon.status()["state"] == "cold");
    assert!(!fs::exists(format!("/proc/{worker}")).unwrap());
    assert_eq!(daemon.status()["crashes"], 0);
    assert_eq!(
        daemon
            .chat(&question("What is the capital of France?"))
            .content(),
        "The capital of France is Paris."
    );
}

#[test]
fn the_socket_has_the_mode_and_group_that_are_configured() {
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid())
        .unwrap()
        .unwrap();
    let daemon = Daemon::with(Options {
        server: format!("socket-mode = \"0640\"\nsocket-group = \"{}\"", group.name),
        ..Options::default()
    });
    let metadata = fs::metadata(&daemon.socket).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    assert_eq!(metadata.gid(), group.gid.as_raw());
}

/// Starts a daemon that is expected to refuse, and returns its code and what it says.
fn refused(dir: &std::path::Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .arg("--config")
        .arg(dir.join("gemmad.toml"))
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_start_that_cannot_succeed_says_why() {
    let dir = tempfile::tempdir().unwrap();
    write_config(
        dir.path(),
        &Options {
            server: "socket-group = \"no-such-group\"".into(),
            ..Options::default()
        },
    );
    let (code, text) = refused(dir.path());
    assert!(
        code == Some(78) && text.contains("no-such-group"),
        "{code:?} {text}"
    );

    write_config(
        dir.path(),
        &Options {
            inference: "contxt = 5".into(),
            ..Options::default()
        },
    );
    let (code, text) = refused(dir.path());
    assert!(
        code == Some(78) && text.contains("contxt") && text.contains("context"),
        "{code:?} {text}"
    );

    write_config(dir.path(), &Options::default());
    fs::write(dir.path().join("api.sock"), "a file of somebody's").unwrap();
    let (code, text) = refused(dir.path());
    assert!(
        code == Some(78) && text.contains("no socket"),
        "{code:?} {text}"
    );
    fs::remove_file(dir.path().join("api.sock")).unwrap();

    let _other = UnixListener::bind(dir.path().join("api.sock")).unwrap();
    let (code, text) = refused(dir.path());
    assert!(
        code == Some(69) && text.contains("already"),
        "{code:?} {text}"
    );
}

#[test]
fn a_stale_socket_is_replaced() {
    let mut daemon = Daemon::start();
    daemon.signal("KILL");
    daemon.wait();
    assert!(daemon.socket.exists());
    let mut again = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .arg("--config")
        .arg(daemon.config())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the new daemon", || {
        UnixStream::connect(&daemon.socket).is_ok()
    });
    assert_eq!(daemon.get("/health").status, 200);
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn sigterm_lets_a_running_answer_finish_and_refuses_new_ones() {
    let mut daemon = Daemon::start();
    daemon.load();
    let mut body = question("What is the capital of France?");
    (body["ignore_eos"], body["max_tokens"]) = (json!(true), json!(600));
    let mut events = daemon.stream(&body);
    events.next().unwrap();
    // Kept alive from before, this connection may still ask, and is told.
    daemon.signal("TERM");
    wait_for("the socket to be closed", || {
        UnixStream::connect(&daemon.socket).is_err() || daemon.process.try_wait().unwrap().is_some()
    });
    let (_, end) = events.text();
    assert_eq!(end, Ok(()), "the answer was finished");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!daemon.socket.exists(), "the socket is gone");
}

#[test]
fn sigterm_cuts_off_what_outlasts_the_grace_time() {
    let mut daemon = Daemon::with(Options {
        server: "shutdown-grace = \"200ms\"".into(),
        inference: "context = 4096".into(),
        ..Options::default()
    });
    let worker = daemon.load();
    let mut body = endless();
    body["max_tokens"] = json!(4000);
    let mut events = daemon.stream(&body);
    events.next().unwrap();
    // Stopped, it cannot finish by itself.
    harness::signal(worker, "STOP");
    let asked = Instant::now();
    daemon.signal("TERM");
    let (_, end) = events.text();
    assert!(end.unwrap_err().contains("shutting down"));
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{:?}",
        asked.elapsed()
    );
    assert!(!fs::exists(format!("/proc/{worker}")).unwrap());
}

#[test]
fn sighup_reads_the_configuration_again() {
    let daemon = Daemon::start();
    let first = daemon.load();
    let other = tempfile::tempdir().unwrap();
    fs::copy(
        harness::tiny_models().join(format!("{TINY}.gguf")),
        other.path().join("renamed.gguf"),
    )
    .unwrap();
    fs::copy(
        harness::tiny_models().join(format!("{TINY}.gguf")),
        other.path().join("second.gguf"),
    )
    .unwrap();
    write_config(
        daemon.dir.path(),
        &Options {
            models: other.path().into(),
            ..Options::default()
        },
    );
    daemon.signal("HUP");
    wait_for("the new directory", || {
        daemon.get("/v1/models").text().contains("renamed")
    });
    assert_eq!(daemon.status()["pid"], first, "what is loaded stays");
    for default in ["second", "renamed"] {
        write_config(
            daemon.dir.path(),
            &Options {
                models: other.path().into(),
                models_keys: format!("default = \"{default}\""),
                ..Options::default()
            },
        );
        daemon.signal("HUP");
        wait_for("the new default", || daemon.status()["default"] == default);
    }
    fs::write(daemon.config(), "[server\n").unwrap();
    daemon.signal("HUP");
    wait_for("the error", || daemon.log().contains("the old one stays"));
    assert!(daemon.get("/v1/models").text().contains("renamed"));
    assert_eq!(daemon.get("/health").status, 200);
}
