//! What there is to compute on: real modules of ggml's, through the daemon. ggml's kernels for CPUs
//! are modules as well, so they stand in for those of devices, wherever gemmad loads modules.

mod harness;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::skip::skip;
use harness::{Daemon, Options, installed_worker};
use serde_json::{Value, json};

fn daemon(prefix: &Path) -> Daemon {
    let worker = prefix.join("bin/gemmad-worker");
    Daemon::with(Options {
        inference: format!("worker = \"{}\"\n", worker.display()),
        ..Options::default()
    })
}

fn shown(daemon: &Daemon) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .arg("devices")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn without_modules_it_is_said_how_to_get_one() {
    let daemon = Daemon::start();
    let told = daemon.get("/devices").json();
    assert_eq!(told["modules"], json!([]));
    let shown = shown(&daemon);
    let words = match cfg!(feature = "cpu-variants") {
        true => "docs/devices.md",
        false => "lacks the feature `cpu-variants`",
    };
    assert_eq!(told["directory"].is_null(), !cfg!(feature = "cpu-variants"));
    assert!(
        shown.starts_with("models run on the CPU") && shown.contains(words),
        "{shown}"
    );
}

#[test]
fn each_module_says_what_it_has_and_a_bad_one_harms_no_other() {
    if !cfg!(feature = "cpu-variants") {
        return skip(
            "modules with backends for devices",
            "gemmad was built without the feature cpu-variants",
        );
    }
    let prefix = installed_worker(|_| true);
    let backends = prefix.path().join("lib/gemmad/backends");
    let kernels = backends.with_file_name("libggml-cpu-x64.so");
    fs::create_dir(&backends).unwrap();
    fs::copy(&kernels, backends.join("libggml-good.so")).unwrap();
    fs::copy(&kernels, backends.join("libggml-open.so")).unwrap();
    fs::set_permissions(
        backends.join("libggml-open.so"),
        Permissions::from_mode(0o666),
    )
    .unwrap();
    fs::write(backends.join("libggml-text.so"), "no library").unwrap();
    // Of ggml's, and no backend.
    fs::copy(
        backends.with_file_name("libggml-base.so.0"),
        backends.join("libggml-base.so"),
    )
    .unwrap();
    let daemon = daemon(prefix.path());
    let told = daemon.get("/devices").json();
    assert_eq!(told["directory"], backends.display().to_string());
    let module = |name: &str| -> &Value {
        let file = format!("libggml-{name}.so");
        let modules = told["modules"].as_array().unwrap();
        modules
            .iter()
            .find(|module| module["file"] == *file)
            .unwrap()
    };
    let good = module("good");
    assert_eq!(
        (&good["backend"], &good["fault"]),
        (&json!("CPU"), &Value::Null)
    );
    let device = &good["devices"][0];
    assert_eq!(
        (&device["kind"], &device["used"]),
        (&json!("cpu"), &json!(false))
    );
    assert!(device["memory_total"].as_u64().unwrap() > 0, "{device}");
    let variants = device["variants"].as_array().unwrap();
    assert!(
        variants.len() == 5 && variants.iter().all(|variant| variant["runs"] == true),
        "{device}"
    );
    for (name, words) in [
        ("open", "chmod go-w"),
        ("text", "cannot be loaded"),
        ("base", "ggml_backend_init"),
    ] {
        let fault = module(name)["fault"].as_str().unwrap_or_default();
        assert!(fault.contains(words), "{name}: {told:#}");
    }
    let shown = shown(&daemon);
    assert!(
        shown.contains("uses no other device")
            && shown.contains("libggml-text.so cannot be loaded"),
        "{shown}"
    );
    // Nothing of it concerns models.
    let answer = daemon.post("/models/load", &json!({"model": "auto"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}
