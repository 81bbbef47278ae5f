//! A worker that dies, a file that lies: the daemon goes on, and says what happened.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{
    Daemon, Options, TINY, descriptors, endless, proc_kib, question, signal, tiny_models, wait_for,
};
use serde_json::json;

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";

#[test]
fn a_worker_killed_in_mid_answer_is_told_at_once_and_replaced() {
    let daemon = Daemon::start();
    let pid = daemon.load();
    let mut events = daemon.stream(&endless());
    for _ in 0..5 {
        events.next().unwrap();
    }
    let killed = Instant::now();
    signal(pid, "KILL");
    let (_, end) = events.text();
    let message = end.unwrap_err();
    assert!(message.contains("SIGKILL"), "{message}");
    assert!(
        killed.elapsed().as_millis() < 1000,
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    assert_ne!(daemon.status()["pid"], pid);
    assert_eq!(daemon.status()["crashes"], 1);
    let log = daemon.log();
    let died = log.lines().find(|line| line.contains("the worker died"));
    let named = format!("model=\"{TINY}\"");
    assert!(message.contains(TINY), "{message}");
    assert!(died.is_some_and(|line| line.contains(&named)), "{log}");
}

#[test]
fn a_file_name_or_a_worker_cannot_forge_a_line_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "x\n<3>gemmad: evil\u{1b}[2K";
    fs::write(folder.path().join(format!("{evil}.gguf")), "no model").unwrap();
    let model = folder.path().join("m.gguf");
    fs::copy(tiny_models().join(format!("{TINY}.gguf")), model).unwrap();
    let worker = folder.path().join("worker");
    fs::write(
        &worker,
        "#!/bin/sh\nprintf 'bad\\r<3>\\033[2Kevil\\n<3>evil\\n' >&2; exit 1\n",
    )
    .unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        inference: format!("worker = \"{}\"", worker.display()),
        ..Options::default()
    });
    assert_ne!(daemon.chat(&question(FRANCE)).status, 200);
    let log = daemon.log();
    assert!(log.contains("x\\n<3>gemmad: evil"), "{log}");
    assert!(log.contains("bad\\r<3>\\u{1b}[2Kevil"), "{log}");
    assert!(!log.replace('\n', "").contains(char::is_control), "{log:?}");
    let levels = ["ERROR", "WARN", "INFO", "DEBUG"];
    for line in log.lines() {
        let line = line.trim_start();
        assert!(levels.iter().any(|level| line.starts_with(level)), "{line}");
    }

    let config = folder.path().join(evil);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("gemmad: ") && said.contains("x\\n<3>gemmad: evil\\u{1b}[2K"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_hundred_kills_lose_nothing_else_and_leak_nothing() {
    let daemon = Daemon::with(Options {
        inference: "slots = 1".into(),
        ..Options::default()
    });
    let kill_one = || {
        let mut victim = daemon.stream(&endless());
        victim.next().unwrap();
        victim.next().unwrap();
        // One that waits behind it, and so has not begun.
        let waiting = daemon.send(
            "/v1/chat/completions",
            question(FRANCE).to_string().as_bytes(),
        );
        wait_for("the second request to wait", || {
            daemon.status()["waiting"] == 1
        });
        signal(daemon.status()["pid"].as_u64().unwrap() as u32, "KILL");
        assert!(victim.text().1.unwrap_err().contains("SIGKILL"));
        assert_eq!(harness::Reply::read(waiting).unwrap().content(), PARIS);
    };
    for _ in 0..5 {
        kill_one();
    }
    let before = (
        descriptors(daemon.pid()),
        proc_kib(daemon.pid(), "status", "RssAnon"),
    );
    for _ in 0..95 {
        kill_one();
    }
    wait_for("descriptors to be closed", || {
        descriptors(daemon.pid()) <= before.0
    });
    let anon = proc_kib(daemon.pid(), "status", "RssAnon");
    assert!(
        anon <= before.1 + 512,
        "RssAnon grew from {} to {anon} KiB",
        before.1
    );
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
    assert_eq!(
        children.split_whitespace().count(),
        1,
        "only the last worker is left, and no zombie: {children}"
    );
    assert_eq!(daemon.status()["crashes"], 100);
}

#[test]
fn a_request_that_had_not_begun_is_retried_unseen() {
    let daemon = Daemon::start();
    let pid = daemon.load();
    // Stopped, the worker takes the request and says nothing.
    signal(pid, "STOP");
    let waiting = daemon.send(
        "/v1/chat/completions",
        question(FRANCE).to_string().as_bytes(),
    );
    wait_for("the request to reach the worker", || {
        daemon.status()["running"] == 1
    });
    signal(pid, "KILL");
    assert_eq!(harness::Reply::read(waiting).unwrap().content(), PARIS);
}

#[test]
fn a_whole_answer_is_begun_anew_unseen_when_its_worker_is_killed() {
    let daemon = Daemon::with(Options {
        inference: "slots = 2".into(),
        ..Options::default()
    });
    let pid = daemon.load();
    let mut body = endless();
    body["temperature"] = json!(0.0);
    body["max_tokens"] = json!(1500);
    let whole = daemon.send("/v1/chat/completions", body.to_string().as_bytes());
    wait_for("the whole answer to have a slot", || {
        daemon.status()["running"] == 1
    });
    // Both slots take part in each step: while this one is streamed the other answer goes on.
    let mut events = daemon.stream(&endless());
    for _ in 0..20 {
        events.next().unwrap();
    }
    assert_eq!(daemon.status()["running"], 2, "neither is at its end");
    signal(pid, "KILL");
    assert!(events.text().1.unwrap_err().contains("SIGKILL"));
    let reply = harness::Reply::read(whole).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert_eq!(answer["usage"]["completion_tokens"], 1500);
    let content = reply.content();
    assert!(content.starts_with(PARIS), "{content}");
    // What the first worker had said is not in it.
    assert_eq!(daemon.chat(&body).content(), content);
    assert_eq!(daemon.status()["crashes"], 1);
}

#[test]
fn a_worker_that_is_stopped_is_replaced_and_what_had_not_begun_is_answered() {
    let daemon = Daemon::with(Options {
        inference: "slots = 1".into(),
        limits: "worker-silence = \"2s\"".into(),
        ..Options::default()
    });
    let pid = daemon.load();
    let mut events = daemon.stream(&endless());
    for _ in 0..3 {
        events.next().unwrap();
    }
    let waiting = daemon.send(
        "/v1/chat/completions",
        question(FRANCE).to_string().as_bytes(),
    );
    wait_for("the second request to wait", || {
        daemon.status()["waiting"] == 1
    });
    signal(pid, "STOP");
    let message = events.text().1.unwrap_err();
    assert!(message.contains("computed nothing for"), "{message}");
    assert_eq!(harness::Reply::read(waiting).unwrap().content(), PARIS);
    assert_ne!(daemon.status()["pid"], pid);
    assert_eq!(daemon.status()["crashes"], 1);
    assert_eq!(daemon.get("/health").status, 200);
}

/// Stops one thread of a process, while the others go on. It stands still for as long as this
/// lives, or until it is killed.
struct StoppedThread(Child);

impl StoppedThread {
    /// `None` where that may not be done.
    fn stop(pid: u32, name: &str) -> Option<Self> {
        // PTRACE_SEIZE, PTRACE_INTERRUPT; then __WALL: who debugs a thread has to see it die.
        let script = "import ctypes, os, sys
pid, name = sys.argv[1:]
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
[thread] = [t for t in os.listdir(f'/proc/{pid}/task') if open(f'/proc/{pid}/task/{t}/comm').read().strip() == name]
for request in 0x4206, 0x4207:
    if ptrace(request, int(thread), None, None) < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
print('stopped', flush=True)
while os.WIFSTOPPED(os.waitpid(int(thread), 0x40000000)[1]):
    pass";
        let mut python = Command::new("python3")
            .args(["-c", script, &pid.to_string(), name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(python.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        let stopped = Self(python);
        (said == "stopped\n").then_some(stopped)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_encoder_that_hangs_is_seen_beside_a_decoder_that_does_not() {
    let daemon = Daemon::with(Options {
        inference: "slots = 2".into(),
        limits: "worker-silence = \"2s\"".into(),
        ..Options::default()
    });
    let pid = daemon.load();
    let Some(_stopped) = StoppedThread::stop(pid, "encoder") else {
        harness::skip::skip(
            "that an encoder that hangs is seen",
            "this process may not debug others",
        );
        return;
    };
    let picture = STANDARD.encode(include_bytes!("data/pictures/red-circle.png"));
    let url = format!("data:image/png;base64,{picture}");
    let parts = json!([
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is in the picture?"}
    ]);
    let asked = json!({"model": TINY, "messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 40});
    let seen = daemon.send("/v1/chat/completions", asked.to_string().as_bytes());
    wait_for("the picture to have a slot", || {
        daemon.status()["running"] == 1
    });
    // Others are answered meanwhile, by the same worker.
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    assert_eq!(daemon.status()["crashes"], 0);
    let seen = harness::Reply::read(seen).unwrap().content();
    assert!(seen.contains("red") && seen.contains("circle"), "{seen}");
    assert_eq!(daemon.status()["crashes"], 1);
    assert_ne!(daemon.status()["pid"], pid);
    let log = daemon.log();
    assert!(
        log.contains("its encoder of pictures and sounds does nothing"),
        "{log}"
    );
}

#[test]
fn a_model_that_aborts_llama_cpp_costs_the_requests_for_another_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bad", "good"] {
        spoil(dir.path(), name, |_| {});
    }
    // Aborts for as long as there is a file `fail`; which model it is for only the real one knows.
    let worker = dir.path().join("worker");
    let real = env!("CARGO_BIN_EXE_gemmad-worker");
    let script = format!(
        "#!/bin/sh\nif [ -e {0}/fail ]; then\necho '/b/ggml/src/ggml.c:1712: GGML_ASSERT(a) failed' >&2\nkill -ABRT $$\nfi\nexec {real} \"$@\"\n",
        dir.path().display()
    );
    fs::write(&worker, script).unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        models: dir.path().into(),
        inference: format!("worker = \"{}\"", worker.display()),
        ..Options::default()
    });
    let ask = |model: &str| {
        let mut body = question(FRANCE);
        body["model"] = json!(model);
        daemon.chat(&body)
    };
    fs::write(dir.path().join("fail"), "").unwrap();
    let first = ask("bad");
    assert_eq!(first.status, 500, "{}", first.text());
    let message = first.error();
    assert!(
        message.contains("`bad`") && message.contains("GGML_ASSERT(a) failed"),
        "{message}"
    );
    assert!(!message.contains("ggml.c"), "{message}");
    fs::remove_file(dir.path().join("fail")).unwrap();
    assert_eq!(ask("good").content(), PARIS);
    assert_eq!(daemon.status()["model"], "good");
}

#[test]
fn a_worker_that_always_dies_is_backed_off_from_and_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let worker = dir.path().join("worker");
    fs::write(
        &worker,
        "#!/bin/sh\necho 'the sky fell' >&2\nkill -SEGV $$\n",
    )
    .unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        inference: format!("worker = \"{}\"", worker.display()),
        ..Options::default()
    });
    let first = daemon.chat(&question(FRANCE));
    assert_eq!(first.status, 500, "{}", first.text());
    assert!(
        first.error().contains("SIGSEGV") && first.error().contains("the sky fell"),
        "{}",
        first.error()
    );
    let second = daemon.chat(&question(FRANCE));
    assert_eq!(second.status, 503, "{}", second.text());
    assert!(
        second
            .header("retry-after")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            >= 1
    );
    assert!(
        second.error().contains("the sky fell"),
        "{}",
        second.error()
    );
    assert_eq!(daemon.get("/health").status, 503);
    assert_eq!(daemon.status()["state"], "backing_off");
}

#[test]
fn descriptors_that_run_out_for_a_while_delay_a_start_and_blame_nobody() {
    let daemon = Daemon::start();
    let body = question(FRANCE).to_string();
    // Is accepted before there are none left.
    let mut client = daemon.connect();
    client
        .write_all(b"POST /v1/chat/completions HTTP/1.1\r\n")
        .unwrap();
    let limited = |limit: &str| {
        let pid = daemon.pid().to_string();
        let set = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={limit}")])
            .status();
        assert!(set.unwrap().success());
    };
    let before = descriptors(daemon.pid());
    wait_for("the connection", || daemon.status()["state"] == "cold");
    limited(&format!("{}:", before + 1));
    let head = format!(
        "host: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(body.as_bytes()).unwrap();
    wait_for("the shortage", || {
        daemon.log().contains("no worker can be started now")
    });
    limited("1024:");
    assert_eq!(harness::Reply::read(client).unwrap().content(), PARIS);
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn a_missing_worker_program_is_named() {
    let daemon = Daemon::with(Options {
        inference: "worker = \"/nonexistent/gemmad-worker\"".into(),
        ..Options::default()
    });
    let reply = daemon.chat(&question(FRANCE));
    assert!(
        reply.status >= 500 && reply.error().contains("/nonexistent/gemmad-worker"),
        "{}",
        reply.text()
    );
}

/// A copy of the tiny model with something changed.
fn spoil(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(tiny_models().join(format!("{TINY}.gguf"))).unwrap();
    change(&mut bytes);
    fs::write(dir.join(format!("{name}.gguf")), bytes).unwrap();
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

#[test]
fn bad_files_are_named_with_their_reason_and_good_ones_serve_on() {
    let dir = tempfile::tempdir().unwrap();
    spoil(dir.path(), "good", |_| {});
    fs::write(dir.path().join("text.gguf"), "this is not a model").unwrap();
    fs::write(dir.path().join("empty.gguf"), "").unwrap();
    spoil(dir.path(), "cut", |b| b.truncate(b.len() / 2));
    spoil(dir.path(), "counts", |b| {
        b[8..16].copy_from_slice(&u64::MAX.to_le_bytes())
    });
    spoil(dir.path(), "other", |b| {
        let at = find(b, b"general.architecture") + 20 + 4 + 8;
        b[at..at + 6].copy_from_slice(b"llama4");
    });
    // The header is sound; only llama.cpp sees that a tensor it needs has another name.
    spoil(dir.path(), "renamed", |b| {
        let at = find(b, b"output_norm.weight");
        b[at..at + 6].copy_from_slice(b"xutput");
    });
    let daemon = Daemon::with(Options {
        models: dir.path().into(),
        ..Options::default()
    });
    for (file, reason) in [
        ("text", "GGUF"),
        ("empty", ""),
        ("cut", ""),
        ("counts", ""),
        ("other", "llama4"),
    ] {
        let line = daemon
            .log()
            .lines()
            .find(|line| line.contains(&format!("{file}.gguf")))
            .map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{file}.gguf is not reported:\n{}", daemon.log()));
        assert!(line.contains(reason), "{line}");
        let reply = daemon.chat(&{
            let mut body = question(FRANCE);
            body["model"] = json!(file);
            body
        });
        assert_eq!(reply.status, 404, "{file}: {}", reply.text());
    }
    let mut body = question(FRANCE);
    body["model"] = json!("renamed");
    let reply = daemon.chat(&body);
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(
        reply.error().contains("renamed") && reply.error().contains("output_norm"),
        "{}",
        reply.error()
    );
    body["model"] = json!("good");
    assert_eq!(daemon.chat(&body).content(), PARIS);
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn a_file_without_its_chat_template_gets_the_familys_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    spoil(dir.path(), "bare", |b| {
        let at = find(b, b"tokenizer.chat_template");
        b[at..at + 9].copy_from_slice(b"forgotten");
    });
    let daemon = Daemon::with(Options {
        models: dir.path().into(),
        ..Options::default()
    });
    daemon.load();
    let note = daemon.status()["template"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(note.contains("has none"), "{note}");
    assert!(daemon.log().contains(&note));
    assert_eq!(daemon.chat(&question(FRANCE)).status, 200);
    let good = Daemon::start();
    good.load();
    assert_eq!(good.status()["template"], json!(null));
}

#[test]
fn a_file_spoiled_after_the_scan_is_refused_when_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    spoil(dir.path(), "model", |_| {});
    let daemon = Daemon::with(Options {
        models: dir.path().into(),
        ..Options::default()
    });
    let fresh = dir.path().join("fresh");
    fs::write(&fresh, "gone").unwrap();
    fs::rename(fresh, dir.path().join("model.gguf")).unwrap();
    let reply = daemon.chat(&question(FRANCE));
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(
        reply.error().contains("model") && reply.error().contains("GGUF"),
        "{}",
        reply.error()
    );
    spoil(dir.path(), "model", |_| {});
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
}
