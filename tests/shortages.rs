//! Nothing left of what the system gives: descriptors, threads, processes. Who asks is told to try
//! again, nobody's file is blamed, nothing hangs, and what comes after is answered.

mod harness;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::users::{self, ALICE};
use harness::{
    Daemon, Options, Reply, TINY, descriptors, question, tiny_models, wait_for, write_config,
};
use serde_json::{Value, json};

const RED: &[u8] = include_bytes!("data/pictures/red-circle.png");
const PAGE: &[u8] = b"<html><body><p>A page.</p></body></html>";

/// Requests with a picture, a page, and a picture's address.
fn attached() -> [(&'static str, Value); 3] {
    let picture = format!("data:image/png;base64,{}", STANDARD.encode(RED));
    let page = format!("data:text/html;base64,{}", STANDARD.encode(PAGE));
    let with = |part: Value| {
        let content = json!([{"type": "text", "text": "Hi"}, part]);
        json!({"model": TINY, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 4})
    };
    [
        (
            "decoded",
            with(json!({"type": "image_url", "image_url": {"url": picture}})),
        ),
        (
            "read",
            with(json!({"type": "file", "file": {"filename": "page.html", "file_data": page}})),
        ),
        (
            "fetched",
            with(json!({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}})),
        ),
    ]
}

/// That a reply says what cannot be done now, and when to ask again.
fn assert_not_now(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 503, "{what}: {}", reply.text());
    let after = reply.header("retry-after").map(str::parse::<u32>);
    assert!(matches!(after, Some(Ok(1..))), "{what}: {after:?}");
    assert_eq!(reply.json()["error"]["code"], "not_now", "{what}");
    let said = reply.error();
    assert!(said.contains(what) && said.contains("try again"), "{said}");
}

/// Sets a limit of a daemon, as the user that runs it.
fn limit(daemon: &Daemon, user: u32, limit: &str) {
    let pid = daemon.pid().to_string();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid, limit]);
    if user != rustix::process::geteuid().as_raw() {
        prlimit.uid(user).gid(user);
    }
    assert!(prlimit.status().unwrap().success(), "{limit}");
}

#[test]
fn without_descriptors_what_a_request_brings_along_is_refused_for_now() {
    let daemon = Daemon::with(Options {
        access: "fetch-from = [\"127.0.0.1\"]".into(),
        ..Options::default()
    });
    let own = rustix::process::geteuid().as_raw();
    for (what, body) in attached() {
        let body = body.to_string();
        // Is accepted before there are none left.
        let mut client = daemon.connect();
        client
            .write_all(b"POST /v1/chat/completions HTTP/1.1\r\n")
            .unwrap();
        assert_eq!(daemon.get("/health").status, 200);
        let mut open = 0;
        wait_for("the connections to be settled", || {
            let before = std::mem::replace(&mut open, descriptors(daemon.pid()));
            std::thread::sleep(Duration::from_millis(50));
            before == open
        });
        limit(&daemon, own, &format!("--nofile={open}:"));
        let head = format!(
            "host: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(body.as_bytes()).unwrap();
        let reply = Reply::read(client).unwrap();
        limit(&daemon, own, "--nofile=1024:");
        assert_not_now(&reply, what);
    }
    let [(_, picture), (_, page), _] = attached();
    for body in [picture, page] {
        let reply = daemon.chat(&body);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

#[test]
fn without_descriptors_the_models_that_are_known_stay() {
    let models = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let file = models.path().join(format!("{name}.gguf"));
        fs::copy(tiny_models().join(format!("{TINY}.gguf")), file).unwrap();
    };
    put(TINY);
    let daemon = Daemon::with(Options {
        models: models.path().into(),
        ..Options::default()
    });
    let names = || {
        let models = daemon.get("/v1/models").json();
        let models = models["data"].as_array().unwrap().iter();
        models.map(|one| one["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(), [TINY]);
    let own = rustix::process::geteuid().as_raw();
    // Those that the standard streams need, and no more.
    limit(&daemon, own, "--nofile=3:");
    put("another");
    wait_for("a scan for which nothing is left", || {
        daemon.log().contains("a model directory is scanned later")
    });
    limit(&daemon, own, "--nofile=1024:");
    assert!(names().contains(&json!(TINY)));
    assert_eq!(daemon.chat(&question("Hi")).status, 200);
    wait_for("the scan that was put off", || {
        names().contains(&json!("another"))
    });
}

#[test]
fn a_process_that_something_else_ends_says_nothing_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let worker = dir.path().join("worker");
    let script = format!(
        "#!/bin/sh\ncase $1 in serve) exec {} \"$@\";; *) kill -9 $$;; esac\n",
        env!("CARGO_BIN_EXE_gemmad-worker")
    );
    fs::write(&worker, script).unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        inference: format!("worker = \"{}\"", worker.display()),
        access: "fetch-from = [\"127.0.0.1\"]".into(),
        ..Options::default()
    });
    for (what, body) in attached() {
        let reply = daemon.chat(&body);
        assert_not_now(&reply, what);
        assert!(reply.error().contains("SIGKILL"), "{}", reply.error());
    }
    assert_eq!(daemon.chat(&question("Hi")).status, 200);
}

/// A daemon that runs as another user, with programs and models of its own.
fn run_as(user: u32, models: &Path) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        models: models.into(),
        models_keys: "default = \"one\"".into(),
        ..Options::default()
    };
    write_config(dir.path(), &options);
    for (name, from) in [
        ("gemmad", env!("CARGO_BIN_EXE_gemmad")),
        ("gemmad-worker", env!("CARGO_BIN_EXE_gemmad-worker")),
    ] {
        // The build may lie where only its owner looks.
        fs::copy(from, dir.path().join(name)).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(dir.path(), Some(user), Some(user)).unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let process = Command::new(dir.path().join("gemmad"))
        .arg("--config")
        .arg(dir.path().join("gemmad.toml"))
        .uid(user)
        .gid(user)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let socket = dir.path().join("api.sock");
    let daemon = Daemon {
        dir,
        process,
        socket,
    };
    wait_for("the daemon's socket", || {
        std::os::unix::net::UnixStream::connect(&daemon.socket).is_ok()
    });
    daemon
}

fn threads(daemon: &Daemon) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid()));
    tasks.unwrap().count()
}

