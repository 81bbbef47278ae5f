//! What was said does not stay: after a request the memory of the daemon and of its worker, the log
//! and what else the daemon has on the disk are searched for every kind of text that it had.

mod harness;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD};
use harness::{Daemon, Options, endless, question, signal, skip::skip, wait_for};
use serde_json::{Value, json};

/// The worker keeps the grammars that it compiled last, and each has its schema as its name.
const KEPT_BY_THE_WORKER: &str = "canary-schema";
/// A connection's buffers are given back when the daemon sees that the client has gone.
const WAIT: Duration = Duration::from_secs(10);

/// A text that stands nowhere else.
fn canary(kind: &str) -> String {
    format!("canary-{kind}-flies-over-the-coal")
}

/// The ways in which a copy of `text` may be written, each with its name.
fn spellings(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let wide = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect();
    let mut all = vec![
        ("UTF-8", text.as_bytes().to_vec()),
        ("UTF-16LE", wide(u16::to_le_bytes)),
        ("UTF-16BE", wide(u16::to_be_bytes)),
    ];
    // Within a longer text it begins at any of three places of a group; characters that its
    // neighbours have a part in are left out.
    for before in 0..3 {
        let bytes = [&vec![0; before][..], text.as_bytes()].concat();
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        all.push(("base64", STANDARD_NO_PAD.encode(bytes)[own].into()));
    }
    all
}

/// Looks for texts, however they are written.
struct Search {
    machine: AhoCorasick,
    /// What each pattern is: the text, and how it is written.
    names: Vec<String>,
}

impl Search {
    fn new(texts: &[String]) -> Self {
        let all = texts.iter().flat_map(|text| {
            let named = move |(how, bytes)| (format!("{text} in {how}"), bytes);
            spellings(text).into_iter().map(named)
        });
        let (names, patterns): (Vec<String>, Vec<Vec<u8>>) = all.unzip();
        Self {
            machine: AhoCorasick::new(patterns).unwrap(),
            names,
        }
    }

    fn bytes(&self, bytes: &[u8]) -> BTreeSet<String> {
        let hits = self.machine.find_overlapping_iter(bytes);
        hits.map(|hit| self.names[hit.pattern().as_usize()].clone())
            .collect()
    }

    /// What is in the memory that process `pid` can write, which is where copies are.
    fn memory(&self, pid: u32) -> BTreeSet<String> {
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut found = BTreeSet::new();
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
            let mut bytes = vec![0; (end - start) as usize];
            // A map that has gone meanwhile has nothing to find.
            if memory.read_exact_at(&mut bytes, start).is_ok() {
                found.extend(self.bytes(&bytes));
            }
        }
        found
    }

    /// What is in files without a name that process `pid` has open, which are memory or disk that can be swapped and copied, and in what
    /// it was started with.
    fn unnamed(&self, pid: u32) -> BTreeSet<String> {
        let process = Path::new("/proc").join(pid.to_string());
        let mut found = BTreeSet::new();
        for name in ["cmdline", "environ"] {
            found.extend(self.bytes(&fs::read(process.join(name)).unwrap()));
        }
        for entry in fs::read_dir(process.join("fd")).unwrap() {
            let path = entry.unwrap().path();
            // Closed meanwhile.
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            let target = target.to_string_lossy();
            if target.starts_with("/memfd:") || target.ends_with(" (deleted)") {
                found.extend(self.bytes(&fs::read(&path).unwrap()));
            }
        }
        found
    }

    /// What is in the files below `folder`: log, state and cache of a test's daemon.
    fn files(&self, folder: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                found.extend(self.files(&path));
            } else if kind.is_file() {
                match fs::read(&path) {
                    Ok(bytes) => found.extend(self.bytes(&bytes)),
                    // Gone meanwhile, or under the name that it has now that it is whole.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
        found
    }
}

/// A JPEG with a comment, which has no sum to be right (ITU-T T.81, B.2.4.5).
fn commented(picture: &[u8], comment: &str) -> Vec<u8> {
    let length = u16::try_from(2 + comment.len()).unwrap().to_be_bytes();
    let segment = [&[0xff, 0xfe], &length[..], comment.as_bytes()].concat();
    [&picture[..2], &segment, &picture[2..]].concat()
}

