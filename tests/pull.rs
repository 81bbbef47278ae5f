//! Models that are fetched: from a hub with TLS that does what hubs do, and all that they do wrong.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::hub::{FILES, Hub, REPOSITORY};
use harness::parts::split;
use harness::skip::skip;
use harness::users::{self, ALICE, BOB, as_user};
use harness::{Daemon, Events, Options, Reply, TINY, tiny_models, wait_for};
use serde_json::{Value, json};

fn model_directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn asked() -> Value {
    json!({"model": format!("{REPOSITORY}:{}", FILES[0])})
}

/// Fetches it, and returns what was told last. What is there can be asked at once.
fn pull(daemon: &Daemon, request: &Value) -> Value {
    let reply = daemon.post("/v1/models/pull", request);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let last = reply.json();
    if last["state"] == "done" {
        let listed = daemon.get("/v1/models").json();
        let mut models = listed["data"].as_array().unwrap().iter();
        assert!(models.any(|model| model["id"] == last["model"]), "{listed}");
    }
    last
}

/// Begins to fetch it; whoever asked leaves, and it goes on.
fn begin(daemon: &Daemon) {
    let mut request = asked();
    request["stream"] = json!(true);
    let stream = daemon.send("/v1/models/pull", request.to_string().as_bytes());
    assert!(Events::read(stream).next().is_some());
}

fn refused(reply: &Reply, status: u16, code: &str, words: &[&str]) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], code, "{}", reply.text());
    for word in words {
        assert!(reply.error().contains(word), "{word}: {}", reply.error());
    }
}

/// The visible files below a model directory.
fn visible(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        match path.is_dir() {
            true => found.extend(visible(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Each visible file is whole and what the hub has.
fn all_whole(directory: &Path) -> usize {
    let found = visible(directory);
    for path in &found {
        let original = tiny_models().join(path.file_name().unwrap());
        assert!(
            fs::read(path).unwrap() == fs::read(original).unwrap(),
            "{}",
            path.display()
        );
    }
    found.len()
}

/// What is left of downloads that are over.
fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let left = fs::read_dir(directory.join(".pull"));
    left.map_or(vec![], |left| {
        left.flatten().map(|entry| entry.path()).collect()
    })
}

fn answers(daemon: &Daemon) {
    let reply = daemon.chat(&json!({"model": TINY, "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": "What is the capital of France?"}]}));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn a_model_is_fetched_with_what_belongs_to_it_and_answers() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "");
    let mut request = asked();
    request["plan"] = json!(true);
    let plan = pull(&daemon, &request);
    let size = |name: &str| fs::metadata(tiny_models().join(name)).unwrap().len();
    let all: u64 = FILES.iter().map(|name| size(name)).sum();
    assert_eq!(
        (&plan["download"], plan["files"].as_array().unwrap().len()),
        (&json!(all), 3),
        "{plan}"
    );
    assert_eq!(visible(models.path()), Vec::<PathBuf>::new());

    let mut request = asked();
    request["stream"] = json!(true);
    let events = Events::read(daemon.send("/v1/models/pull", request.to_string().as_bytes()));
    let told: Vec<Value> = events
        .map(|event| serde_json::from_str(&event).unwrap())
        .collect();
    let last = told.last().unwrap();
    assert_eq!(
        (&last["state"], &last["received"], &last["bytes"]),
        (&json!("done"), &json!(all), &json!(all)),
        "{last}"
    );
    assert_eq!(all_whole(models.path()), 3);
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());
    wait_for("the model to be listed", || {
        let listed = daemon.get("/v1/models").json();
        let entry = &listed["data"][0];
        entry["id"] == TINY
            && entry["drafter"] == true
            && entry["input_modalities"].as_array().unwrap().len() > 1
    });
    answers(&daemon);
    // What was fetched is known again, and fetched no more.
    let verified = daemon.post("/models/verify", &json!({"model": TINY}));
    assert_eq!(verified.json()["ok"], true, "{}", verified.text());
    hub.behave(json!({}));
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    assert!(
        hub.seen().iter().all(|asked| asked["host"] != "127.0.0.1"),
        "{:?}",
        hub.seen()
    );
    let listed = daemon.get("/v1/models/pulls").json();
    assert_eq!(listed["data"][0]["state"], "done", "{listed}");
}

