//! `gemmactl bench` against a real daemon.

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use harness::{Daemon, Options, TINY, endless, skip, wait_for};
use serde_json::Value;

fn bench(daemon: &Daemon, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .args(["bench", "--socket"])
        .arg(&daemon.socket)
        .args(options)
        .output()
        .unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn this_machine_is_measured() {
    let daemon = Daemon::start();
    let output = bench(&daemon, &["--json", "--runs", "2"]);
    let told = said(&output.stderr);
    assert!(output.status.success(), "{told}\n{}", daemon.log());
    assert!(
        told.starts_with(&format!("measuring {TINY}: about ")),
        "{told}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |path: &str| {
        let number = report.pointer(path).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no {path} in {report:#}"))
    };
    for (path, tokens) in [("prefill", 512.0), ("decode", 128.0), ("first_token", 16.0)] {
        assert_eq!(number(&format!("/{path}/tokens")), tokens);
        assert_eq!(
            report[path]["runs"].as_array().unwrap().len(),
            2,
            "{report:#}"
        );
        assert!(number(&format!("/{path}/median")) > 0.0);
    }
    for start in ["first_start", "warm_start"] {
        let load = number(&format!("/{start}/load"));
        let first = number(&format!("/{start}/first_token"));
        assert!(
            load < first && first <= number(&format!("/{start}/total")),
            "{report:#}"
        );
    }
    assert!(number("/memory/peak") > number("/memory/anonymous"));
    assert!(number("/machine/ram") > 0.0);
    assert_eq!(report["model"]["id"], TINY);
    assert_eq!(report["daemon"]["version"], env!("CARGO_PKG_VERSION"));
    // Two starts, a text that became tokens, and two runs of each kind.
    assert_eq!(daemon.status()["served"], 7);
    let notes = report["notes"].to_string();
    assert!(!notes.contains("other requests"), "{notes}");
    assert!(notes.contains("--drop-caches"), "{notes}");
}

#[test]
fn the_same_as_a_table_and_as_markdown() {
    let daemon = Daemon::start();
    let output = bench(&daemon, &[TINY, "--runs", "1"]);
    let table = said(&output.stdout);
    assert!(output.status.success(), "{}", said(&output.stderr));
    for row in [
        "start to first token, again",
        "reading a prompt of 512 tokens",
        "writing 128 tokens",
        "memory",
    ] {
        assert!(table.contains(&format!("\n{row}  ")), "{row}: {table}");
    }
    let output = bench(&daemon, &[TINY, "--runs", "1", "--markdown"]);
    let markdown = said(&output.stdout);
    assert!(markdown.contains("\n| writing 128 tokens | "), "{markdown}");
    // It is sent to others: nothing names this machine.
    let home = daemon.dir.path().to_string_lossy();
    assert!(!markdown.contains(&*home), "{markdown}");
}

#[test]
fn who_uses_the_daemon_is_not_disturbed() {
    let daemon = Daemon::start();
    let other = daemon.stream(&endless());
    wait_for("the other's answer", || daemon.status()["running"] == 1);
    let output = bench(&daemon, &[]);
    let told = said(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{told}");
    assert!(told.contains("others use the daemon (1 running"), "{told}");
    assert_eq!(daemon.status()["running"], 1);
    drop(other);
}

#[test]
fn its_time_is_bounded() {
    let daemon = Daemon::start();
    let output = bench(&daemon, &["--limit", "1ms"]);
    let told = said(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("within 1ms") && told.contains("--limit"),
        "{told}"
    );
    let output = bench(&daemon, &["gemma-of-nobody"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output.stderr));
}

#[test]
fn who_may_not_unload_sees_no_starts() {
    if !rustix::process::geteuid().is_root() {
        return skip::skip("gemmactl bench of another user", "only root can become one");
    }
    let daemon = Daemon::with(Options {
        server: "socket-mode = \"0666\"".into(),
        ..Options::default()
    });
    std::fs::set_permissions(daemon.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // A copy, for the build may be where nobody else can go.
    let gemmactl = daemon.dir.path().join("gemmactl");
    std::fs::copy(env!("CARGO_BIN_EXE_gemmactl"), &gemmactl).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(gemmactl)
        .args(["bench", "--runs", "1", "--socket"])
        .arg(&daemon.socket)
        .current_dir("/")
        .output()
        .unwrap();
    let table = said(&output.stdout);
    assert!(output.status.success(), "{}", said(&output.stderr));
    assert!(table.contains("\nwriting 128 tokens  "), "{table}");
    assert!(!table.contains("start to first token"), "{table}");
    assert!(table.contains("only administrators may unload"), "{table}");
}

#[test]
fn the_page_cache_is_emptied_only_where_that_is_asked_for() {
    let daemon = Daemon::start();
    let stand_in = daemon.dir.path().join("drop_caches");
    std::fs::write(&stand_in, "").unwrap();
    // The machine's own page cache is none of a test's business.
    let script = "mount --bind \"$0\" /proc/sys/vm/drop_caches && exec \"$@\"";
    let within = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-m", "sh", "-c", script])
            .arg(&stand_in)
            .args(command)
            .output()
            .unwrap()
    };
    if !within(&["true"]).status.success() {
        return skip::skip(
            "gemmactl bench --drop-caches",
            "only root can mount a stand-in",
        );
    }
    let socket = daemon.socket.to_str().unwrap();
    let line = [
        env!("CARGO_BIN_EXE_gemmactl"),
        "bench",
        "--runs",
        "1",
        "--socket",
        socket,
    ];
    let output = within(&line);
    assert!(output.status.success(), "{}", said(&output.stderr));
    assert_eq!(std::fs::read_to_string(&stand_in).unwrap(), "");
    let output = within(&[&line[..], &["--drop-caches"]].concat());
    assert!(output.status.success(), "{}", said(&output.stderr));
    assert!(said(&output.stdout).contains("start to first token, cold page cache"));
    assert_eq!(std::fs::read_to_string(&stand_in).unwrap(), "1");
}
