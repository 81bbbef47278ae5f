//! What could be had: the built-in catalog and those that an administrator adds, as a real daemon tells of them.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use harness::{Daemon, Options, TINY, wait_for};
use serde_json::{Value, json};

const DROP_IN: &str = r#"
[[repository]]
name = "acme/tiny"
variant = "gemma-4-e2b"

[[repository.file]]
name = "tiny-e2b-q8_0.gguf"
role = "model"
quantization = "Q8_0"
bytes = 3000000

[[repository.file]]
name = "tiny-new-q8_0.gguf"
role = "model"
quantization = "Q8_0"
"#;

fn gemmactl(daemon: &Daemon, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(args)
        .output()
        .unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).unwrap();
}

fn daemon(folder: &Path, key: &str) -> Daemon {
    let models_keys = format!(
        "catalog-directory = \"{}\"\ncatalog-key = \"{key}\"\n",
        folder.display()
    );
    Daemon::with(Options {
        models_keys,
        ..Options::default()
    })
}

fn catalog(daemon: &Daemon) -> Value {
    daemon.get("/v1/models?catalog=1").json()["catalog"].clone()
}

fn entry<'a>(catalog: &'a Value, id: &str) -> Option<&'a Value> {
    let models = catalog["models"].as_array().unwrap();
    models.iter().find(|entry| entry["id"] == id)
}

#[test]
fn what_could_be_had_is_listed_with_what_it_takes_here() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "acme.toml", DROP_IN);
    let daemon = daemon(folder.path(), "");
    assert!(daemon.get("/v1/models").json().get("catalog").is_none());
    let catalog = catalog(&daemon);
    let google = entry(&catalog, "gemma-4-e2b_q4_0-it").unwrap();
    assert_eq!(google["repository"], "google/gemma-4-E2B-it-qat-q4_0-gguf");
    assert_eq!(
        google["input_modalities"],
        json!(["text", "image", "audio"])
    );
    assert_eq!(
        (&google["installed"], &google["drafter"]),
        (&json!(false), &json!(true))
    );
    assert!(google["download"].as_u64() > google["size"].as_u64());
    assert!(google["memory"]["total"].as_u64() > Some(500 << 20));
    // The same file under the same name.
    assert_eq!(entry(&catalog, TINY).unwrap()["installed"], true);
    let new = entry(&catalog, "tiny-new-q8_0").unwrap();
    assert_eq!(
        (&new["installed"], &new["size"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(catalog["refused"][0]["name"], "diffusion-gemma-26b-a4b");
    assert_eq!(catalog["passed_over"], json!([]));
    let shown = gemmactl(&daemon, &["models", "--all"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for expected in [
        "gemma-4-26b_q4_0-it",
        "tiny-new-q8_0",
        "by diffusion",
        "on the disk",
    ] {
        assert!(shown.contains(expected), "{shown}");
    }
    assert_eq!(daemon.get("/v1/models?catalog=2").status, 400);
}

#[test]
fn a_model_that_is_not_installed_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path(), "");
    let refused = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "?"}]});
        let reply = daemon.post("/v1/chat/completions", &body);
        assert_eq!(reply.status, 404, "{model}");
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for model in [
        "gemma-4-31b-it-qat-ud-q4_k_xl",
        "gemma-4-e2b-it-qat-ud-q4_k_xl",
        "gemma4:e2b-ud-q4_K_XL",
    ] {
        let said = refused(model);
        assert!(
            said.contains(&format!("`gemmactl pull {model}` fetches it")),
            "{said}"
        );
    }
    let said = refused("diffusiongemma");
    assert!(
        said.contains("by diffusion, which llama.cpp cannot run"),
        "{said}"
    );
    assert!(!refused("gemma-4-e9b").contains("pull"));

    // Where nothing is installed at all, what was named decides.
    let empty = tempfile::tempdir().unwrap();
    let bare = Daemon::with(Options {
        models: empty.path().into(),
        ..Options::default()
    });
    let ask = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "?"}]});
        let reply = bare.post("/v1/chat/completions", &body);
        (reply.status, reply.json()["error"]["message"].to_string())
    };
    let (status, said) = ask("e2b");
    assert!(
        status == 404 && said.contains("`gemmactl pull e2b`"),
        "{said}"
    );
    let (status, said) = ask("auto");
    assert!(
        status == 503 && said.contains("`gemmactl pull auto`"),
        "{said}"
    );
}

#[test]
fn a_broken_catalog_does_not_stop_the_daemon_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "a.toml",
        &DROP_IN.replace("acme/tiny", "acme"),
    );
    write(folder.path(), "b.toml", DROP_IN);
    let daemon = daemon(folder.path(), "");
    let broken = folder.path().join("a.toml").display().to_string();
    assert!(daemon.log().contains("this catalog is passed over") && daemon.log().contains(&broken));
    let status = daemon.get("/status").json();
    assert_eq!(status["passed_over"][0]["path"], broken.as_str());
    let reason = status["passed_over"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("line 3: name is \"acme\""), "{reason}");
    assert!(entry(&catalog(&daemon), "tiny-new-q8_0").is_some());
    let config = daemon.config();
    let check = gemmactl(
        &daemon,
        &["config", "check", "--config", config.to_str().unwrap()],
    );
    let said = String::from_utf8(check.stderr).unwrap();
    assert_eq!(check.status.code(), Some(78), "{said}");
    assert!(
        said.contains(&format!("{broken}: the catalog is passed over: line 3")),
        "{said}"
    );
    // Mended, it is there with the next reload.
    write(folder.path(), "a.toml", &DROP_IN.replace("tiny", "mended"));
    daemon.signal("HUP");
    wait_for("the mended catalog", || {
        entry(&catalog(&daemon), "mended-new-q8_0").is_some()
    });
    assert_eq!(daemon.get("/status").json()["passed_over"], Value::Null);
}

#[test]
fn with_a_key_only_signed_catalogs_are_used() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/catalog");
    let folder = tempfile::tempdir().unwrap();
    for name in ["signed.toml", "signed.toml.minisig"] {
        write(
            folder.path(),
            name,
            &fs::read_to_string(data.join(name)).unwrap(),
        );
    }
    write(folder.path(), "unsigned.toml", DROP_IN);
    let key = fs::read_to_string(data.join("key.pub.txt")).unwrap();
    let daemon = daemon(folder.path(), key.trim());
    let catalog = catalog(&daemon);
    assert!(entry(&catalog, "signed-e2b-q8_0").is_some());
    assert!(entry(&catalog, "tiny-new-q8_0").is_none());
    let reason = catalog["passed_over"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("wants a signature"), "{reason}");
}
