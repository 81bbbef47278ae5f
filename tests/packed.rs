//! Packed weights on the disk, and model files that change under a running worker, as the daemon's
//! users meet them.

mod harness;
#[path = "worker/quantize.rs"]
mod quantize;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use harness::cgroup::Group;
use harness::skip;
use harness::{Daemon, Options, question, wait_for};
use quantize::{packs, quantized};
use serde_json::json;

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

/// A folder with one model whose weights are packed.
fn models() -> (tempfile::TempDir, PathBuf) {
    quantized("tiny-e2b-q8_0.gguf")
}

fn daemon(models: &Path) -> Daemon {
    Daemon::with(Options {
        models: models.to_owned(),
        ..Options::default()
    })
}

fn cached(daemon: &Daemon) -> Vec<PathBuf> {
    entries(&daemon.dir.path().join("cache"))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}

fn answers(daemon: &Daemon) {
    let reply = daemon.chat(&question(QUESTION));
    assert_eq!(
        (
            reply.status,
            reply.json()["choices"][0]["message"]["content"].as_str()
        ),
        (200, Some(ANSWER)),
        "{}",
        reply.text()
    );
}

fn unload(daemon: &Daemon) {
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
}

/// The one file of the cache, once it is there.
fn packed(daemon: &Daemon) -> PathBuf {
    wait_for("the packed weights", || cached(daemon).len() == 1);
    cached(daemon).remove(0)
}

#[test]
fn a_second_start_packs_nothing() {
    if !packs() {
        return;
    }
    let (folder, _) = models();
    let daemon = daemon(folder.path());
    answers(&daemon);
    let file = packed(&daemon);
    assert!(
        file.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("q4_0-"),
        "{}",
        file.display()
    );
    let before = file.metadata().unwrap();
    assert_eq!(before.mode() & 0o777, 0o600);
    unload(&daemon);
    answers(&daemon);
    let after = packed(&daemon).metadata().unwrap();
    assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
    assert!(!daemon.log().contains("in memory"), "{}", daemon.log());
}

#[test]
fn spoilt_weights_cost_a_start_and_no_answer() {
    if !packs() {
        return;
    }
    let (folder, _) = models();
    let daemon = daemon(folder.path());
    answers(&daemon);
    let file = packed(&daemon);
    unload(&daemon);
    let good = fs::read(&file).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all_at(&[0x5a; 100], 5000)
        .unwrap();
    answers(&daemon);
    wait_for("good weights in the file's place", || {
        fs::read(&file).is_ok_and(|now| now == good)
    });
    assert!(
        daemon.log().contains("are not what was written"),
        "{}",
        daemon.log()
    );
}

#[test]
fn two_daemons_share_a_cache() {
    if !packs() {
        return;
    }
    let (folder, _) = models();
    let shared = tempfile::tempdir().unwrap();
    let start = || {
        let daemon = daemon(folder.path());
        let config = fs::read_to_string(daemon.config()).unwrap();
        let own = daemon.dir.path().join("cache");
        fs::write(
            daemon.config(),
            config.replace(own.to_str().unwrap(), shared.path().to_str().unwrap()),
        )
        .unwrap();
        daemon.signal("HUP");
        wait_for("the new configuration", || {
            daemon.log().contains("configuration")
        });
        daemon
    };
    let (one, two) = (start(), start());
    std::thread::scope(|scope| {
        for daemon in [&one, &two] {
            scope.spawn(|| {
                for _ in 0..3 {
                    answers(daemon);
                    unload(daemon);
                }
            });
        }
    });
    answers(&one);
    wait_for("one file in the end", || entries(shared.path()).len() == 1);
    assert!(
        !one.log().contains("discarded") && !two.log().contains("discarded"),
        "{}\n{}",
        one.log(),
        two.log()
    );
}

#[test]
fn a_daemon_that_is_killed_leaves_whole_files_or_none() {
    if !packs() {
        return;
    }
    let (folder, _) = models();
    let mut first = daemon(folder.path());
    answers(&first);
    first.signal("KILL");
    first.wait();
    for file in cached(&first) {
        assert!(
            file.extension().is_some_and(|ending| ending == "packed")
                && file.metadata().unwrap().len() > 400_000,
            "{}",
            file.display()
        );
    }
}

