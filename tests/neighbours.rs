//! Several users, one of them greedy: the others notice nothing.

mod harness;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::users::{self, ALICE, BOB, CAROL, as_user};
use harness::{Daemon, Options, Reply, endless, question, wait_for};
use serde_json::json;

/// As many idle connections as a user gets.
fn hoard(daemon: &Daemon, uid: u32, most: usize) -> Vec<UnixStream> {
    as_user(uid, || {
        (0..most)
            .map_while(|_| UnixStream::connect(&daemon.socket).ok())
            .collect()
    })
}

/// What `uid` is answered.
fn health(daemon: &Daemon, uid: u32) -> u16 {
    as_user(uid, || daemon.get("/health").status)
}

#[test]
fn idle_connections_shut_nobody_out() {
    if !users::possible("connections that one user hoards") {
        return;
    }
    // The hard limit leaves room for a few hundred; the soft one is systemd's.
    for limit in ["--nofile=1024:1100", "--nofile=1024:20000"] {
        let daemon = users::daemon(Options {
            starter: vec!["prlimit".into(), limit.into()],
            ..Options::default()
        });
        let _held = [hoard(&daemon, ALICE, 1300), hoard(&daemon, BOB, 1300)];
        wait_for("the greedy to be refused", || health(&daemon, BOB) != 200);
        assert_eq!(health(&daemon, CAROL), 200, "{limit}");
        // Root, and a worker, which needs descriptors as well.
        assert_eq!(daemon.get("/health").status, 200, "{limit}");
        let answer = as_user(CAROL, || daemon.chat(&question("Hello!")));
        assert_eq!(answer.status, 200, "{limit}: {}", answer.text());
    }
}

#[test]
fn many_who_wait_do_not_keep_a_newcomer_out() {
    if !users::possible("a queue that five users fill") {
        return;
    }
    let daemon = users::daemon(Options {
        inference: "slots = 1".into(),
        ..Options::default()
    });
    daemon.load();
    let endless = endless().to_string();
    let _waiting: Vec<UnixStream> = (0..5)
        .flat_map(|i| {
            let daemon = &daemon;
            let body = &endless;
            as_user(ALICE + 10 + i, move || {
                let send = |_| daemon.send("/v1/chat/completions", body.as_bytes());
                (0..17).map(send).collect::<Vec<_>>()
            })
        })
        .collect();
    wait_for("the queue to be full", || {
        daemon.status()["waiting"].as_u64() >= Some(64)
    });
    let late = as_user(ALICE, || {
        daemon.send(
            "/v1/chat/completions",
            question("Hi!").to_string().as_bytes(),
        )
    });
    wait_for("the newcomer to be let in", || {
        daemon.status()["waiting"].as_u64() >= Some(65)
    });
    drop(late);
}

#[test]
fn the_prefix_cache_keeps_users_apart() {
    if !users::possible("what the prefix cache tells of others") {
        return;
    }
    let daemon = users::daemon(Options::default());
    let mut body = question(&"The door of the shed has the code 7316. ".repeat(12));
    body["max_tokens"] = json!(4);
    let cached = |uid| {
        let reply = as_user(uid, || daemon.chat(&body));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let usage = &reply.json()["usage"];
        usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(cached(ALICE), 0);
    assert!(cached(ALICE) > 50, "her own prompt is there");
    assert_eq!(cached(BOB), 0);
    assert!(cached(BOB) > 50);
    // There are two sequences: Carol takes one of theirs, and finds it empty.
    assert_eq!(cached(CAROL), 0);
}

/// The median of a few short answers.
fn median(daemon: &Daemon, uid: u32) -> Duration {
    let mut body = question("Hello!");
    body["max_tokens"] = json!(1);
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            let reply: Reply = as_user(uid, || daemon.chat(&body));
            assert_eq!(reply.status, 200, "{}", reply.text());
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[2]
}

#[test]
fn a_flood_of_answers_delays_others_by_a_turn() {
    if !users::possible("a user who floods the daemon with requests") {
        return;
    }
    let daemon = users::daemon(Options::default());
    daemon.load();
    let alone = median(&daemon, BOB);
    let mut body = question("Hello!");
    body["max_tokens"] = json!(16);
    let body = body.to_string();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                as_user(ALICE, || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = Reply::read(daemon.send("/v1/chat/completions", body.as_bytes()));
                    }
                })
            });
        }
        wait_for("the flood", || {
            daemon.status()["waiting"].as_u64() >= Some(5)
        });
        let beside = median(&daemon, BOB);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        beside
    });
    // Twelve at a time would be six turns of two; his own comes after one.
    assert!(
        beside < alone * 10 + Duration::from_secs(1),
        "{alone:?} alone, {beside:?} beside the flood"
    );
}
