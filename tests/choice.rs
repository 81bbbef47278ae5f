//! Which model answers, and what happens when none fits.

mod harness;

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, Reply, TINY, UNIFIED, endless, question, tiny_models, wait_for};
use serde_json::{Value, json};

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

fn ask(daemon: &Daemon, model: &str) -> harness::Reply {
    let mut body = question(QUESTION);
    body["model"] = json!(model);
    daemon.chat(&body)
}

fn with_memory(memory: &str) -> Daemon {
    Daemon::with(Options {
        memory: memory.into(),
        ..Options::default()
    })
}

#[test]
fn a_variant_is_known_by_any_usual_name() {
    let daemon = Daemon::start();
    for (name, expected) in [
        ("google/gemma-4-E2B-it", TINY),
        ("gemma4:e2b", TINY),
        ("gemma-4-26b-a4b-it", "tiny-26b-a4b-q8_0"),
        // The one that is loaded now.
        ("auto", "tiny-26b-a4b-q8_0"),
        (TINY, TINY),
    ] {
        let reply = ask(&daemon, name);
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert_eq!(reply.json()["model"], expected, "{name}");
    }
    let reply = ask(&daemon, "gemma-5-e2b");
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].clone()),
        (404, json!("model_not_found")),
        "{}",
        reply.text()
    );
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers() {
    let daemon = with_memory("reserve = \"1024 GiB\"");
    for model in ["auto", "gemma-4-e2b", TINY] {
        let reply = ask(&daemon, model);
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].clone()),
            (503, json!("insufficient_memory")),
            "{}",
            reply.text()
        );
        let message = reply.error();
        for part in [
            TINY,
            "MiB",
            "1048576 MiB of them are left to other programs",
            "allow-overcommit",
        ] {
            assert!(message.contains(part), "{model}: {message}");
        }
    }
    assert_eq!(daemon.status()["state"], "cold", "nothing was started");
}

#[test]
fn what_does_not_fit_is_loaded_all_the_same_where_that_is_allowed() {
    let daemon = with_memory("reserve = \"1024 GiB\"\nallow-overcommit = true");
    assert_eq!(ask(&daemon, "auto").status, 200);
    assert_eq!(daemon.status()["model"], TINY);
}

/// A model whose header is right and that llama.cpp refuses.
fn spoil(model: &std::path::Path, spoilt: &std::path::Path) {
    let mut bytes = std::fs::read(model).unwrap();
    let key = b"gemma4.attention.layer_norm_rms_epsilon";
    let place = bytes
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    bytes[place + key.len() - 1] = b'?';
    std::fs::write(spoilt, bytes).unwrap();
}

#[test]
fn auto_gives_way_to_a_smaller_model_where_its_own_cannot_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    spoil(
        &harness::tiny_models().join("tiny-31b-q4_0.gguf"),
        &folder.path().join("spoilt.gguf"),
    );
    std::fs::copy(
        harness::tiny_models().join(format!("{TINY}.gguf")),
        folder.path().join(format!("{TINY}.gguf")),
    )
    .unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    assert_eq!(daemon.status()["default"], "spoilt");
    let mut body = question(QUESTION);
    body["model"] = json!("auto");
    let waiting = [0, 1].map(|_| daemon.send("/v1/chat/completions", body.to_string().as_bytes()));
    for waiting in waiting {
        let reply = Reply::read(waiting).unwrap();
        assert_eq!(
            (reply.status, &reply.json()["model"]),
            (200, &json!(TINY)),
            "{}",
            reply.text()
        );
    }
    assert!(
        daemon.log().contains("another model is chosen"),
        "{}",
        daemon.log()
    );
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
    let loaded = daemon.post("/models/load", &json!({"model": "auto"}));
    assert_eq!(
        (loaded.status, &loaded.json()["id"]),
        (200, &json!(TINY)),
        "{}",
        loaded.text()
    );
    let named = ask(&daemon, "spoilt");
    assert_eq!(
        (named.status, &named.json()["error"]["code"]),
        (500, &json!("model_load_failed")),
        "{}",
        named.text()
    );
    assert!(named.error().contains("model `spoilt` cannot be loaded"));
    // Every line about a model says which.
    for (text, model) in [
        ("the model cannot be loaded", "spoilt"),
        ("another model is chosen", "spoilt"),
        ("the model is loaded", TINY),
    ] {
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains(text)).unwrap();
        assert!(line.contains(&format!("model=\"{model}\"")), "{line}");
    }
}

