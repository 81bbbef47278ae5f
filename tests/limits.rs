//! Past each limit comes the right answer, and nobody else notices.

mod harness;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::{Daemon, Options, Reply, endless, proc_kib, question, wait_for};
use serde_json::json;

fn limited(limits: &str) -> Daemon {
    Daemon::with(Options {
        inference: "slots = 1".into(),
        limits: limits.into(),
        ..Options::default()
    })
}

#[test]
fn a_body_that_is_too_large() {
    let daemon = limited("body-size = \"64 KiB\"");
    let reply = daemon.chat(&question(&"x".repeat(100_000)));
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.error().contains("65536"), "{}", reply.error());
    assert_eq!(daemon.get("/health").status, 200);
}

#[test]
fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let daemon = limited("body-size = \"64 KiB\"");
    let mut stream = daemon.connect();
    stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..40 {
        if stream
            .write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes())
            .is_err()
        {
            break;
        }
    }
    assert_eq!(Reply::read(stream).unwrap().status, 413);
}

#[test]
fn connections_in_all_and_for_one_user() {
    for limits in ["connections = 4", "connections-per-user = 4"] {
        let daemon = limited(limits);
        let held: Vec<UnixStream> = (0..4).map(|_| daemon.connect()).collect();
        wait_for("the limit to be reached", || {
            let mut stream = daemon.connect();
            let _ =
                stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            Reply::read(stream)
                .is_ok_and(|reply| matches!(reply.status, 429 | 503) && reply.error().contains('4'))
        });
        drop(held);
        wait_for("the connections to be given back", || {
            daemon.get("/health").status == 200
        });
    }
}

#[test]
fn the_queue_in_all_and_for_one_user() {
    for (limits, status) in [("queue = 2", 503), ("queue-per-user = 2", 429)] {
        let daemon = limited(limits);
        let mut running = daemon.stream(&endless());
        running.next().unwrap();
        let waiting: Vec<UnixStream> = (0..2)
            .map(|_| {
                daemon.send(
                    "/v1/chat/completions",
                    question("What are you?").to_string().as_bytes(),
                )
            })
            .collect();
        wait_for("two to wait", || daemon.status()["waiting"] == 2);
        let refused = daemon.chat(&question("What are you?"));
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(
            refused
                .header("retry-after")
                .unwrap()
                .parse::<u32>()
                .unwrap()
                > 0
        );
        assert!(refused.error().contains('2'), "{}", refused.error());
        drop(running);
        for stream in waiting {
            assert_eq!(
                Reply::read(stream).unwrap().status,
                200,
                "those that waited are served"
            );
        }
    }
}

#[test]
fn tokens_of_an_answer() {
    let daemon = limited("output-tokens = 20");
    let reply = daemon.chat(&endless()).json();
    assert_eq!(reply["usage"]["completion_tokens"], 20);
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
}

#[test]
fn the_time_of_a_request() {
    let daemon = limited("request-time = \"300ms\"");
    let worker = daemon.load();
    harness::signal(worker, "STOP");
    let start = Instant::now();
    let reply = daemon.chat(&question("What are you?"));
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    harness::signal(worker, "CONT");
    wait_for("the worker to be free", || daemon.status()["running"] == 0);
}

#[test]
fn the_time_of_a_load() {
    let dir = tempfile::tempdir().unwrap();
    let worker = dir.path().join("worker");
    std::fs::write(&worker, "#!/bin/sh\nexec sleep 60\n").unwrap();
    std::fs::set_permissions(&worker, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        inference: format!("worker = \"{}\"", worker.display()),
        limits: "load-time = \"500ms\"".into(),
        ..Options::default()
    });
    let reply = daemon.chat(&question("What are you?"));
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(reply.error().contains("load-time"), "{}", reply.error());
}

#[test]
fn a_thousand_idle_connections_do_not_disturb_a_working_one() {
    let daemon = Daemon::start();
    daemon.load();
    let once = || {
        let start = Instant::now();
        daemon
            .chat(&question("What is the capital of France?"))
            .content();
        start.elapsed()
    };
    // The fastest of many: what else runs on this machine makes some of them slow, but not all.
    let time = || (0..30).map(|_| once()).min().unwrap();
    let alone = time();
    // Half of them say nothing, half stop in the middle of a head.
    let idle: Vec<UnixStream> = (0..1000)
        .map(|i| {
            let mut stream = daemon.connect();
            if i % 2 == 0 {
                stream.write_all(b"GET /health HTTP/1.1\r\nhost").unwrap();
            }
            stream
        })
        .collect();
    wait_for("all to be accepted", || {
        harness::descriptors(daemon.pid()) >= 1000
    });
    let beside = time();
    let anon = proc_kib(daemon.pid(), "status", "RssAnon");
    eprintln!("alone {alone:?}, beside 1000 idle connections {beside:?}, RssAnon {anon} KiB");
    assert!(
        beside < 2 * alone + Duration::from_millis(20),
        "alone {alone:?}, beside 1000 {beside:?}"
    );
    assert!(
        anon < 32 << 10,
        "RssAnon is {anon} KiB with 1000 connections"
    );
    drop(idle);
    wait_for("all to be closed", || {
        harness::descriptors(daemon.pid()) < 100
    });
}

#[test]
fn garbage_on_the_socket_is_answered_and_forgotten() {
    let daemon = Daemon::start();
    for garbage in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        &[b'A'; 100_000],
    ] {
        let mut stream = daemon.connect();
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let mut many = String::from("GET /health HTTP/1.1\r\n");
    for i in 0..1000 {
        many += &format!("x-{i}: y\r\n");
    }
    let mut stream = daemon.connect();
    let _ = stream.write_all((many + "\r\n").as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(
        answer.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(daemon.get("/health").status, 200);
}

#[test]
fn a_load_is_for_administrators() {
    let daemon = Daemon::with(Options {
        server: "socket-mode = \"0666\"".into(),
        ..Options::default()
    });
    let Some(answer) = daemon.ask_as_stranger(
        "POST",
        "/models/load",
        &json!({"model": "auto"}).to_string(),
    ) else {
        return;
    };
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(daemon.status()["state"], "cold");
}
