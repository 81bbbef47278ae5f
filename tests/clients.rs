//! The clients' own packages and the examples of their use, over the same socket; and requests made
//! of the API's own description.

mod harness;

use std::process::Command;

use harness::skip::skip;
use harness::{Daemon, Options};

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
fn the_description_of_the_api_holds() {
    // Thousands of requests, some of which would be answered at length.
    pytest(
        "tests/openapi",
        &Daemon::with(Options {
            limits: "output-tokens = 4\n".into(),
            ..Options::default()
        }),
    );
}