/// Puts a model in parts beside the others: what is asked for, and the names of its files.
fn in_parts(hub: &Hub) -> (Value, Vec<String>) {
    let source = tiny_models().join(FILES[0]);
    let parts = split(
        &source,
        &hub.folder.path().join("files"),
        "Tiny-E2B-Q8_0",
        3,
    );
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let names: Vec<String> = parts.iter().map(name).collect();
    let asked = json!({"model": format!("{REPOSITORY}:{}", names[0]), "with": []});
    (asked, names)
}

/// Each visible file is what the hub has.
fn same_as_at_hub(hub: &Hub, directory: &Path) -> Vec<String> {
    let found = visible(directory).into_iter();
    let name = found.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let original = hub.folder.path().join("files").join(&name);
        assert!(
            fs::read(path).unwrap() == fs::read(original).unwrap(),
            "{name}"
        );
        name
    });
    name.collect()
}

#[test]
fn a_model_in_parts_is_fetched_as_it_is_and_answers() {
    let (hub, models) = (Hub::start(), model_directory());
    let (asked, names) = in_parts(&hub);
    let daemon = hub.daemon(models.path(), "");
    hub.behave(json!({"cut": 700_000}));
    let last = pull(&daemon, &asked);
    assert_eq!(
        (&last["state"], &last["model"]),
        (&json!("done"), &json!("tiny-e2b-q8_0")),
        "{last}"
    );
    assert_eq!(same_as_at_hub(&hub, models.path()), names);
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());
    answers(&daemon);
    let verified = daemon
        .post("/models/verify", &json!({"model": "tiny-e2b-q8_0"}))
        .json();
    assert_eq!(
        (&verified["ok"], verified["files"].as_array().unwrap().len()),
        (&json!(true), 3),
        "{verified}"
    );
    for file in verified["files"].as_array().unwrap() {
        assert_eq!(file["verdict"], "matches", "{file}");
    }
    // By the address of one of them as well.
    let elsewhere = model_directory();
    let other = hub.daemon(elsewhere.path(), "");
    let address = hub.file(&names[1]);
    assert_eq!(pull(&other, &json!({"model": address}))["state"], "done");
    assert_eq!(same_as_at_hub(&hub, elsewhere.path()), names);
    let one = format!("{address}#sha256={}", "0".repeat(64));
    refused(
        &other.post("/v1/models/pull", &json!({"model": one})),
        400,
        "cannot_pull",
        &["one file", "3 parts"],
    );
}

#[test]
fn parts_that_make_no_model_are_refused_and_nothing_is_left() {
    let (hub, models) = (Hub::start(), model_directory());
    let (asked, names) = in_parts(&hub);
    // Another model's in the place of the last: its header says the same.
    let folder = tempfile::tempdir().unwrap();
    let other = split(
        &tiny_models().join("tiny-12b-q8_0.gguf"),
        folder.path(),
        "x",
        3,
    );
    fs::copy(&other[2], hub.folder.path().join("files").join(&names[2])).unwrap();
    let daemon = hub.daemon(models.path(), "");
    let last = pull(&daemon, &asked);
    assert_eq!(last["state"], "failed", "{last}");
    assert!(
        last.to_string()
            .contains("the parts of tiny-e2b-q8_0 cannot be used"),
        "{last}"
    );
    assert_eq!(visible(models.path()), Vec::<PathBuf>::new());
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_daemon_that_is_killed_over_parts_goes_on() {
    let (hub, models) = (Hub::start(), model_directory());
    let (asked, names) = in_parts(&hub);
    hub.behave(json!({"pace": 0.5}));
    let mut request = asked.clone();
    request["stream"] = json!(true);
    for kill in 0..3 {
        let daemon = hub.daemon(models.path(), "");
        let body = request.to_string();
        let stream = daemon.send("/v1/models/pull", body.as_bytes());
        assert!(Events::read(stream).next().is_some());
        std::thread::sleep(Duration::from_millis(200 + 150 * kill));
        assert_eq!(daemon.get("/v1/models").json()["data"], json!([]));
        drop(daemon);
        assert_eq!(visible(models.path()), Vec::<PathBuf>::new());
        assert!(!leftovers(models.path()).is_empty());
    }
    hub.behave(json!({}));
    let daemon = hub.daemon(models.path(), "");
    assert_eq!(pull(&daemon, &asked)["state"], "done");
    assert_eq!(same_as_at_hub(&hub, models.path()), names);
    answers(&daemon);
}

#[test]
fn connections_that_break_are_taken_up_where_they_broke() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "");
    hub.behave(json!({"cut": 700_000, "refuse": [503, 2, 1]}));
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    assert_eq!(all_whole(models.path()), 3);
    let ranges: Vec<String> = hub
        .seen()
        .iter()
        .filter_map(|asked| Some(asked["range"].as_str()?.to_owned()))
        .collect();
    assert!(
        ranges
            .iter()
            .any(|range| range.starts_with("bytes=700000-")),
        "{ranges:?}"
    );
    assert!(
        ranges
            .iter()
            .any(|range| range.starts_with("bytes=1400000-")),
        "{ranges:?}"
    );
    // Each time by way of the hub: where it is moved to may hold for a while only.
    let through_hub = hub
        .seen()
        .iter()
        .filter(|asked| asked["path"].as_str().unwrap().contains("/resolve/"))
        .count();
    assert!(through_hub > 6, "{through_hub}");
}