/// A WAV file with a chunk that readers pass over.
fn annotated(sound: &[u8], note: &str) -> Vec<u8> {
    let length = u32::try_from(note.len()).unwrap().to_le_bytes();
    let mut chunk = [&b"note"[..], &length, note.as_bytes()].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    let all = u32::try_from(sound.len() + chunk.len() - 8).unwrap();
    let start = [&sound[..4], &all.to_le_bytes(), &sound[8..12]].concat();
    [&start[..], &chunk, &sound[12..]].concat()
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
    ask(
        "/api/chat",
        json!({"model": "auto", "stream": false, "options": {"num_predict": 4},
            "messages": [{"role": "user", "content": canary("ollama")}]}),
    );
    let file = format!(
        "data:text/plain;base64,{}",
        BASE64_STANDARD.encode(canary("file"))
    );
    ask(
        "/v1/chat/completions",
        json!({"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": [
            {"type": "file", "file": {"filename": "a.txt", "file_data": file}}]}]}),
    );
    let page = format!("<title>{0}</title><p>{0}", canary("page"));
    let page = format!("data:text/html;base64,{}", BASE64_STANDARD.encode(page));
    let picture = include_bytes!("data/pictures/progressive.jpg");
    let picture = BASE64_STANDARD.encode(commented(picture, &canary("picture")));
    let sound = include_bytes!("data/sounds/tone-1.wav");
    let sound = BASE64_STANDARD.encode(annotated(sound, &canary("sound")));
    ask(
        "/v1/chat/completions",
        json!({"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": [
            {"type": "file", "file": {"filename": "a.html", "file_data": page}},
            {"type": "image_url", "image_url": {"url": format!("data:image/jpeg;base64,{picture}")}},
            {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}]}]}),
    );
    let stored = ask(
        "/v1/responses",
        json!({"model": "auto", "max_output_tokens": 4, "store": true, "input": canary("deleted")}),
    );
    let id = stored.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.delete(&format!("/v1/responses/{id}")).status, 200);
    // Long enough for the buffers of the channel to grow.
    let long = canary("long").repeat(2000);
    ask("/tokenize", json!({"content": long}));
    let answer = daemon
        .chat(&question("What is the capital of France?"))
        .content();
    assert!(answer.len() > 12, "{answer:?} may stand anywhere");
    let kinds = [
        "system", "user", "thought", "call", "result", "tool", "schema", "prompt", "tokens",
        "input", "message", "ollama", "file", "page", "picture", "sound", "deleted", "long",
    ];
    kinds.into_iter().map(canary).chain([answer]).collect()
}

#[test]
fn nothing_that_was_said_stays_in_memory() {
    let daemon = Daemon::start();
    let worker = daemon.load();
    let search = Search::new(&say_everything(&daemon));
    for (program, pid) in [("gemmad", daemon.pid()), ("gemmad-worker", worker)] {
        if let Err(error) = File::open(format!("/proc/{pid}/mem")) {
            skip(&format!("what stays in the memory of {program}"), error);
            continue;
        }
        let everywhere = || &search.memory(pid) | &search.unnamed(pid);
        let mut found = everywhere();
        for _ in 0..100 {
            if program == "gemmad-worker" {
                found.retain(|text| !text.starts_with(KEPT_BY_THE_WORKER));
            }
            if found.is_empty() {
                break;
            }
            thread::sleep(WAIT / 100);
            found = everywhere();
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
    let search = Search::new(&[canary("kept")]);
    assert!(!search.memory(daemon.pid()).is_empty());
}

#[test]
fn nothing_that_was_said_is_on_the_disk() {
    let audit = tempfile::tempdir().unwrap();
    let audit_log = audit.path().join("audit.log");
    let daemon = Daemon::with(Options {
        audit: format!("log = \"{}\"\n", audit_log.display()),
        ..Options::default()
    });
    let mut texts = say_everything(&daemon);
    // Workers that end in the middle of an answer: one would leave a core, the other is how one ends for which there is no memory.
    for how in ["ABRT", "KILL"] {
        let worker = daemon.load();
        let mut request = endless();
        request["messages"][0]["content"] = json!(canary(how));
        let mut answer = daemon.stream(&request);
        assert_eq!(answer.by_ref().take(3).count(), 3);
        signal(worker, how);
        assert!(answer.text().1.is_err());
        wait_for("the end of the worker", || {
            !Path::new(&format!("/proc/{worker}")).exists()
        });
        texts.push(canary(how));
        daemon.signal("HUP");
        // Answered after the reload, and by another worker.
        assert_ne!(daemon.load(), worker);
    }
    let search = Search::new(&texts);
    // The folder is the one that is written to.
    let log = daemon.log();
    assert!(log.contains("serving"), "{log}");
    let found = search.files(daemon.dir.path());
    assert!(found.is_empty(), "on the disk: {found:?}");
    assert!(fs::metadata(&audit_log).unwrap().len() > 0);
    let found = search.files(audit.path());
    assert!(found.is_empty(), "in the audit log: {found:?}");

    // And the search finds what does lie there.
    fs::create_dir(daemon.dir.path().join("planted")).unwrap();
    let planted = canary("ABRT");
    fs::write(daemon.dir.path().join("planted/file"), &planted).unwrap();
    let found = search.files(daemon.dir.path());
    assert_eq!(found, [format!("{planted} in UTF-8")].into());
}

#[test]
fn the_search_finds_each_spelling_in_another_process() {
    // It keeps all lines in memory until the last has come.
    let mut child = Command::new("sort")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let planted = canary("planted");
    let search = Search::new(std::slice::from_ref(&planted));
    let mut input = child.stdin.take().unwrap();
    for (_, bytes) in spellings(&planted) {
        input.write_all(&bytes).unwrap();
        input.write_all(b"\n").unwrap();
    }
    if File::open(format!("/proc/{}/mem", child.id())).is_err() {
        skip("that the search finds each spelling", "not permitted");
    } else {
        let all: BTreeSet<String> = search.names.iter().cloned().collect();
        wait_for("every spelling", || search.memory(child.id()) == all);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn base64_is_found_wherever_it_begins() {
    let text = canary("shifted");
    let search = Search::new(std::slice::from_ref(&text));
    for before in ["", "a", "ab", "abc"] {
        let longer = BASE64_STANDARD.encode(format!("{before}{text} and more"));
        let found = search.bytes(longer.as_bytes());
        assert_eq!(found, [format!("{text} in base64")].into(), "{before:?}");
    }
}
