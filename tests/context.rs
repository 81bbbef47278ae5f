//! A request gets as much context as it needs, as far as the model and the memory go: nobody's answer is
//! disturbed by that, and it is the answer that a large context gives from the start.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use harness::cgroup::{Group, Hog};
use harness::users::{self, ALICE, BOB, as_user};
use harness::{Daemon, Options, TINY, endless, proc_kib, question, wait_for};
use serde_json::{Value, json};

/// Tokens that each slot has in any case.
const FLOOR: u64 = 1024;
const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";

/// The tiny model, made to believe that it was made for as long prompts as its elder sibling.
fn models() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        add_model(folder.path(), TINY, 131_072);
        folder
    });
    FOLDER.path()
}

/// Copies a model of the family into a folder, made to believe that it was made for `context` tokens.
fn add_model(folder: &Path, id: &str, context: u32) {
    let name = format!("{id}.gguf");
    let mut bytes = fs::read(harness::tiny_models().join(&name)).unwrap();
    let key = b"gemma4.context_length";
    let at = bytes.windows(key.len()).position(|part| part == key);
    // The value's type, then the value.
    let value = at.unwrap() + key.len() + 4;
    bytes[value..value + 4].copy_from_slice(&context.to_le_bytes());
    fs::write(folder.join(name), bytes).unwrap();
}

fn with_context(inference: &str) -> Options {
    Options {
        models: models().to_owned(),
        inference: inference.into(),
        ..Options::default()
    }
}

fn growing(more: &str) -> Options {
    with_context(&format!(
        "context = \"auto\"\nleast-context = {FLOOR}\n{more}"
    ))
}

/// A text of some 27 tokens for each line.
fn instructions(lines: usize) -> String {
    let lines = (0..lines).map(|i| format!("Rule {i}: a file of {} lines has a number.", i * 7));
    lines.collect::<Vec<_>>().join("\n")
}