/// How many it has when nothing is going on.
fn settled(daemon: &Daemon) -> usize {
    let mut before = 0;
    wait_for("threads that end", || {
        let seen = std::mem::replace(&mut before, threads(daemon));
        std::thread::sleep(Duration::from_millis(200));
        seen == before
    });
    before
}

/// A body that is not taken apart on the daemon's one thread.
fn large() -> Value {
    let mut body = question("Hi");
    body["messages"][0]["content"] = json!(" ".repeat(300 << 10));
    body
}

#[test]
fn without_threads_and_processes_nothing_hangs() {
    if !users::possible("a limit of processes, which root does not have") {
        return;
    }
    let models = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three", "four", "five"] {
        let file = models.path().join(format!("{name}.gguf"));
        fs::copy(tiny_models().join(format!("{TINY}.gguf")), file).unwrap();
    }
    fs::set_permissions(models.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = run_as(ALICE, models.path());
    let ask = |model: &str| {
        let mut body = question("Hi");
        body["model"] = json!(model);
        daemon.chat(&body)
    };

    // Neither a process nor a thread more than there is.
    let own = settled(&daemon);
    limit(&daemon, ALICE, &format!("--nproc={own}:"));
    let [(what, picture), (and, page), _] = attached();
    for (what, mut body) in [(what, picture), (and, page)] {
        body["model"] = json!("one");
        let reply = daemon.chat(&body);
        // The one of pictures may find that this model has no projector, before it is decoded.
        assert!(reply.status != 200, "{what}: {}", reply.text());
        if reply.status == 503 {
            assert_not_now(&reply, what);
        }
    }
    assert_not_now(&daemon.chat(&large()), "cannot be read");
    let begun = Instant::now();
    assert_not_now(&ask("one"), "the model cannot be loaded");
    assert!(
        begun.elapsed() > Duration::from_secs(5),
        "it was waited for"
    );
    assert_eq!(daemon.get("/health").status, 200);

    // A process, and too few threads for what it does.
    for (more, model) in [(2, "two"), (4, "three"), (6, "four")] {
        limit(&daemon, ALICE, &format!("--nproc={}:", own + more));
        let reply = ask(model);
        assert!(
            reply.status == 200 || reply.status >= 500,
            "{more} more: {}",
            reply.text()
        );
        let health = daemon.get("/health").status;
        assert!(health == 200 || daemon.status()["state"] == "backing_off");
    }

    // What was waiting when there are some again is answered.
    limit(&daemon, ALICE, &format!("--nproc={own}:"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask("five"));
        wait_for("the shortage", || {
            daemon.log().matches("no worker can be started now").count() > 1
        });
        limit(&daemon, ALICE, "--nproc=4096:");
        let reply = waiting.join().unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    });
    assert_eq!(daemon.chat(&large()).status, 200);
}