#[test]
fn a_trickle_is_given_up_and_a_server_without_ranges_is_taken_from_the_start() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "");
    hub.behave(json!({"slow": [200_000, 40], "no_ranges": true}));
    let start = Instant::now();
    assert_eq!(
        pull(&daemon, &json!({"model": hub.file(FILES[0])}))["state"],
        "done"
    );
    assert!(
        start.elapsed() < Duration::from_secs(35),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(all_whole(models.path()), 1);
}

#[test]
fn what_is_not_what_it_should_be_is_refused_and_nothing_is_left() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "");
    hub.behave(json!({"flip": 300_000}));
    let last = pull(&daemon, &asked());
    assert_eq!(
        (&last["state"], &last["resumable"]),
        (&json!("failed"), &json!(false)),
        "{last}"
    );
    let reason = last["reason"].as_str().unwrap();
    let digests = reason
        .split(|c: char| !c.is_ascii_hexdigit())
        .filter(|word| word.len() == 64);
    assert_eq!(digests.count(), 2, "{reason}");

    hub.behave(json!({"short": 1000}));
    let size = fs::metadata(tiny_models().join(FILES[0])).unwrap().len();
    let sizes = [size.to_string(), (size - 1000).to_string()];
    let reply = daemon.post("/v1/models/pull", &asked());
    refused(&reply, 400, "cannot_pull", &[&sizes[0], &sizes[1]]);

    hub.behave(json!({}));
    let address = hub.file(FILES[0]);
    let other = format!("{address}#sha256={}", "0".repeat(64));
    assert_eq!(pull(&daemon, &json!({"model": other}))["state"], "failed");
    assert_eq!(visible(models.path()), Vec::<PathBuf>::new());
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_had_is_refused_by_name_before_it_is_fetched() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "");
    let ask = |model: &str| daemon.post("/v1/models/pull", &json!({"model": model}));
    refused(
        &ask("tiny/absent"),
        404,
        "model_not_found",
        &["tiny/absent", "404"],
    );
    refused(
        &ask("tiny/nothing"),
        400,
        "cannot_pull",
        &["tiny/nothing", "GGUF"],
    );
    refused(
        &ask(&format!("{REPOSITORY}:absent.gguf")),
        400,
        "cannot_pull",
        &["absent.gguf"],
    );
    refused(
        &ask(&format!("{REPOSITORY}:{}", FILES[1])),
        400,
        "cannot_pull",
        &[FILES[1], "is a projector", FILES[0]],
    );
    refused(
        &ask("http://localhost/x.gguf"),
        400,
        "cannot_pull",
        &["https"],
    );
    refused(
        &ask(&hub.file("absent.gguf")),
        404,
        "model_not_found",
        &["404"],
    );
    refused(&ask("diffusiongemma-26b-a4b-it"), 400, "cannot_pull", &[]);
    // A header, and nothing behind it.
    let mut llama = b"GGUF\x03\0\0\0".to_vec();
    llama.extend([0u64.to_le_bytes(), 1u64.to_le_bytes()].concat());
    for text in ["general.architecture", "llama"] {
        llama.extend((text.len() as u64).to_le_bytes());
        llama.extend(text.as_bytes());
        if text != "llama" {
            llama.extend(8u32.to_le_bytes());
        }
    }
    llama.extend(vec![0; 200_000]);
    let files = hub.folder.path().join("files");
    fs::write(files.join("llama.gguf"), llama).unwrap();
    fs::write(files.join("page.gguf"), "<!doctype html>").unwrap();
    refused(
        &ask(&hub.file("llama.gguf")),
        400,
        "cannot_pull",
        &["`llama`"],
    );
    refused(
        &ask(&hub.file("page.gguf")),
        400,
        "cannot_pull",
        &["page.gguf"],
    );
    let bytes: Vec<Value> = hub
        .seen()
        .into_iter()
        .filter(|asked| asked["path"].as_str().unwrap().ends_with("llama.gguf"))
        .collect();
    assert!(
        !bytes.is_empty() && bytes.iter().all(|asked| asked["range"] == "bytes=0-65535"),
        "{bytes:?}"
    );
    assert_eq!(visible(models.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_server_that_is_not_trusted_gets_no_second_chance() {
    let (hub, models) = (Hub::start(), model_directory());
    let options = Options {
        models: models.path().to_owned(),
        limits: hub.keys(),
        ..Options::default()
    };
    let daemon = Daemon::with(options);
    refused(
        &daemon.post("/v1/models/pull", &asked()),
        502,
        "download_failed",
        &["cannot be trusted"],
    );
}

#[test]
fn a_token_opens_a_gated_repository_and_is_told_to_nobody_else() {
    let (hub, models) = (Hub::start(), model_directory());
    hub.behave(json!({"gated": "hf_very_secret"}));
    let daemon = hub.daemon(models.path(), "");
    refused(
        &daemon.post("/v1/models/pull", &asked()),
        502,
        "gated",
        &["401", "token-file"],
    );
    drop(daemon);
    let file = hub.folder.path().join("token");
    fs::write(&file, "hf_very_secret\n").unwrap();
    let permit = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    permit(0o644);
    let daemon = hub.daemon(
        models.path(),
        &format!("token-file = \"{}\"\n", file.display()),
    );
    let reply = daemon.post("/v1/models/pull", &asked());
    refused(
        &reply,
        400,
        "cannot_pull",
        &["token-file", "everybody", "chmod"],
    );
    permit(0o600);
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    for asked in hub.seen() {
        // `127.0.0.1` is where the hub moves those who ask.
        let expected = match asked["host"] == "localhost" {
            true => json!("Bearer hf_very_secret"),
            false => Value::Null,
        };
        if asked["host"] == "127.0.0.1" || daemon.log().contains("hf_very") {
            assert_eq!(asked["token"], expected, "{asked}");
        }
    }
    assert!(!daemon.log().contains("hf_very"), "{}", daemon.log());
}

#[test]
fn a_download_is_seen_stopped_and_for_administrators_only() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "rate = \"256 KiB\"\n");
    begin(&daemon);
    let running = || daemon.get("/v1/models/pulls").json()["data"][0].clone();
    wait_for("bytes to come", || {
        running()["received"]
            .as_u64()
            .is_some_and(|received| received > 0)
    });
    if let Some(said) = daemon.ask_as_stranger("GET", "/v1/models/pulls", "") {
        assert!(
            said.contains(" 403 ") || said.contains("Permission denied"),
            "{said}"
        );
    }
    let id = running()["id"].as_str().unwrap().to_owned();
    let reply = daemon.post(&format!("/v1/models/pulls/{id}/cancel"), &json!({}));
    assert_eq!(
        (reply.status, &reply.json()["state"]),
        (200, &json!("cancelled")),
        "{}",
        reply.text()
    );
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());
    let again = daemon.post(&format!("/v1/models/pulls/{id}/cancel"), &json!({}));
    refused(&again, 404, "pull_not_found", &["is over"]);
}

