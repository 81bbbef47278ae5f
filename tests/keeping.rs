//! Models that come, are looked at, and go: with a real daemon, its administrator, and a user who is none.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::parts::split;
use harness::users::{ALICE, BOB, as_user, daemon, possible};
use harness::{Daemon, Events, Options, Reply, TINY, tiny_models, wait_for};
use serde_json::{Value, json};

fn gemmactl(daemon: &Daemon, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(args)
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A daemon with an empty model directory.
fn bare() -> (tempfile::TempDir, Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    (folder, daemon)
}

fn tiny(name: &str) -> PathBuf {
    tiny_models().join(name)
}

fn file(name: &str) -> String {
    tiny(name).to_str().unwrap().to_owned()
}

fn listed(daemon: &Daemon) -> Vec<String> {
    let models = daemon.get("/v1/models").json();
    let models = models["data"].as_array().unwrap();
    models
        .iter()
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

fn model(daemon: &Daemon, id: &str) -> Value {
    daemon.get(&format!("/v1/models/{id}")).json()
}

#[test]
fn a_model_is_imported_with_what_belongs_to_it_and_removed() {
    let (folder, daemon) = bare();
    let files = ["tiny-e2b-q8_0.gguf", "tiny-e2b-mmproj-f16.gguf"].map(file);
    let imported = gemmactl(&daemon, &["import", &files[0], &files[1]]);
    assert!(imported.status.success(), "{}", err(&imported));
    let said = out(&imported);
    assert!(
        said.contains("tiny-e2b-q8_0/tiny-e2b-q8_0.gguf: a model, ")
            && said.contains(": a projector, "),
        "{said}"
    );
    // It can be asked at once.
    assert_eq!(
        model(&daemon, TINY)["input_modalities"],
        json!(["text", "image", "audio"])
    );
    // The same id in another place would be another model's.
    let other = gemmactl(&daemon, &["import", &files[0]]);
    assert!(
        err(&other).contains("`tiny-e2b-q8_0` is installed already, as "),
        "{}",
        err(&other)
    );
    let again = gemmactl(&daemon, &["import", &files[0], &files[1]]);
    assert!(
        err(&again).contains("is there already; `gemmactl rm`"),
        "{}",
        err(&again)
    );

    let verified = gemmactl(&daemon, &["verify"]);
    assert!(verified.status.success(), "{}", err(&verified));
    let du = out(&gemmactl(&daemon, &["du"]));
    assert!(
        du.contains("tiny-e2b-q8_0") && du.contains(" of models, "),
        "{du}"
    );

    // Not under its worker.
    assert_eq!(
        daemon.post("/models/load", &json!({"model": TINY})).status,
        200
    );
    let refused = gemmactl(&daemon, &["rm", TINY]);
    assert!(
        err(&refused).contains("`gemmactl unload tiny-e2b-q8_0`"),
        "{}",
        err(&refused)
    );
    assert_eq!(daemon.delete(&format!("/v1/models/{TINY}")).status, 409);
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
    // One that is gone is told of, whatever comes after it.
    let removed = gemmactl(&daemon, &["rm", TINY, "absent"]);
    assert!(err(&removed).contains("`absent`"), "{}", err(&removed));
    assert!(
        out(&removed).contains("is removed: 2 files"),
        "{}",
        out(&removed)
    );
    wait_for("the model to be gone", || listed(&daemon).is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // A name that can mean several is none to delete by.
    assert_eq!(daemon.delete("/v1/models/e2b").status, 404);
}

#[test]
fn a_model_in_parts_is_kept_like_any_other() {
    let (folder, daemon) = bare();
    let elsewhere = tempfile::tempdir().unwrap();
    let parts = split(&tiny("tiny-e2b-q8_0.gguf"), elsewhere.path(), "Parts", 3);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (second, eyes) = (text(&parts[1]), file("tiny-e2b-mmproj-f16.gguf"));
    // Any of them means all, and one that is missing is named.
    let aside = elsewhere.path().join("aside");
    fs::rename(&parts[2], &aside).unwrap();
    let import = || gemmactl(&daemon, &["import", &second, &eyes]);
    let missing = err(&import());
    assert!(missing.contains("Parts-00003-of-00003.gguf"), "{missing}");
    fs::rename(&aside, &parts[2]).unwrap();
    let imported = import();
    assert!(imported.status.success(), "{}", err(&imported));
    let said = out(&imported);
    assert!(
        said.contains("parts/Parts-00002-of-00003.gguf: part 2 of 3 of a model, ")
            && said.contains(": a projector, "),
        "{said}"
    );
    wait_for("the model and its projector", || {
        model(&daemon, "parts")["input_modalities"] == json!(["text", "image", "audio"])
    });
    let files = model(&daemon, "parts")["files"].as_array().unwrap().len();
    assert_eq!(files, 4);
    let shown = out(&gemmactl(&daemon, &["show", "parts"]));
    assert!(
        shown.contains("Parts-00001-of-00003.gguf, and 2 more parts beside it"),
        "{shown}"
    );
    let verified = daemon
        .post("/models/verify", &json!({"model": "parts"}))
        .json();
    assert_eq!(
        (&verified["ok"], verified["files"].as_array().unwrap().len()),
        (&json!(true), 4),
        "{verified}"
    );
    let sizes = parts.iter().map(|part| part.metadata().unwrap().len());
    let models = daemon.get("/v1/models").json();
    assert_eq!(models["data"][0]["size"], json!(sizes.sum::<u64>()));
    assert!(out(&gemmactl(&daemon, &["du"])).contains("parts "));
    let removed = gemmactl(&daemon, &["rm", "parts"]);
    assert!(
        out(&removed).contains("is removed: 4 files"),
        "{}",
        out(&removed)
    );
    wait_for("the model to be gone", || listed(&daemon).is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    // Over HTTP one by one, and what is there already may come again if it is the same.
    let send = |name: &str, bytes: &[u8]| {
        let path = format!("/models/import?folder=big&name={name}");
        daemon.post_as(&path, "application/octet-stream", bytes)
    };
    let name = |number: usize| format!("Big-0000{number}-of-00003.gguf");
    let bytes = |number: usize| fs::read(&parts[number - 1]).unwrap();
    for number in [1, 2, 1] {
        let reply = send(&name(number), &bytes(number));
        assert_eq!(
            (reply.status, &reply.json()["id"]),
            (200, &json!("big")),
            "{}",
            reply.text()
        );
    }
    assert_eq!(listed(&daemon), [] as [String; 0]);
    let mut other = bytes(1);
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(send(&name(1), &other).status, 409);
    let misnamed = send(&name(3), &bytes(2));
    assert!(
        misnamed.status == 400
            && misnamed
                .error()
                .contains("call it `NAME-00002-of-00003.gguf`"),
        "{}",
        misnamed.text()
    );
    let half = &bytes(3)[..1000];
    assert_eq!(send(&name(3), half).status, 400);
    assert_eq!(send(&name(3), &bytes(3)).status, 200);
    wait_for("the model", || listed(&daemon) == ["big"]);
}

#[test]
fn what_is_no_model_is_not_taken() {
    let (folder, daemon) = bare();
    let other = folder.path().join("other");
    fs::write(&other, b"GGUF, or not").unwrap();
    let refused = gemmactl(&daemon, &["import", other.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(
        err(&refused).contains("it is not taken: "),
        "{}",
        err(&refused)
    );
    let send = |query: &str, body: &[u8]| {
        daemon.post_as(
            &format!("/models/import?{query}"),
            "application/octet-stream",
            body,
        )
    };
    let reply = send("name=x.gguf", b"GGUF, or not");
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (400, Some("not_a_model"))
    );
    for query in [
        "name=..%2Fx.gguf",
        "name=x",
        "name=.x.gguf",
        "name=x.gguf&folder=..",
        "x=1",
        "",
    ] {
        assert_eq!(send(query, b"x").status, 400, "{query}");
    }
    assert_eq!(listed(&daemon), [] as [String; 0]);
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["other"]);
}

#[test]
fn a_file_that_changed_is_found() {
    let (folder, daemon) = bare();
    let path = folder.path().join("mine.gguf");
    let imported = gemmactl(
        &daemon,
        &["import", &file("tiny-e2b-q8_0.gguf"), "--as", "mine"],
    );
    assert!(imported.status.success(), "{}", err(&imported));
    let verify = || {
        let reply = daemon.post("/models/verify", &json!({"model": "mine"}));
        assert_eq!(reply.status, 200);
        reply.json()["files"][0]["verdict"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    wait_for("the model", || listed(&daemon) == ["mine"]);
    // A file system that shares bytes does so without reading them.
    let before = verify();
    assert!(
        ["matches", "unknown"].contains(&before.as_str()),
        "{before}"
    );
    let record = folder.path().join(".mine.gguf.json");
    let digest = "0".repeat(64);
    fs::write(
        &record,
        format!("{{\"sha256\": \"{digest}\", \"bytes\": 1}}"),
    )
    .unwrap();
    assert_eq!(verify(), "differs");
    let told = gemmactl(&daemon, &["verify", "mine"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(
        out(&told).contains("DIFFERS: sha256 is ") && err(&told).contains("fetch it again"),
        "{}",
        err(&told)
    );
    fs::write(record, "nonsense").unwrap();
    assert_eq!(verify(), "unknown");
    assert!(path.exists());
}

/// Bytes that the daemon has read so far.
fn bytes_read(daemon: &Daemon) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
    let mut lines = io.lines();
    let read = lines.find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

fn nothing_is_read(daemon: &Daemon, of: u64) {
    wait_for("the reading to stop", || {
        let before = bytes_read(daemon);
        std::thread::sleep(Duration::from_millis(300));
        bytes_read(daemon) - before < 1 << 20
    });
    assert!(bytes_read(daemon) < of, "it has read all");
}

#[test]
fn a_verify_tells_how_far_it_is_and_stops_with_its_client() {
    const BYTES: u64 = 32 << 30;
    let (folder, daemon) = bare();
    fs::copy(tiny("tiny-e2b-q8_0.gguf"), folder.path().join("small.gguf")).unwrap();
    let large = folder.path().join("large.gguf");
    fs::copy(tiny("tiny-e2b-q8_0.gguf"), &large).unwrap();
    // A hole, which takes no room and long to read.
    fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(BYTES)
        .unwrap();
    wait_for("the models", || listed(&daemon).len() == 2);
    let verify = |model: &str| {
        let body = json!({"model": model, "stream": true}).to_string();
        daemon.send("/models/verify", body.as_bytes())
    };
    let all = |model| -> Vec<Value> {
        let events = Events::read(verify(model));
        events
            .map(|event| serde_json::from_str(&event).unwrap())
            .collect()
    };
    let told = all("small");
    let last = told.last().unwrap();
    assert_eq!(
        (&last["model"], &last["ok"]),
        (&json!("small"), &json!(true)),
        "{last}"
    );
    assert_eq!(Reply::read(verify("absent")).unwrap().status, 404);

    let mut events = Events::read(verify("large"));
    let told: Vec<Value> = events
        .by_ref()
        .take(3)
        .map(|event| serde_json::from_str(&event).unwrap())
        .collect();
    let read: Vec<u64> = told
        .iter()
        .map(|event| event["read"].as_u64().unwrap())
        .collect();
    assert!(read.is_sorted() && read[2] > read[0], "{told:?}");
    for event in &told {
        assert_eq!(
            (&event["object"], &event["model"], &event["bytes"]),
            (&json!("verify.progress"), &json!("large"), &json!(BYTES)),
        );
        assert!(
            event["file"].as_str().unwrap().ends_with("/large.gguf"),
            "{event}"
        );
    }
    drop(events);
    nothing_is_read(&daemon, BYTES);

    // On a terminal a bar says it, and Ctrl-C ends it.
    let typist = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gemmactl/typist.py");
    let shown = Command::new("python3")
        .arg(typist)
        .args([
            " of 32.0 GiB",
            "\u{3}",
            env!("CARGO_BIN_EXE_gemmactl"),
            "verify",
            "large",
        ])
        .env("GEMMAD_SOCKET", &daemon.socket)
        .env("TERM", "xterm")
        .output()
        .unwrap();
    assert_eq!(shown.status.code(), Some(130), "{}", out(&shown));
    assert!(out(&shown).contains("large, "), "{}", out(&shown));
    nothing_is_read(&daemon, 2 * BYTES);
}

#[test]
fn what_serves_no_model_is_pruned() {
    let (folder, daemon) = bare();
    let nothing = gemmactl(&daemon, &["prune", "--dry-run"]);
    assert_eq!(out(&nothing), "nothing is left over\n", "{}", err(&nothing));
    let imported = gemmactl(&daemon, &["import", &file("tiny-e2b-q8_0.gguf")]);
    assert!(imported.status.success());
    wait_for("the model", || listed(&daemon) == ["tiny-e2b-q8_0"]);
    let packed = daemon
        .dir
        .path()
        .join("cache/tiny-e2b-q8_0-0123456789abcdef.packed");
    fs::create_dir_all(packed.parent().unwrap()).unwrap();
    fs::write(&packed, [0; 8192]).unwrap();
    let part = folder.path().join(".pull/0123456789abcdef.0.part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::set_permissions(part.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&part, [0; 4096]).unwrap();
    // What an installed model has is none of it.
    let shown = out(&gemmactl(&daemon, &["prune", "--dry-run"]));
    assert!(shown.contains("4 KiB would be freed"), "{shown}");

    let removed = gemmactl(&daemon, &["rm", "tiny-e2b-q8_0"]);
    assert!(removed.status.success());
    wait_for("the model to be gone", || listed(&daemon).is_empty());
    let asked = gemmactl(&daemon, &["prune"]);
    let refused = !asked.status.success() && err(&asked).contains("--yes");
    assert!(refused, "{}", err(&asked));
    assert!(part.exists() && packed.exists());
    let dry = json!({"dry_run": true});
    let pruned = daemon.post("/models/prune", &dry).json();
    assert_eq!(pruned["data"].as_array().unwrap().len(), 2, "{pruned}");
    let done = out(&gemmactl(&daemon, &["prune", "--yes"]));
    assert!(done.contains("packed weights"), "{done}");
    assert!(done.contains("12 KiB are freed"), "{done}");
    assert!(!part.exists() && !packed.exists());
}

#[test]
fn only_administrators_change_the_store_and_anybody_of_them_can() {
    if !possible("who may change the store") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = daemon(Options {
        models: folder.path().into(),
        access: format!("admins = [\"{ALICE}\"]\n"),
        ..Options::default()
    });
    let body = fs::read(tiny("tiny-e2b-q8_0.gguf")).unwrap();
    let send = |user: u32, name: &str| {
        let path = format!("/models/import?name={name}");
        as_user(user, || {
            daemon
                .post_as(&path, "application/octet-stream", &body)
                .status
        })
    };
    assert_eq!(send(BOB, "bobs.gguf"), 403);
    // She may not write the directory: the daemon does.
    assert_eq!(send(ALICE, "alices.gguf"), 200);
    wait_for("the model", || listed(&daemon) == ["alices"]);
    let owner = fs::metadata(folder.path().join("alices.gguf")).unwrap();
    assert_eq!(
        (
            std::os::unix::fs::MetadataExt::uid(&owner),
            owner.permissions().mode() & 0o777
        ),
        (0, 0o644)
    );
    assert_eq!(send(ALICE, "alices.gguf"), 409);
    let verify = json!({"model": "alices"});
    assert_eq!(
        as_user(BOB, || daemon.post("/models/verify", &verify).status),
        403
    );
    let verified = as_user(ALICE, || daemon.post("/models/verify", &verify).json());
    assert_eq!(verified["files"][0]["verdict"], "matches");
    assert_eq!(
        as_user(BOB, || daemon.delete("/v1/models/alices").status),
        403
    );
    assert_eq!(
        as_user(ALICE, || daemon.delete("/v1/models/alices").status),
        200
    );
    wait_for("the model to be gone", || listed(&daemon).is_empty());
}

#[test]
fn what_root_imports_is_the_daemons_to_remove() {
    use std::os::unix::fs::MetadataExt;
    if !possible("imports into a directory of the daemon's user") {
        return;
    }
    let (folder, daemon) = bare();
    std::os::unix::fs::chown(folder.path(), Some(ALICE), None).unwrap();
    let files = ["tiny-e2b-q8_0.gguf", "tiny-e2b-mmproj-f16.gguf"].map(file);
    let imported = gemmactl(&daemon, &["import", &files[0], &files[1]]);
    assert!(imported.status.success(), "{}", err(&imported));
    let theirs = folder.path().join(TINY);
    assert_eq!(theirs.metadata().unwrap().uid(), ALICE);
    let gone = as_user(ALICE, || fs::remove_file(theirs.join("tiny-e2b-q8_0.gguf")));
    gone.unwrap();
}

#[test]
fn other_programs_models_are_found() {
    let (_folder, daemon) = bare();
    let home = tempfile::tempdir().unwrap();
    let snapshot = home
        .path()
        .join("hub/models--acme--gemma-4-tiny/snapshots/1");
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["tiny-e2b-q8_0.gguf", "tiny-e4b-q8_0.gguf"] {
        std::os::unix::fs::symlink(tiny(name), snapshot.join(name)).unwrap();
    }
    let import = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_gemmactl"))
            .arg("--socket")
            .arg(&daemon.socket)
            .args(["import", "--from", "huggingface"])
            .args(more)
            .env("HF_HUB_CACHE", home.path().join("hub"))
            .env_remove("HF_HOME")
            .env("HOME", Path::new("/nowhere"))
            .output()
            .unwrap()
    };
    let several = import(&[]);
    assert!(
        err(&several).contains("acme/gemma-4-tiny:tiny-e4b-q8_0.gguf"),
        "{}",
        err(&several)
    );
    let one = import(&["--only", "tiny-E2B"]);
    assert!(one.status.success(), "{}", err(&one));
    wait_for("the model", || listed(&daemon) == [TINY]);
    let none = import(&["--only", "31b"]);
    assert!(
        err(&none).contains("no Gemma 4 model of that name is in "),
        "{}",
        err(&none)
    );
}