fn ask(text: &str, tokens: u32) -> Value {
    json!({"model": TINY, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": tokens})
}

fn prompt_tokens(body: &Value) -> u64 {
    body["usage"]["prompt_tokens"].as_u64().unwrap()
}

fn granted(daemon: &Daemon) -> u64 {
    daemon.status()["context_granted"].as_u64().unwrap()
}

#[test]
fn a_long_prompt_is_answered_as_in_a_large_context() {
    let text = instructions(100);
    let turns = |daemon: &Daemon| {
        let mut body = ask(&text, 40);
        let first = daemon.chat(&body);
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": first.content()}));
        messages.push(json!({"role": "user", "content": FRANCE}));
        let second = daemon.chat(&body);
        assert!(prompt_tokens(&first.json()) > FLOOR, "{}", first.text());
        (first.content(), second.content(), second.json())
    };
    let large = Daemon::with(with_context("context = 8192"));
    let daemon = Daemon::with(Options {
        models_keys: "idle-release = \"4s\"\n".into(),
        ..growing("")
    });
    let worker = daemon.load();
    assert_eq!(daemon.status()["context_floor"], FLOOR);
    assert_eq!(granted(&daemon), 2 * FLOOR);
    let (expected, found) = (turns(&large), turns(&daemon));
    assert_eq!((&found.0, &found.1), (&expected.0, &expected.1));
    let cached = &found.2["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert!(cached.as_u64() > Some(FLOOR), "{}", found.2);
    assert!(granted(&daemon) > 2 * FLOOR);
    wait_for("what nobody needs to be given back", || {
        granted(&daemon) == 2 * FLOOR
    });
    let status = daemon.status();
    assert_eq!(
        (&status["pid"], &status["crashes"]),
        (&json!(worker), &json!(0))
    );
}

#[test]
fn an_answer_goes_on_beyond_what_every_slot_has() {
    let daemon = Daemon::with(growing("slots = 1"));
    daemon.load();
    let mut body = ask(&instructions(20), 1);
    let prompt = prompt_tokens(&daemon.chat(&body).json());
    assert!(prompt < FLOOR, "{prompt}");
    let tokens = FLOOR - prompt + 700;
    body["max_tokens"] = json!(tokens);
    body["ignore_eos"] = json!(true);
    let answer = daemon.chat(&body).json();
    assert_eq!(answer["usage"]["completion_tokens"], tokens);
}

#[test]
fn two_users_with_long_prompts_and_a_running_answer_disturb_each_other_no_more_than_short_ones() {
    if !users::possible("long prompts of several users") {
        return;
    }
    let daemon = users::daemon(growing("slots = 3"));
    let worker = daemon.load();
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let text = instructions(100);
    let long = |uid| as_user(uid, || daemon.chat(&ask(&text, 8)));
    let (alice, bob) = std::thread::scope(|scope| {
        let alice = scope.spawn(|| long(ALICE));
        let bob = scope.spawn(|| long(BOB));
        (alice.join().unwrap(), bob.join().unwrap())
    });
    assert_eq!(alice.content(), bob.content());
    // Nobody goes on from what is another's.
    for answer in [alice, bob] {
        let usage = &answer.json()["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert_eq!(cached.unwrap_or_default(), 0, "{usage}");
    }
    running.next().unwrap();
    drop(running);
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    assert_eq!(daemon.status()["pid"], worker);
}

#[test]
fn what_exceeds_the_ceiling_is_refused_with_both_numbers() {
    let daemon = Daemon::with(growing("most-context = 2000"));
    let reply = daemon.chat(&ask(&instructions(100), 8));
    let (code, _, message) = reply.refusal();
    assert_eq!(code, "context_length_exceeded");
    for part in ["> 2000 maximum", "`most-context`"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(daemon.status()["context"], 2000);
}

#[test]
fn no_context_grows_while_memory_is_short_and_the_error_says_so() {
    const MIB: u64 = 1 << 20;
    let Some(group) = Group::new("a context that memory bounds", 400 * MIB) else {
        return;
    };
    let daemon = Daemon::with(growing(""));
    group.admit(daemon.pid());
    let worker = daemon.load();
    let long = ask(&instructions(100), 8);
    assert_eq!(daemon.chat(&long).status, 200);
    // Less than two floors of 24 MiB.
    let _hog = Hog::leave(&group, 40 * MIB as i64);
    wait_for("what is idle to be given back", || {
        daemon.status()["memory"]["level"] == "eased" && granted(&daemon) == 2 * FLOOR
    });
    let before = proc_kib(worker, "status", "RssAnon");
    let (code, _, message) = daemon.chat(&long).refusal();
    assert_eq!(code, "context_length_exceeded");
    for part in ["> 1024 maximum", "may grow to 131072 tokens", "free memory"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(proc_kib(worker, "status", "RssAnon") <= before + 1024);
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    let status = daemon.status();
    assert_eq!(
        (&status["pid"], &status["crashes"]),
        (&json!(worker), &json!(0))
    );
}

#[test]
fn a_prompt_too_long_for_the_best_model_goes_to_one_that_can_have_the_context() {
    const LARGE: &str = "tiny-31b-q4_0";
    let folder = tempfile::tempdir().unwrap();
    add_model(folder.path(), LARGE, 2048);
    add_model(folder.path(), TINY, 131_072);
    let daemon = Daemon::with(Options {
        models: folder.path().to_owned(),
        ..growing("")
    });
    let asked = |model: &str, text: &str| {
        let mut body = ask(text, 8);
        body["model"] = json!(model);
        daemon.chat(&body)
    };
    assert_eq!(asked("auto", FRANCE).json()["model"], LARGE);
    let text = instructions(100);
    // Who has named it is told how long a prompt may be.
    let (code, _, message) = asked(LARGE, &text).refusal();
    assert_eq!(code, "context_length_exceeded");
    assert!(message.contains("> 2048 maximum"), "{message}");
    assert_eq!(daemon.status()["model"], LARGE);
    let answer = asked("auto", &text);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["model"], TINY);
    assert!(prompt_tokens(&answer.json()) > 2048, "{}", answer.text());
    // A stream is told which one it is.
    asked(LARGE, FRANCE);
    let mut body = ask(&text, 8);
    body["model"] = json!("auto");
    body["stream"] = json!(true);
    let first: Value = serde_json::from_str(&daemon.stream(&body).next().unwrap()).unwrap();
    assert_eq!(first["model"], TINY);
    // What is too long for all is refused.
    let (code, ..) = asked("auto", &"word ".repeat(140_000)).refusal();
    assert_eq!(code, "context_length_exceeded");
    assert_eq!(daemon.status()["crashes"], 0);
}
