//! Several users, one of them greedy: the others notice nothing.

mod harness;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::users::{self, ALICE, BOB, CAROL, as_user};
use harness::{Daemon, Options, Reply, TINY, endless, question, wait_for};
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

/// A FLAC file of a few bytes that takes long to decode: silence at 192 kHz on eight channels,
/// in frames of constant samples (RFC 9639).
fn slow_flac(seconds: u32) -> Vec<u8> {
    const RATE: u32 = 192_000;
    const BLOCK: u16 = 65_535;
    let crc = |bytes: &[u8], width: u32, poly: u32| {
        let (top, mask) = (1 << (width - 1), (1u64 << width) as u32 - 1);
        bytes.iter().fold(0, |crc, byte| {
            (0..8).fold(crc ^ (u32::from(*byte) << (width - 8)), |crc, _| {
                (if crc & top != 0 {
                    (crc << 1) ^ poly
                } else {
                    crc << 1
                }) & mask
            })
        })
    };
    let frames = seconds * RATE / u32::from(BLOCK);
    let mut file = b"fLaC\x80\0\0\x22".to_vec();
    file.extend([BLOCK.to_be_bytes(), BLOCK.to_be_bytes()].concat());
    file.extend([0; 6]);
    // The rate, the channels less one, the bits of a sample less one, and the number of samples.
    let samples = u64::from(frames) * u64::from(BLOCK);
    let packed = u64::from(RATE) << 44 | 7 << 41 | 15 << 36 | samples;
    file.extend(packed.to_be_bytes());
    file.extend([0; 16]);
    for number in 0..frames {
        assert!(number < 128, "a number of one byte");
        let start = file.len();
        file.extend([0xFF, 0xF8, 0x73, 0x78, number as u8]);
        file.extend((BLOCK - 1).to_be_bytes());
        file.push(crc(&file[start..], 8, 0x07) as u8);
        file.extend([0; 3 * 8]);
        let sum = crc(&file[start..], 16, 0x8005) as u16;
        file.extend(sum.to_be_bytes());
    }
    file
}

/// A request that has these sounds counted.
fn counted(sound: &[u8], how_often: usize) -> String {
    let data = STANDARD.encode(sound);
    let part = json!({"type": "input_audio", "input_audio": {"data": data, "format": "flac"}});
    let mut content = vec![part; how_often];
    content.push(json!({"type": "input_text", "text": "What do you hear?"}));
    json!({"model": TINY, "input": [{"role": "user", "content": content}]}).to_string()
}

#[test]
fn sounds_that_are_slow_to_decode_delay_others_by_a_turn() {
    if !users::possible("a user whose sounds are slow to decode") {
        return;
    }
    let daemon = users::daemon(Options::default());
    daemon.load();
    let path = "/v1/responses/input_tokens";
    let slow = counted(&slow_flac(29), 2);
    let small = include_bytes!("data/sounds/tone-1.flac");
    let small = counted(small, 1);
    let (answered, most) = (AtomicUsize::new(0), 12);
    std::thread::scope(|scope| {
        for _ in 0..most {
            scope.spawn(|| {
                let reply = as_user(ALICE, || {
                    Reply::read(daemon.send(path, slow.as_bytes())).unwrap()
                });
                answered.fetch_add(1, Ordering::Relaxed);
                assert_eq!(reply.status, 200, "{}", reply.text());
            });
        }
        wait_for("the first of many", || answered.load(Ordering::Relaxed) > 0);
        let before = answered.load(Ordering::Relaxed);
        let reply = as_user(BOB, || {
            Reply::read(daemon.send(path, small.as_bytes())).unwrap()
        });
        let meanwhile = answered.load(Ordering::Relaxed) - before;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            before + 4 < most && meanwhile <= 4,
            "{before} before, {meanwhile} meanwhile"
        );
    });
}
