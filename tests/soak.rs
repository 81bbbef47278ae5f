//! The soak of `tests/bench/soak.py`, for a short time: conversations of three users go on while their
//! workers come and go.

mod harness;

use std::process::Command;

use harness::users;

const SECONDS: &str = "45";

#[test]
fn conversations_go_on_while_workers_come_and_go() {
    if !users::possible("a soak with three users") {
        return;
    }
    let output = Command::new("python3")
        .args(["tests/bench/soak.py", "--seconds", SECONDS])
        .args(["--gemmad", env!("CARGO_BIN_EXE_gemmad")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
