//! Large files come over several connections, if their server sends parts of them; and over fewer where it refuses some, or sends
//! something else.

mod harness;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::hub::{FILES, Hub, REPOSITORY};
use harness::{Daemon, Events, tiny_models, wait_for};
use serde_json::{Value, json};

const LARGE: &str = "large-e2b.gguf";
const BYTES: usize = 24_000_000;

/// A hub with a model that is large: behind its last tensor a file may have what it likes.
fn hub() -> Hub {
    let hub = Hub::start();
    let path = hub.folder.path().join("files").join(LARGE);
    fs::copy(tiny_models().join(FILES[0]), &path).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let mut chance = 20_261_128u64;
    let mut bytes = vec![];
    while bytes.len() < BYTES - path.metadata().unwrap().len() as usize {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend(chance.to_le_bytes());
    }
    file.write_all(&bytes).unwrap();
    hub
}

fn asked() -> Value {
    json!({"model": format!("{REPOSITORY}:{LARGE}"), "with": []})
}

fn place(models: &Path) -> PathBuf {
    models.join("tiny--models").join(LARGE)
}

fn is_whole(hub: &Hub, models: &Path) -> bool {
    let original = fs::read(hub.folder.path().join("files").join(LARGE)).unwrap();
    fs::read(place(models)).unwrap() == original
}

fn pull(daemon: &Daemon) -> Value {
    let reply = daemon.post("/v1/models/pull", &asked());
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn begin(daemon: &Daemon) {
    let mut request = asked();
    request["stream"] = json!(true);
    let stream = daemon.send("/v1/models/pull", request.to_string().as_bytes());
    assert!(Events::read(stream).next().is_some());
}

/// Where the parts started that were sent.
fn starts(hub: &Hub) -> Vec<u64> {
    let seen = hub.seen();
    let sent = seen
        .iter()
        .filter(|asked| asked["path"].as_str().unwrap().starts_with("/cdn/"));
    let start = |asked: &Value| {
        let range = asked["range"].as_str().unwrap_or("bytes=0-");
        let range = range.strip_prefix("bytes=").unwrap();
        range.split('-').next().unwrap().parse().unwrap()
    };
    sent.map(start).collect()
}

#[test]
fn a_large_file_comes_over_several_connections() {
    let (hub, models) = (hub(), tempfile::tempdir().unwrap());
    let daemon = hub.daemon(models.path(), "connections = 3\n");
    hub.behave(json!({"pace": 0.005}));
    assert_eq!(pull(&daemon)["state"], "done");
    assert!(is_whole(&hub, models.path()));
    let beside = |asked: &Value| asked["beside"].as_u64().unwrap();
    let most = hub.seen().iter().map(beside).max();
    assert!(most.is_some_and(|most| (2..=3).contains(&most)), "{most:?}");
    // The question what it is, and one for each piece, of which some were taken over.
    let starts = starts(&hub);
    assert!((4..20).contains(&starts.len()), "{starts:?}");
    let verified = daemon.post("/models/verify", &json!({"model": pull(&daemon)["model"]}));
    assert_eq!(verified.json()["ok"], true, "{}", verified.text());
}

#[test]
fn servers_that_are_not_for_several_connections_are_asked_over_fewer() {
    let (hub, models) = (hub(), tempfile::tempdir().unwrap());
    let daemon = hub.daemon(models.path(), "");
    for behaviour in [
        json!({"most": 1, "pace": 0.001}),
        json!({"most": 2, "pace": 0.001}),
        json!({"refuse": [503, 5, 1]}),
        json!({"cut": 3_000_000}),
        json!({"whole": true}),
        json!({"other": 4096}),
        json!({"etags": true}),
        json!({"no_ranges": true}),
    ] {
        hub.behave(behaviour.clone());
        let last = pull(&daemon);
        assert_eq!(last["state"], "done", "{behaviour}: {last}");
        assert!(is_whole(&hub, models.path()), "{behaviour}");
        fs::remove_file(place(models.path())).unwrap();
    }
}

#[test]
fn a_rate_is_that_of_all_connections_together() {
    let (hub, models) = (hub(), tempfile::tempdir().unwrap());
    let daemon = hub.daemon(models.path(), "rate = \"16 MiB\"\n");
    let begin = Instant::now();
    assert_eq!(pull(&daemon)["state"], "done");
    assert!(
        begin.elapsed() > Duration::from_millis(1200),
        "{:?}",
        begin.elapsed()
    );
    assert!(is_whole(&hub, models.path()));
}

#[test]
fn a_hash_that_differs_is_found_out_whoever_brought_the_byte() {
    let (hub, models) = (hub(), tempfile::tempdir().unwrap());
    let daemon = hub.daemon(models.path(), "");
    hub.behave(json!({"flip": BYTES - 9}));
    let last = pull(&daemon);
    assert_eq!(last["state"], "failed", "{last}");
    assert!(
        last["reason"].as_str().unwrap().contains("hashes to"),
        "{last}"
    );
    assert!(!place(models.path()).exists());
}

/// `GEMMAD_KILLS`: how often it is killed.
#[test]
fn a_daemon_that_is_killed_over_several_pieces_goes_on_with_each() {
    let kills: u32 = std::env::var("GEMMAD_KILLS").map_or(5, |kills| kills.parse().unwrap());
    let (hub, models) = (hub(), tempfile::tempdir().unwrap());
    hub.behave(json!({"pace": 0.03}));
    let (mut chance, mut gone_on, mut apart) = (20_261_127u64, 0, 0);
    for kill in 0..kills {
        let daemon = hub.daemon(models.path(), "");
        let pulls = daemon.get("/v1/models/pulls").json();
        let before = match pulls["data"].as_array().unwrap().first() {
            Some(pull) => {
                gone_on += 1;
                pull["received"].as_u64().unwrap()
            }
            None => {
                let _ = fs::remove_file(place(models.path()));
                begin(&daemon);
                0
            }
        };
        let received = || daemon.get("/v1/models/pulls").json()["data"][0]["received"].as_u64();
        wait_for("bytes to come", || {
            received().is_some_and(|now| now > before)
        });
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_millis(50 + (chance >> 33) % 2500));
        // SIGKILL.
        drop(daemon);
        if place(models.path()).exists() {
            assert!(is_whole(&hub, models.path()), "kill {kill}");
            continue;
        }
        let journals = fs::read_dir(models.path().join(".pull")).unwrap().flatten();
        let journal = journals.map(|entry| entry.path());
        let mut journal = journal.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let text = fs::read_to_string(journal.next().unwrap()).unwrap();
        let journal: Value = serde_json::from_str(&text).unwrap();
        apart += usize::from(!journal["files"][0]["apart"][0].is_null());
    }
    hub.behave(json!({}));
    let daemon = hub.daemon(models.path(), "");
    assert_eq!(pull(&daemon)["state"], "done");
    assert!(is_whole(&hub, models.path()));
    assert!(kills < 5 || (gone_on > 0 && apart > 0), "{gone_on} {apart}");
}