#[test]
fn a_plan_names_every_variant_before_it_is_there() {
    let daemon = Daemon::start();
    let plan = daemon
        .get("/memory/plan?context=8192&ram=2147483648")
        .json();
    let model = |id: &str| {
        plan["models"]
            .as_array()
            .unwrap()
            .iter()
            .find(|model| model["id"] == id)
            .cloned()
            .unwrap_or_default()
    };
    let first = |model: &Value, key: &str| model["plans"][0][key].clone();
    let tiny = model(TINY);
    assert_eq!(
        (&tiny["installed"], &tiny["variant"], first(&tiny, "fits")),
        (&json!(true), &json!("gemma-4-e2b"), json!(true))
    );
    let size = std::fs::metadata(harness::tiny_models().join(format!("{TINY}.gguf")));
    assert_eq!(tiny["size"], size.unwrap().len());
    // The published ones are there beside others of their variant.
    for (id, fits, least) in [
        ("gemma-4-e2b", true, 2_u64 << 30),
        ("gemma-4-e4b", false, 4 << 30),
        ("gemma-4-12b", false, 6 << 30),
        ("gemma-4-26b-a4b", false, 12 << 30),
        ("gemma-4-31b", false, 15 << 30),
    ] {
        let published = model(id);
        assert_eq!(
            (&published["installed"], first(&published, "fits")),
            (&json!(false), json!(fits)),
            "{published}"
        );
        assert!(published["size"].as_u64().unwrap() > least, "{published}");
    }
    assert_eq!(
        (&plan["experts_percent"], &plan["bound"]),
        (&json!(33), &json!("supposed to be free"))
    );
    assert_eq!(
        plan["budget"].as_u64().unwrap() + plan["reserve"].as_u64().unwrap(),
        2 << 30
    );
    for model in plan["models"].as_array().unwrap() {
        let plan = &model["plans"][0];
        let parts: u64 = plan["parts"]
            .as_object()
            .unwrap()
            .values()
            .map(|part| part.as_u64().unwrap())
            .sum();
        assert_eq!(plan["total"], parts, "{model}");
        assert!(plan["unevictable"].as_u64().unwrap() < parts);
    }
    assert_eq!(daemon.status()["state"], "cold", "a plan loads nothing");
    for (query, says) in [
        ("ram=0", "`ram`"),
        ("context=1", "`context`"),
        ("x=1", "there is no parameter `x`"),
    ] {
        let reply = daemon.get(&format!("/memory/plan?{query}"));
        assert!(
            reply.status == 400 && reply.error().contains(says),
            "{}",
            reply.text()
        );
    }

    let gemmactl = |args: &[&str]| gemmactl(&daemon, args);
    let (code, view, _) = gemmactl(&["memory", "plan", "e2b", "--ram", "2G", "--ctx", "4096"]);
    assert!(
        code == Some(0)
            && view.contains(TINY)
            && view.contains("4096")
            && view.contains("fits")
            && !view.contains("26b"),
        "{view}"
    );
    let (_, view, _) = gemmactl(&["memory", "plan", "--ram", "4.5 GB", "--ctx", "4096"]);
    for line in [
        "4.5 GiB supposed to be free (--ram)",
        "of experts a third is counted",
        "gemma-4-e2b (not installed)       ~2.8 GiB",
    ] {
        assert!(view.contains(line), "{line} in {view}");
    }
    let (code, _, error) = gemmactl(&["memory", "plan", "e9b"]);
    assert!(code == Some(2) && error.contains("e9b"), "{error}");
}

/// What gemmactl answers: its exit code, its output, its errors.
fn gemmactl(daemon: &Daemon, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(args)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_file_that_comes_or_goes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    let ids = || {
        let models = daemon.get("/v1/models").json();
        models["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(ids().is_empty());
    let file = folder.path().join("new.gguf");
    std::fs::copy(harness::tiny_models().join(format!("{TINY}.gguf")), &file).unwrap();
    wait_for("the new file", || ids() == ["new"]);
    std::fs::rename(&file, folder.path().join("old.gguf")).unwrap();
    wait_for("its new name", || ids() == ["old"]);
    // A name that cannot be an id.
    let odd = folder.path().join("Old model (1).gguf");
    std::fs::rename(folder.path().join("old.gguf"), &odd).unwrap();
    wait_for("its odd name", || ids() == ["old-model--1-"]);
    let (_, view, _) = gemmactl(&daemon, &["models"]);
    assert!(view.contains("file Old model (1).gguf"), "{view}");
    let (code, view, _) = gemmactl(&daemon, &["show", "Old model (1)"]);
    assert!(code == Some(0) && view.contains("old-model--1-"), "{view}");
    std::fs::remove_file(odd).unwrap();
    wait_for("its absence", || ids().is_empty());
}

#[test]
fn one_that_can_see_and_hear_is_taken_where_that_is_needed() {
    let daemon = Daemon::start();
    let modalities =
        |id: &str| daemon.get(&format!("/v1/models/{id}")).json()["input_modalities"].clone();
    assert_eq!(modalities(TINY), json!(["text", "image", "audio"]));
    assert_eq!(modalities("tiny-26b-a4b-q8_0"), json!(["text"]));
    let sound = STANDARD.encode(include_bytes!("data/sounds/tone-1.opus"));
    let sound = json!([{"type": "input_audio", "input_audio": {"data": sound, "format": "opus"}}, {"type": "text", "text": "What do you hear?"}]);
    assert_eq!(
        daemon.shown("tiny-26b-a4b-q8_0", json!(QUESTION)).status,
        200
    );
    assert_eq!(
        daemon.shown("auto", json!(QUESTION)).json()["model"],
        "tiny-26b-a4b-q8_0"
    );
    // Though another one is loaded.
    let reply = daemon.shown("auto", sound.clone()).json();
    assert_eq!(
        (&reply["model"], &reply["choices"][0]["message"]["content"]),
        (&json!(TINY), &json!("A low tone."))
    );
    let reply = daemon.shown("gemma-4-26b-a4b", sound);
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].clone()),
        (400, json!("model_cannot_hear")),
        "{}",
        reply.text()
    );
}

