//! What a client hears while its request waits, its model loads, its prompt is read.

mod harness;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gemmad::ipc::{Greeting, ServeEvent, frame};
use harness::{Daemon, Events, Options, Reply, endless, question, wait_for};
use serde_json::{Value, json};

fn one_slot() -> Daemon {
    Daemon::with(Options {
        inference: "slots = 1\ncontext = 4096\nbatch = 64".into(),
        ..Options::default()
    })
}

/// A prompt that takes the tiny model a while.
fn long() -> Value {
    let mut body = question(&"word ".repeat(3000));
    body["cache_prompt"] = json!(false);
    body["max_tokens"] = json!(3);
    body["stream"] = json!(true);
    body
}

fn chunks(events: Events) -> Vec<Value> {
    assert_eq!(events.status, 200);
    let data = events.take_while(|data| data != "[DONE]");
    data.map(|data| serde_json::from_str(&data).unwrap())
        .collect()
}

fn sent(daemon: &Daemon, path: &str, body: &Value) -> Events {
    Events::read(daemon.send(path, body.to_string().as_bytes()))
}

/// The phases that a stream tells of, each once.
fn phases(chunks: &[Value]) -> Vec<&str> {
    let mut phases: Vec<_> = chunks
        .iter()
        .filter_map(|chunk| chunk["progress"]["phase"].as_str())
        .collect();
    phases.dedup();
    phases
}