/// A daemon whose socket everybody may open, with a catalog that says who may fetch from the hub.
fn shared(hub: &Hub, models: &Path, catalogs: &Path, users: &[u32], keys: &str) -> Daemon {
    let users: Vec<String> = users.iter().map(|uid| format!("\"{uid}\"")).collect();
    let catalog = catalogs.join("own.toml");
    let users = users.join(", ");
    let text = format!("[[allow]]\nrepositories = [\"{REPOSITORY}\"]\nusers = [{users}]\n");
    fs::write(&catalog, text).unwrap();
    fs::set_permissions(&catalog, fs::Permissions::from_mode(0o644)).unwrap();
    let options = Options {
        server: "socket-mode = \"0666\"\n".into(),
        models_keys: format!("catalog-directory = \"{}\"\n", catalogs.display()),
        ..hub.options(models, keys)
    };
    let daemon = Daemon::with_environment(options, &[("SSL_CERT_FILE", &hub.trusted())]);
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    daemon
}

#[test]
fn a_download_is_its_users_while_they_may_have_it() {
    if !users::possible("downloads of two users") {
        return;
    }
    let (hub, models) = (Hub::start(), model_directory());
    let catalogs = tempfile::tempdir().unwrap();
    let slow = "rate = \"64 KiB\"\n";
    let daemon = shared(&hub, models.path(), catalogs.path(), &[ALICE, BOB], slow);
    let listed = |uid| as_user(uid, || daemon.get("/v1/models/pulls"));
    let cancel = |uid, id: &str| {
        let path = format!("/v1/models/pulls/{id}/cancel");
        as_user(uid, || daemon.post(&path, &json!({})))
    };
    as_user(ALICE, || begin(&daemon));
    let id = listed(ALICE).json()["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(listed(BOB).status, 403);
    assert_eq!(cancel(BOB, &id).status, 403);
    assert_eq!(cancel(ALICE, &id).json()["state"], "cancelled");
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());

    // What somebody else waits for as well is nobody's to take away.
    as_user(ALICE, || begin(&daemon));
    as_user(BOB, || begin(&daemon));
    assert_eq!(cancel(ALICE, &id).status, 403);
    assert_eq!(
        daemon
            .post(&format!("/v1/models/pulls/{id}/cancel"), &json!({}))
            .status,
        200
    );

    // Who may not fetch it any more is not gone on for. What came is kept until somebody says.
    as_user(ALICE, || begin(&daemon));
    drop(daemon);
    let daemon = shared(&hub, models.path(), catalogs.path(), &[BOB], slow);
    let kept = || daemon.get("/v1/models/pulls").json()["data"][0].clone();
    wait_for("what is kept", || kept()["state"] == "failed");
    assert_eq!(kept()["resumable"], true, "{}", kept());
    assert!(
        kept()["reason"].as_str().unwrap().contains("may not"),
        "{}",
        kept()
    );
    assert!(!leftovers(models.path()).is_empty());
    let path = format!("/v1/models/pulls/{id}/cancel");
    let forgotten = as_user(ALICE, || daemon.post(&path, &json!({})));
    assert_eq!(
        forgotten.json()["state"],
        "cancelled",
        "{}",
        forgotten.text()
    );
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_server_leads_nobody_to_services_of_this_machine() {
    let (hub, models) = (Hub::start(), model_directory());
    let options = Options {
        limits: hub.keys().replace("127.0.0.0/8", "public"),
        ..hub.options(models.path(), "")
    };
    let daemon = Daemon::with_environment(options, &[("SSL_CERT_FILE", &hub.trusted())]);
    refused(
        &daemon.post("/v1/models/pull", &asked()),
        502,
        "download_failed",
        &["moved", "127.0.0.1", "redirect-to"],
    );
    let elsewhere = hub.seen().iter().any(|asked| asked["host"] == "127.0.0.1");
    assert!(!elsewhere, "{:?}", hub.seen());
    // What an administrator names is where they say.
    assert_eq!(
        pull(&daemon, &json!({"model": hub.file(FILES[0])}))["state"],
        "done"
    );
}

#[test]
fn a_catalog_lets_a_user_fetch_from_what_it_names() {
    let (hub, models) = (Hub::start(), model_directory());
    let catalogs = tempfile::tempdir().unwrap();
    let daemon = shared(&hub, models.path(), catalogs.path(), &[65534], "");
    let stranger = |model: &str| {
        let body = json!({"model": model, "plan": true}).to_string();
        daemon.ask_as_stranger("POST", "/v1/models/pull", &body)
    };
    let Some(said) = stranger(&format!("{REPOSITORY}:{}", FILES[0])) else {
        return;
    };
    assert!(
        said.contains(" 200 ") && said.contains("pull.plan"),
        "{said}"
    );
    for other in ["tiny/nothing", "e2b", &hub.file(FILES[0]), "no such model"] {
        let said = stranger(other).unwrap();
        assert!(said.contains(" 403 "), "{other}: {said}");
    }
    let said = daemon
        .ask_as_stranger("GET", "/v1/models/pulls", "")
        .unwrap();
    assert!(said.contains(" 403 "), "{said}");
}

#[test]
fn nothing_that_comes_takes_the_place_of_what_is_there() {
    let (hub, models) = (Hub::start(), model_directory());
    let catalogs = tempfile::tempdir().unwrap();
    // A folder that comes first, and one that is called like the repository.
    let theirs = models.path().join("models");
    fs::create_dir(&theirs).unwrap();
    fs::copy(tiny_models().join(FILES[0]), theirs.join(FILES[0])).unwrap();
    let daemon = shared(&hub, models.path(), catalogs.path(), &[65534], "");
    wait_for("the model", || {
        daemon.get("/v1/models").json()["data"][0]["id"] == TINY
    });
    let whole = asked();
    let url = json!({"model": hub.file(FILES[0])});
    for request in [&whole, &url] {
        let reply = daemon.post("/v1/models/pull", request);
        let path = theirs.join(FILES[0]).display().to_string();
        refused(&reply, 400, "cannot_pull", &[&path, "gemmactl rm"]);
    }
    // The same from another place, which was planned before this one came.
    fs::remove_file(theirs.join(FILES[0])).unwrap();
    hub.behave(json!({"pace": 0.05}));
    begin(&daemon);
    fs::copy(tiny_models().join(FILES[0]), theirs.join(FILES[0])).unwrap();
    let ended = || daemon.get("/v1/models/pulls").json()["data"][0].clone();
    wait_for("the end", || ended()["state"] == "failed");
    let reason = ended()["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("`tiny-e2b-q8_0` is installed already"),
        "{reason}"
    );
    assert_eq!(visible(models.path()), [theirs.join(FILES[0])]);
    assert_eq!(leftovers(models.path()), Vec::<PathBuf>::new());

    // Names by which clients ask for whatever there is are not a user's to give.
    let named = hub.folder.path().join("files/gemma-4-e2b-it.gguf");
    fs::copy(tiny_models().join(FILES[0]), named).unwrap();
    let body = json!({"model": format!("{REPOSITORY}:gemma-4-e2b-it.gguf")});
    if let Some(said) = daemon.ask_as_stranger("POST", "/v1/models/pull", &body.to_string()) {
        assert!(
            said.contains(" 400 ") && said.contains("only administrators"),
            "{said}"
        );
    }
}

/// What systemd does with `gemmad-pull.socket`.
struct Activator(Child);

impl Activator {
    fn start(hub: &Hub, socket: &Path) -> Option<Self> {
        let trusted = hub.folder.path().join("trusted.pem");
        let started = Command::new("systemd-socket-activate")
            .args(["--accept", "--inetd", "--listen"])
            .arg(socket)
            .arg(format!("--setenv=SSL_CERT_FILE={}", trusted.display()))
            .args([env!("CARGO_BIN_EXE_gemmad-worker"), "pull"])
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            skip(
                "fetching by units of systemd's",
                "there is no systemd-socket-activate",
            );
            return None;
        };
        wait_for("the socket", || socket.exists());
        Some(Self(process))
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn where_systemd_starts_workers_for_the_network_the_daemon_starts_none() {
    let (hub, models) = (Hub::start(), model_directory());
    let options = Options {
        models: models.path().to_owned(),
        limits: hub.keys(),
        ..Options::default()
    };
    // One of its own would trust nobody here.
    let daemon = Daemon::with(options);
    let Some(_activator) = Activator::start(&hub, &daemon.dir.path().join("pull.sock")) else {
        return;
    };
    hub.behave(json!({"cut": 900_000}));
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    assert_eq!(all_whole(models.path()), 3);
}

#[test]
fn two_daemons_do_not_fetch_into_one_directory() {
    let (hub, models) = (Hub::start(), model_directory());
    let first = hub.daemon(models.path(), "rate = \"64 KiB\"\n");
    begin(&first);
    wait_for("the first to fetch", || {
        first.get("/v1/models/pulls").json()["data"][0]["received"]
            .as_u64()
            .is_some_and(|received| received > 0)
    });
    let second = hub.daemon(models.path(), "");
    refused(
        &second.post("/v1/models/pull", &asked()),
        503,
        "not_now",
        &["another daemon"],
    );
    drop(first);
    assert_eq!(pull(&second, &asked())["state"], "done");
    assert_eq!(all_whole(models.path()), 3);
}

/// `GEMMAD_KILLS` says how often.
/// A file system of its own; taken away at the end of its test.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None`, and that is said, where the test may not mount.
    fn new(promise: &str, size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        match disk.mount(&format!("size={size},mode=0755")) {
            Ok(()) => Some(disk),
            Err(why) => {
                skip(promise, why);
                None
            }
        }
    }

    fn mount(&self, options: &str) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]);
        let output = mount.arg(self.path()).output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn a_disk_without_room_is_refused_before_a_byte_comes() {
    let Some(disk) = Disk::new("pulls onto a small disk", "200m") else {
        return;
    };
    let hub = Hub::start();
    let daemon = hub.daemon(disk.path(), "");
    let reply = daemon.post("/v1/models/pull", &asked());
    refused(&reply, 507, "disk_full", &["MiB free", "gemmactl rm"]);
    assert_eq!(leftovers(disk.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_disk_that_fills_in_the_middle_keeps_what_came() {
    let Some(disk) = Disk::new("a disk that fills during a pull", "280m") else {
        return;
    };
    let hub = Hub::start();
    let daemon = hub.daemon(disk.path(), "");
    hub.behave(json!({"pace": 0.05}));
    begin(&daemon);
    let status = || daemon.get("/v1/models/pulls").json()["data"][0].clone();
    wait_for("some bytes", || {
        status()["received"].as_u64().is_some_and(|got| got > 0)
    });
    // Everything that is left, by others.
    let filler = disk.path().join(".filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 1 << 16]).is_ok() {}
    wait_for("the end", || status()["state"] == "failed");
    let last = status();
    assert_eq!(last["resumable"], true, "{last}");
    let reason = last["reason"].as_str().unwrap();
    assert!(
        reason.contains("make room") && reason.contains("what came is kept"),
        "{reason}"
    );
    assert_eq!(visible(disk.path()), Vec::<PathBuf>::new());
    let kept = last["received"].as_u64().unwrap();
    assert!(kept > 0, "{last}");
    drop(file);
    fs::remove_file(filler).unwrap();
    hub.behave(json!({}));
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    assert_eq!(all_whole(disk.path()), 3);
    // What was here did not come again.
    let whole = hub.seen().iter().any(|asked| {
        let is_model = asked["path"].as_str().unwrap().ends_with(FILES[0]);
        is_model && asked["range"].is_null() && asked["host"] == "127.0.0.1"
    });
    assert!(!whole, "{:?}", hub.seen());
}

#[test]
fn a_directory_that_is_mounted_read_only_serves_and_says_why_it_does_not_change() {
    let Some(disk) = Disk::new("a read-only model directory", "300m") else {
        return;
    };
    fs::copy(tiny_models().join(FILES[0]), disk.path().join(FILES[0])).unwrap();
    let output = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(disk.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let hub = Hub::start();
    let daemon = hub.daemon(disk.path(), "");
    answers(&daemon);
    let reply = daemon.post(
        "/v1/models/pull",
        &json!({"model": format!("{REPOSITORY}:{}", FILES[1])}),
    );
    assert!(reply.status >= 400, "{}", reply.text());
    let reply = daemon.post("/v1/models/pull", &json!({"model": hub.file(FILES[0])}));
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(
        reply.error().contains("mounted read-only"),
        "{}",
        reply.error()
    );
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
    let reply = daemon.delete(&format!("/v1/models/{TINY}"));
    assert!(
        reply.status == 500 && reply.error().contains("ead-only"),
        "{}",
        reply.text()
    );
    answers(&daemon);
}

#[test]
fn what_others_left_in_the_directory_does_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let (hub, models) = (Hub::start(), model_directory());
    let elsewhere = tempfile::tempdir().unwrap();
    let odd = models
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd-\xff\xfe.gguf"));
    fs::copy(tiny_models().join(FILES[0]), &odd).unwrap();
    fs::create_dir(
        models
            .path()
            .join(std::ffi::OsStr::from_bytes(b"folder-\xff")),
    )
    .unwrap();
    symlink("/nowhere/at.gguf", models.path().join("dangling.gguf")).unwrap();
    symlink("round.gguf", models.path().join("round.gguf")).unwrap();
    symlink(".", models.path().join("itself")).unwrap();
    // Partial files would go where somebody else says.
    symlink(elsewhere.path(), models.path().join(".pull")).unwrap();
    let daemon = hub.daemon(models.path(), "");
    let reply = daemon.post("/v1/models/pull", &asked());
    assert_eq!(reply.status, 500, "{}", reply.text());
    assert!(
        reply.error().contains(".pull") && reply.error().contains("delete it"),
        "{}",
        reply.error()
    );
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    fs::remove_file(models.path().join(".pull")).unwrap();
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    answers(&daemon);
    assert!(odd.exists());
}

#[test]
fn a_daemon_that_is_killed_goes_on_or_is_done_and_never_leaves_a_part() {
    let kills: u32 = std::env::var("GEMMAD_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let (hub, models) = (Hub::start(), model_directory());
    hub.behave(json!({"pace": 0.008}));
    let (mut chance, mut went_on) = (20_261_127u64, 0);
    for kill in 0..kills {
        let daemon = hub.daemon(models.path(), "");
        if daemon.get("/v1/models/pulls").json()["data"]
            .as_array()
            .unwrap()
            .is_empty()
        {
            // The next one begins anew.
            for path in visible(models.path()) {
                fs::remove_file(path).unwrap();
            }
            begin(&daemon);
        } else {
            went_on += 1;
        }
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_millis(50 + (chance >> 33) % 900));
        // SIGKILL.
        drop(daemon);
        let whole = all_whole(models.path());
        assert!(
            whole > 0 || !leftovers(models.path()).is_empty() || kill == 0,
            "kill {kill}"
        );
    }
    let daemon = hub.daemon(models.path(), "");
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    assert_eq!(all_whole(models.path()), 3);
    wait_for("the model to be listed", || {
        daemon.get("/v1/models").json()["data"][0]["id"] == TINY
    });
    answers(&daemon);
    assert!(kills < 6 || went_on > 0, "no download was gone on with");
}

/// Gives all files below a directory, hidden ones too, a time that a wrong clock would have given them.
fn date(directory: &Path, time: SystemTime) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            date(&path, time);
        }
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_loses_nothing_that_came() {
    let (hub, models) = (Hub::start(), model_directory());
    let century = Duration::from_secs(100 * 365 * 86_400);
    let times = [UNIX_EPOCH - century / 2, SystemTime::now() + century];
    hub.behave(json!({"pace": 0.05}));
    // Whatever the time of what came, it is gone on with.
    for time in times {
        let daemon = hub.daemon(models.path(), "");
        begin(&daemon);
        let received = || daemon.get("/v1/models/pulls").json()["data"][0]["received"].as_u64();
        let before = received().unwrap_or(0);
        wait_for("bytes to come", || {
            received().is_some_and(|now| now > before + 500_000)
        });
        // What the disk has is written down once a second.
        std::thread::sleep(Duration::from_millis(1300));
        drop(daemon);
        date(models.path(), time);
    }
    hub.behave(json!({}));
    let daemon = hub.daemon(models.path(), "");
    assert_eq!(pull(&daemon, &asked())["state"], "done");
    // The model, of which something was here, did not come again.
    let whole = hub.seen().iter().any(|asked| {
        let is_model = asked["path"].as_str().unwrap().ends_with(FILES[0]);
        is_model && asked["range"].is_null() && asked["host"] == "127.0.0.1"
    });
    assert!(!whole, "{:?}", hub.seen());
    assert_eq!(all_whole(models.path()), 3);
    answers(&daemon);
}

#[test]
fn gemmactl_shows_what_comes_asks_and_fetches() {
    let (hub, models) = (Hub::start(), model_directory());
    let daemon = hub.daemon(models.path(), "");
    let gemmactl = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
            .arg("--socket")
            .arg(&daemon.socket)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let model = format!("{REPOSITORY}:{}", FILES[0]);
    let (code, out, err) = gemmactl(&["pull", &model]);
    assert_eq!(code, Some(2), "{err}");
    assert!(
        out.contains("mmproj") && out.contains("to download") && err.contains("--yes"),
        "{out}{err}"
    );
    let (code, out, err) = gemmactl(&["pull", "--yes", "--with", "none", &model]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("gemmactl ask --model tiny-e2b-q8_0"), "{out}");
    assert_eq!(all_whole(models.path()), 1);
    let (code, out, _) = gemmactl(&["pull", "--status"]);
    assert!(code == Some(0) && out.contains("done"), "{out}");
    let (code, _, err) = gemmactl(&["pull", "--yes", "tiny/absent"]);
    assert!(code == Some(1) && err.contains("tiny/absent"), "{err}");
}
