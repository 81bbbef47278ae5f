//! The drill of `tests/bench/chaos.py`: everything breaks, two users attack, and a third is answered
//! all the same.

mod harness;

use std::process::Command;

use harness::skip::skip;
use harness::users;

const PROMISE: &str = "a drill in which everything breaks";
const SECONDS: &str = "60";

#[test]
fn everything_breaks_and_the_honest_are_answered() {
    if !users::possible(PROMISE) {
        return;
    }
    let output = Command::new("python3")
        .args(["tests/bench/chaos.py", "--verbose", "--seconds", SECONDS])
        .args(["--gemmad", env!("CARGO_BIN_EXE_gemmad")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    for reason in report
        .lines()
        .filter_map(|line| line.strip_prefix("left out: "))
    {
        skip(PROMISE, reason);
    }
    println!("{report}");
    assert!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