/// Of a prompt in llama.cpp's form; the end is told, and it never goes back.
fn check_prompt(told: &[&Value]) {
    let numbers = |field: &'static str| told.iter().map(move |one| one[field].as_u64().unwrap());
    let total = told[0]["total"].as_u64().unwrap();
    assert!(total > 3000 && numbers("total").all(|one| one == total));
    assert!(numbers("processed").is_sorted() && numbers("time_ms").is_sorted());
    let (first, last) = (told[0], told.last().unwrap());
    assert_eq!(
        (&first["cache"], &first["processed"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(last["processed"], total);
}

#[test]
fn a_stream_tells_how_far_its_request_is_if_it_is_asked_to() {
    let daemon = one_slot();
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let mut body = long();
    body["stream_options"] = json!({"include_progress": true});
    body["return_progress"] = json!(true);
    let asked = daemon.send("/v1/chat/completions", body.to_string().as_bytes());
    wait_for("the second to wait", || daemon.status()["waiting"] == 1);
    let silent = daemon.send("/v1/chat/completions", long().to_string().as_bytes());
    wait_for("the third to wait", || daemon.status()["waiting"] == 2);
    let queue = daemon.status()["queue"].clone();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(
        (&queue["users"][0]["uid"], &queue["users"][0]["waiting"]),
        (&json!(own), &json!(2)),
        "{queue}"
    );
    assert!(queue["users"][0]["longest_wait_s"].as_f64().unwrap() > 0.0);
    std::thread::sleep(Duration::from_millis(1200));
    drop(running);

    let told = chunks(Events::read(asked));
    assert_eq!(phases(&told), ["queued", "reading"], "{told:?}");
    let ours: Vec<_> = told
        .iter()
        .filter(|one| one.get("progress").is_some())
        .collect();
    assert_eq!(ours[0]["progress"]["position"], 1);
    assert!(ours.iter().all(|one| one["choices"] == json!([])));
    let last = &ours.last().unwrap()["progress"];
    assert_eq!(last["tokens_read"], last["tokens_to_read"]);
    assert_eq!(
        (&last["tokens_cached"], &last["seconds_left"]),
        (&json!(0), &json!(0.0))
    );
    let known = |one: &&&Value| one["progress"]["seconds_left"].as_f64().is_some();
    assert!(ours.iter().filter(known).count() > 1, "{ours:?}");
    // One answer, of which nothing is told once it has begun.
    let id = &told[0]["id"];
    assert!(told.iter().all(|one| one["id"] == *id));
    let begins = |one: &Value| one["choices"][0]["delta"]["content"] == "";
    let begun = told.iter().position(begins).unwrap();
    let says = |one: &Value| one.get("progress").or(one.get("prompt_progress")).is_some();
    assert!(told[..begun].iter().all(says) && !told[begun..].iter().any(says));
    let theirs = told.iter().filter_map(|one| one.get("prompt_progress"));
    check_prompt(&theirs.collect::<Vec<_>>());

    let told = chunks(Events::read(silent));
    assert!(!told.is_empty() && !told.iter().any(says));
}

#[test]
fn every_api_tells_it_in_its_own_form() {
    let daemon = one_slot();
    daemon.load();
    let words = "word ".repeat(3000);
    let told = chunks(sent(
        &daemon,
        "/completion",
        &json!({"prompt": words, "n_predict": 2, "stream": true, "return_progress": true, "cache_prompt": false}),
    ));
    let (progress, rest): (Vec<_>, Vec<_>) = told
        .iter()
        .partition(|one| one.get("prompt_progress").is_some());
    assert!(
        progress
            .iter()
            .all(|one| one["content"] == "" && one["stop"] == false)
    );
    let told: Vec<_> = progress.iter().map(|one| &one["prompt_progress"]).collect();
    check_prompt(&told);
    assert_eq!(rest.last().unwrap()["stop"], true);

    let told = chunks(sent(
        &daemon,
        "/v1/completions",
        &json!({"prompt": words, "max_tokens": 2, "stream": true, "return_progress": true, "cache_prompt": false}),
    ));
    let told = told.iter().filter_map(|one| one.get("prompt_progress"));
    check_prompt(&told.collect::<Vec<_>>());

    let named = json!({"include_progress": true});
    for (path, body, first, last) in [
        (
            "/v1/responses",
            json!({"input": words, "max_output_tokens": 2, "stream": true, "stream_options": named, "cache_prompt": false}),
            [
                "response.created",
                "gemmad.progress",
                "response.in_progress",
            ],
            "response.incomplete",
        ),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": format!("Other {words}")}], "max_tokens": 2, "stream": true, "stream_options": named}),
            ["gemmad.progress", "message_start", "content_block_start"],
            "message_stop",
        ),
    ] {
        let told = chunks(sent(&daemon, path, &body));
        assert_eq!(phases(&told).last(), Some(&"reading"), "{told:?}");
        let types = told.iter().map(|one| one["type"].as_str().unwrap());
        let mut types: Vec<_> = types.collect();
        types.dedup();
        assert_eq!(types[..3], first);
        assert_eq!(types.last(), Some(&last));
    }
}

#[test]
fn an_answer_that_is_sent_whole_has_signs_of_life_in_front_if_that_is_preferred() {
    let daemon = one_slot();
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let ask = |path: &str, body: &Value, prefer: &str| {
        let body = body.to_string();
        let mut stream = daemon.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nprefer: {prefer}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    };
    let france = question("What is the capital of France?");
    let mut long = question(&"word ".repeat(9000));
    long["max_tokens"] = json!(1);
    let good = ask("/v1/chat/completions", &france, "wait=100, heartbeat=1");
    let bad = ask("/v1/chat/completions", &long, "heartbeat=1");
    wait_for("both to wait", || daemon.status()["waiting"] == 2);
    std::thread::sleep(Duration::from_millis(2500));
    drop(running);
    let good = Reply::read(good).unwrap();
    assert_eq!(good.header("preference-applied"), Some("heartbeat=1"));
    assert_eq!(good.header("content-type"), Some("application/json"));
    let blanks = good.body.iter().take_while(|byte| **byte == b' ').count();
    assert!((2..=6).contains(&blanks), "{}", good.text());
    assert_eq!(good.content(), "The capital of France is Paris.");
    let bad = Reply::read(bad).unwrap();
    assert_eq!((bad.status, &bad.body[..1]), (200, &b" "[..]));
    assert!(bad.error().starts_with("prompt is too long"));
    // What is answered at once has its own status, and nothing was to be applied.
    let quick = Reply::read(ask("/v1/chat/completions", &long, "heartbeat=1")).unwrap();
    assert_eq!(
        (quick.status, quick.header("preference-applied")),
        (400, None)
    );
    let quick = Reply::read(ask("/v1/chat/completions", &france, "heartbeat=1")).unwrap();
    assert_eq!(quick.header("preference-applied"), None);
    assert_eq!(quick.content(), "The capital of France is Paris.");
}

#[test]
fn what_goes_wrong_behind_the_headers_is_an_event_of_each_api() {
    let daemon = one_slot();
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let words = "word ".repeat(9000);
    let options = json!({"include_progress": true});
    let asked: Vec<_> = [
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": words}], "stream": true, "stream_options": options})),
        ("/v1/responses", json!({"input": words, "stream": true, "stream_options": options})),
        ("/v1/messages", json!({"messages": [{"role": "user", "content": words}], "max_tokens": 5, "stream": true, "stream_options": options})),
    ]
    .into_iter()
    .map(|(path, body)| daemon.send(path, body.to_string().as_bytes()))
    .collect();
    wait_for("all to wait", || daemon.status()["waiting"] == 3);
    std::thread::sleep(Duration::from_millis(1200));
    drop(running);
    for stream in asked {
        let told = chunks(Events::read(stream));
        assert_eq!(phases(&told)[0], "queued");
        let error = &told.last().unwrap()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("prompt is too long"), "{told:?}");
    }
}

/// A worker that says how much of the weights is there, and never gets further.
#[test]
fn a_load_tells_its_share() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hello, mut share) = (vec![], vec![]);
    frame::encode(&Greeting::OURS, &mut hello).unwrap();
    for wrong in [f32::NAN, f32::INFINITY, 0.25] {
        frame::encode(&ServeEvent::Loading { share: wrong }, &mut share).unwrap();
    }
    fs::write(folder.path().join("hello"), hello).unwrap();
    fs::write(folder.path().join("share"), share).unwrap();
    let worker = folder.path().join("worker");
    let script = format!(
        "#!/bin/sh\ncd {}\ncat hello >&0\nwhile cat share >&0; do sleep 0.05; done\n",
        folder.path().display()
    );
    fs::write(&worker, script).unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        inference: format!("worker = \"{}\"", worker.display()),
        ..Options::default()
    });
    let mut body = question("x");
    body["stream_options"] = json!({"include_progress": true});
    let told = daemon
        .stream(&body)
        .map(|data| serde_json::from_str::<Value>(&data).unwrap()["progress"].clone())
        .find(|progress| progress["share"] == 0.25)
        .unwrap();
    assert_eq!(told["phase"], "loading");
    assert!(told["seconds_left"].as_f64().is_some(), "{told}");
}

