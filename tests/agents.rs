//! Real coding agents against a daemon: `make agents` installs them and runs this.

mod harness;

use std::process::Command;

use harness::{Daemon, Options};

/// All that the tiny model has.
const CONTEXT: &str = "context = 4096\nslots = 1\n";

#[test]
#[ignore = "their packages take 700 MB to fetch and 2 GB of disk: `make agents`"]
fn agents_work_unchanged() {
    let python = std::env::var("GEMMAD_PYTHON").expect("`make agents` names a Python with pytest");
    let daemon = Daemon::with(Options {
        inference: CONTEXT.into(),
        limits: "output-tokens = 1000\n".into(),
        ..Options::default()
    });
    let status = Command::new(python)
        .args([
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/agents",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("GEMMAD_SOCKET", &daemon.socket)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
