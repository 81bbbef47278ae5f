//! What the supervisor costs while it waits, and what it is not made of.

mod harness;

use std::process::Command;

use harness::{Daemon, proc_kib, question};
use serde_json::json;

/// What the supervisor holds for itself, in KiB: nobody can take it back.
const RSS_ANON: u64 = 2 << 10;
/// With its code, of which there are 8.7 MiB, in KiB. A fault maps the pages around it that the page
/// cache has (the kernel's fault-around), so how much of the code is mapped differs by a MiB from
/// machine to machine: 8.0 to 11.2 MiB were seen.
const PSS: u64 = 12 << 10;

fn check(daemon: &Daemon, when: &str) {
    let anon = proc_kib(daemon.pid(), "status", "RssAnon");
    let pss = proc_kib(daemon.pid(), "smaps_rollup", "Pss");
    eprintln!("{when}: RssAnon {anon} KiB, PSS {pss} KiB");
    assert!(
        anon <= RSS_ANON,
        "{when}: RssAnon is {anon} KiB, more than {RSS_ANON}"
    );
    assert!(pss <= PSS, "{when}: PSS is {pss} KiB, more than {PSS}");
}

#[test]
fn the_idle_supervisor_is_small_before_and_after_work() {
    let daemon = Daemon::start();
    check(&daemon, "fresh");
    for _ in 0..20 {
        daemon.chat(&question("What is the capital of France?"));
    }
    daemon.post("/models/unload", &json!({}));
    check(&daemon, "after work");
}

#[test]
fn the_supervisor_links_no_inference() {
    let program = env!("CARGO_BIN_EXE_gemmad");
    let needed = Command::new("readelf")
        .args(["-d", program])
        .output()
        .unwrap();
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    for library in ["stdc++", "gomp", "llama", "ggml"] {
        assert!(!needed.contains(library), "{needed}");
    }
    let symbols = Command::new("nm").arg(program).output().unwrap();
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    assert!(symbols.contains("main"), "nm reads this program");
    let foreign: Vec<&str> = symbols
        .lines()
        .filter(|line| {
            [" llama_", " ggml_", " gguf_", "llguidance"]
                .iter()
                .any(|name| line.contains(name))
        })
        .collect();
    assert!(
        foreign.is_empty(),
        "{} symbols, such as {:?}",
        foreign.len(),
        foreign.first()
    );
}