#[test]
fn others_in_the_queue_are_a_number_to_those_who_are_no_administrators() {
    let daemon = Daemon::with(Options {
        server: "socket-mode = \"0666\"".into(),
        inference: "slots = 1\ncontext = 4096".into(),
        ..Options::default()
    });
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let waiting = daemon.send("/v1/chat/completions", question("x").to_string().as_bytes());
    wait_for("the second to wait", || daemon.status()["waiting"] == 1);
    let Some(seen) = daemon.ask_as_stranger("GET", "/status", "") else {
        return;
    };
    assert!(
        seen.contains(r#""queue":{"users":[],"others":1}"#),
        "{seen}"
    );
    drop((running, waiting));
}

#[test]
fn what_nobody_waits_for_is_answered_last() {
    let daemon = one_slot();
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let mut flex = question("Hi");
    flex["service_tier"] = json!("flex");
    let flex = daemon.send("/v1/chat/completions", flex.to_string().as_bytes());
    wait_for("the flex one to wait", || daemon.status()["waiting"] == 1);
    let mut whole = endless();
    whole["stream"] = json!(true);
    let asked = daemon.send("/v1/chat/completions", whole.to_string().as_bytes());
    wait_for("the other to wait", || daemon.status()["waiting"] == 2);
    drop(running);
    // It answers, while the one that came before it waits.
    let mut other = Events::read(asked);
    other.next().unwrap();
    assert_eq!(daemon.status()["waiting"], 1);
    drop(other);
    assert_eq!(Reply::read(flex).unwrap().status, 200);

    for (tier, background, told) in [
        (None, false, "default"),
        (Some("flex"), false, "flex"),
        (None, true, "flex"),
        (Some("default"), true, "default"),
        (Some("priority"), false, "default"),
    ] {
        let body = json!({"input": "Hi", "max_output_tokens": 4, "service_tier": tier, "background": background});
        let reply = daemon.post("/v1/responses", &body);
        assert_eq!(reply.json()["service_tier"], told, "{}", reply.text());
    }
}
