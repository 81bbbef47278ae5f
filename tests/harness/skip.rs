//! The one way to leave out a test that cannot run here.

use std::io::Write as _;

/// Says that `promise` is not tested here, and why. `make test` lists what was said at its end;
/// with `GEMMAD_NO_SKIPS=1` it is a failure.
pub fn skip(promise: &str, reason: impl std::fmt::Display) {
    let line = format!("  {promise}: {reason}");
    let forbidden = std::env::var("GEMMAD_NO_SKIPS").is_ok_and(|set| !set.is_empty() && set != "0");
    assert!(!forbidden, "not tested:{line}");
    if let Some(list) = std::env::var_os("GEMMAD_SKIPPED") {
        // One write, as other tests write too.
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .unwrap();
    }
    // Not `eprintln!`, which nobody sees when a test passes.
    let _ = writeln!(std::io::stderr(), "skipped:{line}");
}
