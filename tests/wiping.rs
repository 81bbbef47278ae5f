//! What was said does not stay in memory: after a request the daemon and its worker are searched
//! for every kind of text that it had.

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use aho_corasick::AhoCorasick;
use harness::{Daemon, question, skip::skip};
use serde_json::{Value, json};

/// The worker keeps the grammars that it compiled last, and each has its schema as its name.
const KEPT_BY_THE_WORKER: &str = "canary-schema";
/// A connection's buffers are given back when the daemon sees that the client has gone.
const WAIT: Duration = Duration::from_secs(10);

/// A text that stands nowhere else.
fn canary(kind: &str) -> String {
    format!("canary-{kind}-flies-over-the-coal")
}

/// Which of `texts` are in the memory that process `pid` can write, which is where copies are.
fn left_behind(pid: u32, texts: &[String]) -> Vec<&str> {
    let search = AhoCorasick::new(texts).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = vec![];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut bytes = vec![0; (end - start) as usize];
        // A map that has gone meanwhile has nothing to find.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            found.extend(
                search
                    .find_iter(&bytes)
                    .map(|hit| texts[hit.pattern().as_usize()].as_str()),
            );
        }
    }
    found
}

/// Sends every kind of text that a request can have; returns the texts, answers included.
fn say_everything(daemon: &Daemon) -> Vec<String> {
    let ask = |path: &str, body: Value| {
        let reply = daemon.post(path, &body);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply
    };
    let call = json!({"at": canary("call")}).to_string();
    let parameters = json!({"type": "object",
        "properties": {"at": {"type": "string", "description": canary("schema")}}});
    ask(
        "/v1/chat/completions",
        json!({"model": "auto", "max_tokens": 4, "messages": [
            {"role": "system", "content": canary("system")},
            {"role": "user", "content": canary("user")},
            {"role": "assistant", "reasoning_content": canary("thought"), "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": call}}]},
            {"role": "tool", "tool_call_id": "a", "content": canary("result")},
        ], "tools": [{"type": "function", "function": {"name": "look",
            "description": canary("tool"), "parameters": parameters}}]}),
    );
    ask(
        "/v1/completions",
        json!({"model": "auto", "max_tokens": 4, "prompt": canary("prompt")}),
    );
    ask("/tokenize", json!({"content": canary("tokens")}));
    ask(
        "/v1/responses",
        json!({"model": "auto", "max_output_tokens": 4, "store": false, "input": canary("input")}),
    );
    ask(
        "/v1/messages",
        json!({"model": "auto", "max_tokens": 4,
            "messages": [{"role": "user", "content": canary("message")}]}),
    );
    // Long enough for the buffers of the channel to grow.
    let long = canary("long").repeat(2000);
    ask("/tokenize", json!({"content": long}));
    let answer = daemon
        .chat(&question("What is the capital of France?"))
        .content();
    assert!(answer.len() > 12, "{answer:?} may stand anywhere");
    let kinds = [
        "system", "user", "thought", "call", "result", "tool", "schema", "prompt", "tokens",
        "input", "message", "long",
    ];
    kinds.into_iter().map(canary).chain([answer]).collect()
}

#[test]
fn nothing_that_was_said_stays_in_memory() {
    let daemon = Daemon::start();
    let worker = daemon.load();
    let texts = say_everything(&daemon);
    for (program, pid) in [("gemmad", daemon.pid()), ("gemmad-worker", worker)] {
        if let Err(error) = File::open(format!("/proc/{pid}/mem")) {
            skip(&format!("what stays in the memory of {program}"), error);
            continue;
        }
        let mut found = left_behind(pid, &texts);
        for _ in 0..100 {
            if program == "gemmad-worker" {
                found.retain(|text| !text.starts_with(KEPT_BY_THE_WORKER));
            }
            if found.is_empty() {
                break;
            }
            thread::sleep(WAIT / 100);
            found = left_behind(pid, &texts);
        }
        assert!(found.is_empty(), "{program} still has {found:?}");
    }
}

#[test]
fn the_search_finds_what_is_there() {
    let daemon = Daemon::start();
    let kept =
        json!({"model": "auto", "store": true, "max_output_tokens": 4, "input": canary("kept")});
    assert_eq!(daemon.post("/v1/responses", &kept).status, 200);
    if File::open(format!("/proc/{}/mem", daemon.pid())).is_err() {
        skip("that the search of memory finds something", "not permitted");
        return;
    }
    // A response is kept when its request says so.
    let texts = [canary("kept")];
    assert!(!left_behind(daemon.pid(), &texts).is_empty());
}
