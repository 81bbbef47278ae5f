//! The clients' own packages and the examples of their use, over the same socket; and requests made
//! of the API's own description.

mod harness;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::hub::Hub;
use harness::skip::skip;
use harness::{Daemon, Options, tiny_models};

/// Runs the tests of a folder against a daemon.
fn pytest(folder: &str, daemon: &Daemon) {
    let Ok(python) = std::env::var("GEMMAD_PYTHON") else {
        skip(
            folder,
            "GEMMAD_PYTHON names no Python with tests/clients/requirements.txt; `make test` makes one",
        );
        return;
    };
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", folder])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("GEMMAD_SOCKET", &daemon.socket)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn the_clients_work_unchanged() {
    pytest("tests/clients", &Daemon::start());
}

#[test]
fn models_come_and_go_by_ollamas_packages() {
    let (hub, models) = (Hub::start(), tempfile::tempdir().unwrap());
    pytest("tests/pulling", &hub.daemon(models.path(), ""));
}

#[test]
fn the_description_of_the_api_holds() {
    // Thousands of requests, some of which would be answered at length, and some of which remove models: they get links.
    let models = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(tiny_models()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|end| end == "gguf") {
            symlink(entry.path(), models.path().join(entry.file_name())).unwrap();
        }
    }
    // In the place of Hugging Face, which tests do not ask: it has nothing that the catalog names.
    let mut hub = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub.py"))
        .args([models.path(), Path::new("-")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(hub.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    pytest(
        "tests/openapi",
        &Daemon::with(Options {
            models: models.path().into(),
            limits: format!(
                "output-tokens = 4\n[pull]\nhub = \"http://127.0.0.1:{}\"\nproxy = \"none\"\n",
                port.trim()
            ),
            ..Options::default()
        }),
    );
    let _ = hub.kill();
    let _ = hub.wait();
}