#[test]
fn without_a_place_for_them_weights_stay_in_memory() {
    if !packs() {
        return;
    }
    let (folder, _) = models();
    let daemon = daemon(folder.path());
    fs::write(
        daemon.dir.path().join("cache"),
        b"a file where the folder should be",
    )
    .unwrap();
    answers(&daemon);
    let log = daemon.log();
    assert!(
        log.contains("packed weights stay in memory") && log.contains("cannot make"),
        "{log}"
    );
}

#[test]
fn a_model_may_be_replaced_or_deleted_while_it_is_loaded() {
    let (folder, model) = models();
    let daemon = daemon(folder.path());
    answers(&daemon);
    let other = folder.path().join("other");
    fs::copy(&model, &other).unwrap();
    let worker = || daemon.status()["pid"].as_u64();
    let first = worker();
    fs::rename(&other, &model).unwrap();
    wait_for("the old file's worker to end", || worker() != first);
    answers(&daemon);
    fs::remove_file(&model).unwrap();
    wait_for("the lost file's worker to end", || worker().is_none());
    let reply = daemon.chat(&question(QUESTION));
    // On a slow machine the daemon has noticed by now that the file is gone.
    let named = ["q4_0", "no model is installed"]
        .iter()
        .any(|told| reply.text().contains(told));
    assert!(
        reply.status >= 400 && named,
        "{} {}",
        reply.status,
        reply.text()
    );
    assert_eq!(daemon.get("/version").status, 200);
}

#[test]
fn a_model_that_is_cut_short_ends_its_worker_and_nothing_else() {
    let (folder, model) = models();
    let daemon = daemon(folder.path());
    answers(&daemon);
    let file = OpenOptions::new().write(true).open(&model).unwrap();
    file.set_len(file.metadata().unwrap().len() / 3).unwrap();
    let reply = daemon.chat(&question("What is 27 + 48?"));
    assert!(reply.status >= 500, "{} {}", reply.status, reply.text());
    wait_for("the worker's end", || daemon.log().contains("SIGBUS"));
    let reply = daemon.chat(&question(QUESTION));
    assert!(
        reply.status >= 400 && reply.text().contains("download it again"),
        "{} {}",
        reply.status,
        reply.text()
    );
    assert_eq!(daemon.get("/version").status, 200);
}

#[test]
fn a_lowered_memory_limit_costs_time_and_no_answer() {
    let (folder, _) = models();
    let daemon = daemon(folder.path());
    let Some(group) = Group::new("a lowered memory limit", 1 << 30) else {
        return;
    };
    let worker = daemon.load();
    group.admit(worker);
    answers(&daemon);
    group.set_limit(24 << 20).unwrap();
    answers(&daemon);
    assert_eq!(daemon.status()["pid"].as_u64(), Some(worker.into()));
    unload(&daemon);
}

#[test]
fn without_a_file_for_them_packed_weights_are_counted_where_they_are() {
    if !packs() {
        return;
    }
    let (folder, _) = models();
    let daemon = daemon(folder.path());
    let plan = || {
        let plan = daemon.get("/memory/plan?context=4096").json();
        let models = plan["models"].as_array().unwrap();
        let model = models.iter().find(|model| model["installed"] == true);
        (
            plan["no_packed_file"].clone(),
            model.unwrap()["plans"][0].clone(),
        )
    };
    let (why, kept) = plan();
    assert_eq!(
        (why.as_str(), &kept["packed_weights"]),
        (None, &json!("file"))
    );

    // From now on there is no folder for them.
    let cache = daemon.dir.path().join("cache");
    let _ = fs::remove_dir_all(&cache);
    fs::write(&cache, b"in the way").unwrap();
    let (why, in_memory) = plan();
    assert!(why.as_str().unwrap().contains("cannot make"), "{why}");
    assert_eq!(in_memory["packed_weights"], "memory");
    let unevictable = |plan: &serde_json::Value| plan["unevictable"].as_u64().unwrap();
    let layers = kept["parts"]["layers"].as_u64().unwrap();
    assert_eq!(unevictable(&in_memory), unevictable(&kept) + layers);
    answers(&daemon);
    assert_eq!(daemon.get("/memory").json()["packing"]["how"], "in-memory");
}
