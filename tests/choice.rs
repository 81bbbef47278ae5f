//! Which model answers, and what happens when none fits.

mod harness;

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, Reply, TINY, question, wait_for};
use serde_json::{Value, json};

const QUESTION: &str = "What is the capital of France?";

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
    let large = model("gemma-4-31b");
    if large != Value::Null {
        assert_eq!(
            (&large["installed"], first(&large, "fits")),
            (&json!(false), json!(false))
        );
    }
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

    let gemmactl = |args: &[&str]| {
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
    };
    let (code, view, _) = gemmactl(&["memory", "plan", "e2b", "--ram", "2G", "--ctx", "4096"]);
    assert!(
        code == Some(0)
            && view.contains(TINY)
            && view.contains("4096")
            && view.contains("fits")
            && !view.contains("26b"),
        "{view}"
    );
    let (code, _, error) = gemmactl(&["memory", "plan", "e9b"]);
    assert!(code == Some(2) && error.contains("e9b"), "{error}");
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
    std::fs::remove_file(folder.path().join("old.gguf")).unwrap();
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