/// A copy of a tiny model; `damaged`: with weights that are no numbers.
fn copy(folder: &Path, model: &str, name: &str, damaged: bool) {
    let mut bytes = fs::read(tiny_models().join(format!("{model}.gguf"))).unwrap();
    if damaged {
        // The header is at the other end.
        let at = bytes.len() * 3 / 4;
        bytes[at..].fill(0xFF);
    }
    // As an installer does it, so that nobody sees half of it.
    let new = folder.join("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, folder.join(format!("{name}.gguf"))).unwrap();
}

fn answered_by(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["model"].as_str().unwrap().to_owned()
}

#[test]
fn a_model_whose_output_is_no_number_gives_way_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), UNIFIED, "bad", true);
    copy(folder.path(), TINY, "good", false);
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    assert_eq!(daemon.status()["default"], "bad", "it is the larger one");
    // Before anything is known of it.
    assert_eq!(answered_by(&ask(&daemon, "auto")), "good");
    assert!(daemon.log().contains("not a number"), "{}", daemon.log());
    assert_eq!(daemon.status()["default"], "good");
    // Who names it is told, and changes nothing for others.
    let named = ask(&daemon, "bad");
    assert_eq!(named.status, 500, "{}", named.text());
    assert_eq!(named.json()["error"]["code"], "model_damaged");
    let said = named.error();
    assert!(said.contains("`bad`") && said.contains("damaged"), "{said}");
    assert_eq!(daemon.status()["model"], "bad", "it is loaded");
    assert_eq!(answered_by(&ask(&daemon, "auto")), "good");
    assert_eq!(answered_by(&ask(&daemon, "auto")), "good");
    assert_eq!(daemon.status()["crashes"], 0);
    // Another of its variant does; and so does a file that takes its place.
    copy(folder.path(), UNIFIED, "other", false);
    wait_for("the other", || {
        daemon.get("/v1/models").text().contains("\"other\"")
    });
    assert_eq!(answered_by(&ask(&daemon, "gemma-4-12b")), "other");
    fs::remove_file(folder.path().join("other.gguf")).unwrap();
    copy(folder.path(), UNIFIED, "bad", false);
    wait_for("the new file", || daemon.status()["default"] == "bad");
    assert_eq!(answered_by(&ask(&daemon, "gemma-4-12b")), "bad");
}

#[test]
fn a_stream_of_which_nothing_was_said_gets_another_model_as_well() {
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), UNIFIED, "bad", true);
    copy(folder.path(), TINY, "good", false);
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    let (text, end) = daemon.stream(&question(QUESTION)).text();
    assert_eq!((text.as_str(), end), (ANSWER, Ok(())));
}

#[test]
fn a_whole_answer_whose_model_is_gone_is_given_by_another() {
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), UNIFIED, "large", false);
    copy(folder.path(), TINY, "small", false);
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    let ask = |model: &str| {
        let mut body = endless();
        body["model"] = json!(model);
        daemon.chat(&body)
    };
    std::thread::scope(|scope| {
        for (model, expected) in [("auto", Some("small")), ("large", None)] {
            copy(folder.path(), UNIFIED, "large", false);
            wait_for("the large one", || {
                daemon.get("/v1/models").text().contains("\"large\"")
            });
            daemon.post("/models/unload", &json!({}));
            let asked = scope.spawn(|| ask(model));
            wait_for("the answer to be begun", || {
                let status = daemon.status();
                status["model"] == "large" && status["running"] == 1
            });
            let worker = daemon.status()["pid"].as_u64().unwrap() as u32;
            // It has said something by now, which nobody has seen.
            std::thread::sleep(std::time::Duration::from_millis(300));
            fs::remove_file(folder.path().join("large.gguf")).unwrap();
            wait_for("the file to be missed", || {
                !daemon.get("/v1/models").text().contains("\"large\"")
            });
            harness::signal(worker, "KILL");
            let reply = asked.join().unwrap();
            match expected {
                Some(expected) => assert_eq!(answered_by(&reply), expected),
                None => assert!(reply.status >= 500, "{}", reply.text()),
            }
        }
    });
}
