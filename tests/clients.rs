//! The clients' own packages, over the same socket.

mod harness;

use std::process::Command;

use harness::Daemon;

#[test]
fn the_python_clients_work_unchanged() {
    let Ok(python) = std::env::var("GEMMAD_PYTHON") else {
        eprintln!("skipped: GEMMAD_PYTHON names no Python with tests/clients/requirements.txt; `make test` makes one");
        return;
    };
    let daemon = Daemon::start();
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("GEMMAD_SOCKET", &daemon.socket)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
