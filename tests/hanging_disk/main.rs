//! A disk that does not answer holds up those who want what is on it, and nobody else.

#[path = "../harness/mod.rs"]
mod harness;

mod mount;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::{Daemon, Options, Reply, TINY, question, tiny_models, wait_for};
use mount::Mount;
use serde_json::{Value, json};

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";
/// What an answer may take that waits for another model's disk first, and loads its own.
const WITH_A_WAIT: Duration = Duration::from_secs(10);
/// What an answer may take of a model that is loaded.
const AT_ONCE: Duration = Duration::from_secs(2);

fn of(model: &str) -> Value {
    let mut body = question(FRANCE);
    body["model"] = json!(model);
    body
}

fn tiny() -> Vec<u8> {
    fs::read(tiny_models().join(format!("{TINY}.gguf"))).unwrap()
}

/// A daemon with a model directory that works and one on the mount, and with `environment`.
fn daemon(good: &Path, mount: &Mount, environment: &[(&str, &str)]) -> Daemon {
    let two = format!("{}\", \"{}", good.display(), mount.path().display());
    Daemon::with_environment(
        Options {
            models: two.into(),
            models_keys: "default = \"good\"".into(),
            limits: "load-time = \"8s\"".into(),
            ..Options::default()
        },
        environment,
    )
}

fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = act();
    let took = start.elapsed();
    assert!(took < limit, "{what} took {took:?}");
    done
}

fn ask(daemon: &Daemon, model: &str) -> std::os::unix::net::UnixStream {
    daemon.send("/v1/chat/completions", of(model).to_string().as_bytes())
}

fn assert_disk_is_named(reply: &Reply, mount: &Mount) {
    let file = mount.path().join("bad.gguf").display().to_string();
    assert_eq!(reply.status, 500, "{}", reply.text());
    let error = reply.error();
    assert!(
        error.contains(&format!("the disk of {file} does not answer")),
        "{error}"
    );
}

/// Counts what the watchdog is told.
fn watchdog(socket: &Path) -> Arc<AtomicU32> {
    let (socket, beats) = (UnixDatagram::bind(socket).unwrap(), Arc::default());
    let count: Arc<AtomicU32> = Arc::clone(&beats);
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(bytes) = socket.recv(&mut message) {
            if message[..bytes].starts_with(b"WATCHDOG=1") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    beats
}

#[test]
fn others_are_served_and_those_who_want_it_are_told() {
    let Some(mount) = Mount::new("bad.gguf", tiny()) else {
        return;
    };
    let good = tempfile::tempdir().unwrap();
    fs::write(good.path().join("good.gguf"), tiny()).unwrap();
    let notified = good.path().join("notify");
    let beats = watchdog(&notified);
    let environment = [
        ("NOTIFY_SOCKET", notified.to_str().unwrap()),
        ("WATCHDOG_USEC", "400000"),
    ];
    let mut daemon = daemon(good.path(), &mount, &environment);
    assert_eq!(daemon.chat(&of("bad")).content(), PARIS);
    assert_eq!(daemon.chat(&of("good")).content(), PARIS);

    mount.hang();
    let waiting = ask(&daemon, "bad");
    wait_for("the model to be started", || {
        daemon.status()["state"] == "loading"
    });
    let before = beats.load(Ordering::Relaxed);
    within(WITH_A_WAIT, "the other model", || {
        assert_eq!(daemon.chat(&of("good")).content(), PARIS);
    });
    within(AT_ONCE, "the loaded model", || {
        assert_eq!(daemon.chat(&of("good")).content(), PARIS);
    });
    let status = within(Duration::from_secs(1), "the status", || daemon.status());
    assert_eq!(
        (&status["waiting"], &status["state"]),
        (&json!(1), &json!("ready"))
    );
    assert_disk_is_named(&Reply::read(waiting).unwrap(), &mount);
    within(AT_ONCE, "a refusal", || {
        assert_disk_is_named(&daemon.chat(&of("bad")), &mount);
    });
    let after = beats.load(Ordering::Relaxed);
    assert!(
        after >= before + 10,
        "the watchdog was fed {before}, then {after} times"
    );

    // The directories are scanned for a new name; what was known of the one that hangs stays.
    fs::write(good.path().join("new.gguf"), tiny()).unwrap();
    within(2 * WITH_A_WAIT, "a new model", || {
        assert_eq!(daemon.chat(&of("new")).content(), PARIS);
    });
    within(AT_ONCE, "an unknown name", || {
        assert_eq!(daemon.chat(&of("none")).status, 404);
    });
    let models = daemon.get("/v1/models").text();
    assert!(models.contains("\"bad\""), "{models}");

    mount.answer();
    wait_for("the disk to be heard of", || {
        let reply = daemon.chat(&of("bad"));
        reply.status == 200 && reply.content() == PARIS
    });

    // It leaves in time although a thread hangs.
    mount.hang();
    assert_eq!(daemon.chat(&of("good")).content(), PARIS);
    let _waiting = ask(&daemon, "bad");
    wait_for("the model to be started", || {
        daemon.status()["state"] == "loading"
    });
    within(Duration::from_secs(5), "the end", || {
        daemon.signal("TERM");
        assert!(daemon.wait().success());
    });
}

#[test]
fn a_model_that_is_unloaded_while_its_disk_hangs_is_given_up() {
    let Some(mount) = Mount::new("bad.gguf", tiny()) else {
        return;
    };
    let good = tempfile::tempdir().unwrap();
    let daemon = daemon(good.path(), &mount, &[]);
    mount.hang();
    let waiting = ask(&daemon, "bad");
    wait_for("the model to be started", || {
        daemon.status()["state"] == "loading"
    });
    within(AT_ONCE, "unloading", || {
        assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
    });
    // Its request loads it again, with the files that come of the first try.
    mount.answer();
    assert_eq!(Reply::read(waiting).unwrap().content(), PARIS);
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn a_directory_that_hangs_from_the_start_is_found_later() {
    let Some(mount) = Mount::new("bad.gguf", tiny()) else {
        return;
    };
    let good = tempfile::tempdir().unwrap();
    fs::write(good.path().join("good.gguf"), tiny()).unwrap();
    mount.hang();
    let daemon = daemon(good.path(), &mount, &[]);
    assert_eq!(daemon.chat(&of("good")).content(), PARIS);
    assert_eq!(daemon.chat(&of("bad")).status, 404);
    mount.answer();
    wait_for("the model to be found", || {
        daemon.get("/v1/models").text().contains("\"bad\"")
    });
    assert_eq!(daemon.chat(&of("bad")).content(), PARIS);
}
