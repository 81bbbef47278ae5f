//! Nobody generates for a client that has left.

mod harness;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Daemon, Options, endless, question, signal, wait_for};
use serde_json::json;

/// From the client's leaving to the slot's being free, beyond one step of the tiny model (1 ms).
const SOON: Duration = Duration::from_millis(100);

fn one_slot() -> Daemon {
    Daemon::with(Options {
        inference: "slots = 1\ncontext = 4096".into(),
        ..Options::default()
    })
}

/// `leave` makes a client leave and returns that moment. Other machines' work may delay one
/// measurement, not three.
fn free_soon(daemon: &Daemon, mut leave: impl FnMut() -> Instant) {
    let mut once = || {
        let left = leave();
        wait_for("the slot to be free", || daemon.status()["running"] == 0);
        let after = left.elapsed();
        // And the worker is really free: a new answer comes at once.
        let start = Instant::now();
        assert_eq!(
            daemon
                .chat(&question("What is the capital of France?"))
                .content(),
            "The capital of France is Paris."
        );
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        after
    };
    let times: Vec<Duration> = (0..3).map(|_| once()).collect();
    assert!(times.iter().any(|time| *time < SOON), "{times:?}");
}

#[test]
fn while_an_answer_streams() {
    let daemon = one_slot();
    free_soon(&daemon, || {
        let mut events = daemon.stream(&endless());
        for _ in 0..5 {
            events.next().unwrap();
        }
        assert_eq!(daemon.status()["running"], 1);
        Instant::now()
    });
}

#[test]
fn while_an_answer_is_collected() {
    let daemon = one_slot();
    daemon.load();
    free_soon(&daemon, || {
        let _stream = daemon.send("/v1/chat/completions", endless().to_string().as_bytes());
        wait_for("the answer to run", || daemon.status()["running"] == 1);
        Instant::now()
    });
}

#[test]
fn while_a_prompt_is_read() {
    let daemon = one_slot();
    daemon.load();
    let mut body = question(&"word ".repeat(1500));
    body["cache_prompt"] = json!(false);
    free_soon(&daemon, || {
        let _stream = daemon.send("/v1/chat/completions", body.to_string().as_bytes());
        wait_for("the prompt to be read", || daemon.status()["running"] == 1);
        Instant::now()
    });
}

#[test]
fn while_it_waits_in_the_queue() {
    let daemon = one_slot();
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let waiting = daemon.send("/v1/chat/completions", question("x").to_string().as_bytes());
    wait_for("the second to wait", || daemon.status()["waiting"] == 1);
    drop(waiting);
    wait_for("the queue to be empty", || daemon.status()["waiting"] == 0);
    assert_eq!(daemon.status()["running"], 1);
}

#[test]
fn a_client_that_stops_reading_is_cut_off_and_nobody_else_waits() {
    let daemon = Daemon::with(Options {
        inference: "slots = 2\ncontext = 4096".into(),
        limits: "client-stall = \"1s\"".into(),
        ..Options::default()
    });
    daemon.load();
    let mut body = endless();
    body["max_tokens"] = json!(4000);
    // Log-probabilities make each event large: the socket's buffer is soon full.
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(20);
    body["stream"] = json!(true);
    let mut stalled = daemon.send("/v1/chat/completions", body.to_string().as_bytes());
    wait_for("the answer to run", || daemon.status()["running"] == 1);
    let start = Instant::now();
    assert_eq!(
        daemon
            .chat(&question("What is the capital of France?"))
            .content(),
        "The capital of France is Paris."
    );
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "another client waited {:?}",
        start.elapsed()
    );
    wait_for("the stalled answer to be stopped", || {
        daemon.status()["running"] == 0
    });
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest);
    assert!(
        !String::from_utf8_lossy(&rest).contains("[DONE]"),
        "the answer was cut off"
    );
}

#[test]
fn gemmactl_interrupted_stops_the_answer() {
    let daemon = one_slot();
    let worker = daemon.load();
    // Stopped, the worker cannot be done before the interrupt comes.
    signal(worker, "STOP");
    let mut ask = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .args([
            "--socket",
            daemon.socket.to_str().unwrap(),
            "ask",
            "Tell me a story.",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the answer to run", || daemon.status()["running"] == 1);
    signal(ask.id(), "INT");
    assert_eq!(ask.wait().unwrap().code(), Some(130));
    wait_for("the slot to be free", || daemon.status()["running"] == 0);
    signal(worker, "CONT");
    assert_eq!(
        daemon
            .chat(&question("What is the capital of France?"))
            .content(),
        "The capital of France is Paris."
    );
}
