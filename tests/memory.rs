//! What the daemon tells of memory and of its cache, over the API and on the command line.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use harness::{Daemon, Options, TINY, proc_kib, question};
use serde_json::{Value, json};

const DUMMY: &str = "x-0123456789abcdef";

/// Anyone may connect.
fn open_daemon() -> Daemon {
    Daemon::with(Options {
        server: "socket-mode = \"0666\"".into(),
        ..Options::default()
    })
}

fn gemmactl(daemon: &Daemon, args: &[&str], locale: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmactl"));
    command
        .arg("--socket")
        .arg(&daemon.socket)
        .args(args)
        .stdin(Stdio::null())
        .env_remove("NO_COLOR")
        .env("LC_ALL", locale);
    let output = command.output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn the_picture_is_empty_before_a_request_and_whole_after_it() {
    let daemon = Daemon::start();
    let cold = daemon.get("/memory").json();
    assert_eq!(
        (
            &cold["loaded"],
            &cold["model"],
            &cold["worker"],
            &cold["packing"]
        ),
        (&json!(false), &Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(cold["files"], json!([]));
    assert!(
        number(&cold["available"]) > 1 << 20
            && number(&cold["supervisor"]["anonymous"]) > 0
            && number(&cold["supervisor"]["file_backed"]) > 0
    );
    assert_eq!(daemon.status()["state"], "cold");

    daemon
        .chat(&question("What is the capital of France?"))
        .content();
    let warm = daemon.get("/memory").json();
    assert_eq!(
        (&warm["loaded"], &warm["model"]),
        (&json!(true), &json!(TINY))
    );
    let worker = &warm["worker"];
    assert_eq!(worker["pid"], daemon.status()["pid"]);
    assert!(
        number(&worker["anonymous"]) > 0 && number(&worker["peak"]) >= number(&worker["anonymous"]),
        "{worker}"
    );
    assert!(
        ["reused", "new", "in-memory", "nothing"]
            .contains(&warm["packing"]["how"].as_str().unwrap()),
        "{}",
        warm["packing"]
    );
    let file = &warm["files"][0];
    assert_eq!(file["role"], "model");
    assert_eq!(
        number(&file["bytes"]),
        fs::metadata(harness::tiny_models().join(format!("{TINY}.gguf")))
            .unwrap()
            .len()
    );
    let resident = number(&file["resident"]);
    assert!(
        resident > 0
            && resident <= number(&file["bytes"])
            && resident <= number(&worker["file_backed"]),
        "{resident}, {worker}"
    );
    for list in ["kinds", "parts"] {
        let list = file[list].as_array().unwrap();
        for size in ["bytes", "resident"] {
            assert_eq!(
                list.iter().map(|entry| number(&entry[size])).sum::<u64>(),
                number(&file[size])
            );
        }
        assert!(
            list.iter()
                .all(|entry| number(&entry["resident"]) <= number(&entry["bytes"]))
        );
    }
    assert!(
        file["parts"]
            .as_array()
            .unwrap()
            .iter()
            .any(|part| part["kind"] == "layers" && part["layer"] == 1)
    );

    daemon.post("/models/unload", &json!({}));
    assert_eq!(daemon.get("/memory").json()["loaded"], false);
}

/// What `memory plan` says of each member of the tiny family, against what its worker has after a
/// prompt that nearly fills its context.
#[test]
fn what_is_said_beforehand_is_what_is_taken() {
    let daemon = Daemon::with(Options {
        inference: "context = 2048\nslots = 1".into(),
        ..Options::default()
    });
    let numbers: String = (0..480).map(|i| format!("{i} ")).collect();
    for model in daemon.get("/memory/plan?context=2048").json()["models"]
        .as_array()
        .unwrap()
    {
        if model["installed"] == false {
            continue;
        }
        let mut question = question(&numbers);
        question["model"] = model["id"].clone();
        assert_eq!(daemon.chat(&question).status, 200);
        let worker = number(&daemon.status()["pid"]) as u32;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        // The plans are without the drafter, for which there is room here.
        let (plan, drafter) = (&model["plans"][0], number(&model["drafter"]));
        for (what, said, measured) in [
            (
                "unevictable",
                number(&plan["unevictable"]) + drafter,
                proc_kib(worker, "smaps_rollup", "Pss_Anon") << 10,
            ),
            (
                "total",
                number(&plan["total"]) + drafter,
                proc_kib(worker, "smaps_rollup", "Rss") << 10,
            ),
        ] {
            println!(
                "{}: {what}: {:.1} MiB said, {:.1} measured",
                model["id"],
                mib(said),
                mib(measured)
            );
            // 5 %, and what a busy machine leaves in libraries' pages and in the C library's
            // arenas.
            let near = mib(said.abs_diff(measured)) < 0.05 * mib(measured) + 1.5;
            assert!(
                near,
                "{}: {what}: {:.1} MiB said, {:.1} measured",
                model["id"],
                mib(said),
                mib(measured)
            );
        }
    }
}

#[test]
fn a_worker_that_does_not_look_delays_nobody_for_long_and_is_not_harmed() {
    let daemon = Daemon::start();
    let pid = daemon.load();
    harness::signal(pid, "STOP");
    // More than the worker's channel holds, each leaving at once.
    for _ in 0..700 {
        daemon
            .connect()
            .write_all(b"GET /memory HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
    }
    let reply = daemon.get("/memory");
    assert_eq!(reply.status, 504, "{}", reply.text());
    let metrics = daemon.get("/metrics").text();
    assert!(
        metrics.contains("\ngemmad_up 1\n") && !metrics.contains("gemmad_worker_anonymous_bytes"),
        "{metrics}"
    );
    harness::signal(pid, "CONT");
    assert_eq!(daemon.get("/memory").json()["worker"]["pid"], pid);
    assert_eq!(daemon.status()["crashes"], 0);
}

/// The samples of a page in the text exposition format 0.0.4, by name and labels. As strict as a
/// scraper may be.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let name = |text: &str| {
        !text.is_empty()
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(page.ends_with('\n'));
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (family, help) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .unwrap_or_else(|| panic!("no HELP: {line}"));
        assert!(
            name(family) && !help.is_empty() && families.insert(family),
            "{line}"
        );
        let (typed, kind) = lines
            .next()
            .and_then(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .expect("a TYPE after HELP");
        assert!(
            typed == family
                && ["gauge", "counter"].contains(&kind)
                && (kind == "counter") == family.ends_with("_total"),
            "{typed} {kind}"
        );
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no value: {line}"));
            let labels = series
                .strip_prefix(family)
                .unwrap_or_else(|| panic!("{line} under {family}"));
            if !labels.is_empty() {
                let labels = labels
                    .strip_prefix('{')
                    .and_then(|labels| labels.strip_suffix('}'))
                    .unwrap_or_else(|| panic!("{line}"));
                for label in labels.split("\",") {
                    let (label, value) =
                        label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    assert!(
                        name(label) && !value.trim_end_matches('"').contains(['"', '\\']),
                        "{line}"
                    );
                }
            }
            assert!(
                samples
                    .insert(series.to_owned(), value.parse().unwrap())
                    .is_none(),
                "twice: {line}"
            );
        }
    }
    samples
}

#[test]
fn metrics_are_prometheus_text_and_load_nothing() {
    let daemon = open_daemon();
    let scrape = || {
        let reply = daemon.get("/metrics");
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/plain; version=0.0.4"))
        );
        samples(&reply.text())
    };
    let loaded = format!("gemmad_model_loaded{{model=\"{TINY}\"}}");
    let cold = scrape();
    assert_eq!(
        (
            cold["gemmad_up"],
            cold[&loaded],
            cold["gemmad_requests_served_total"]
        ),
        (1.0, 0.0, 0.0)
    );
    assert!(cold["gemmad_available_bytes"] > 0.0 && !cold.contains_key("gemmad_worker_peak_bytes"));
    assert!(
        cold.keys()
            .any(|series| series.starts_with("gemmad_info{version="))
    );
    assert_eq!(daemon.status()["state"], "cold");
    if let Some(answer) = daemon.ask_as_stranger("GET", "/metrics", "") {
        assert!(
            answer.starts_with("HTTP/1.1 403") && !answer.contains("gemmad_up"),
            "{answer}"
        );
        assert!(
            daemon
                .ask_as_stranger("GET", "/memory", "")
                .unwrap()
                .starts_with("HTTP/1.1 200")
        );
    }

    daemon
        .chat(&question("What is the capital of France?"))
        .content();
    let warm = scrape();
    assert_eq!(
        (
            warm[&loaded],
            warm["gemmad_requests_served_total"],
            warm["gemmad_worker_crashes_total"]
        ),
        (1.0, 1.0, 0.0)
    );
    let bytes =
        |what: &str| warm[&format!("gemmad_{what}_bytes{{file=\"model\",kind=\"layers\"}}")];
    assert!(bytes("resident") > 0.0 && bytes("resident") <= bytes("mapped"));
    assert!(warm["gemmad_worker_peak_bytes"] >= warm["gemmad_worker_anonymous_bytes"]);
}

#[test]
fn gemmactl_draws_what_is_in_memory() {
    let daemon = Daemon::start();
    assert!(gemmactl(&daemon, &["memory"], "C.UTF-8").starts_with("no model is loaded\n"));
    daemon
        .chat(&question("What is the capital of France?"))
        .content();
    let blocks = gemmactl(&daemon, &["memory"], "C.UTF-8");
    eprintln!("{blocks}");
    assert!(
        blocks.starts_with(&format!("{TINY} is loaded, process ")),
        "{blocks}"
    );
    let map: Vec<_> = blocks
        .lines()
        .filter(|line| line.starts_with('│'))
        .collect();
    assert!(
        map.len() >= 4
            && map
                .iter()
                .all(|row| row.chars().count() == 80 && row.ends_with('│')),
        "{blocks}"
    );
    assert!(
        map.concat().contains('█') && !blocks.contains('\x1b'),
        "{blocks}"
    );
    for word in [
        "layers",
        "per-layer",
        "head",
        "header",
        "anonymous",
        "peak",
        "free",
        "packed",
    ] {
        assert!(
            blocks.lines().any(|line| line.starts_with(word)),
            "{word}: {blocks}"
        );
    }
    let ascii = gemmactl(&daemon, &["memory"], "C");
    assert!(ascii.is_ascii() && ascii.contains("|#"), "{ascii}");
    assert!(gemmactl(&daemon, &["memory", "--color", "always"], "C").contains("\x1b[36m"));
    let told: Value = serde_json::from_str(&gemmactl(&daemon, &["memory", "--json"], "C")).unwrap();
    assert_eq!(
        (&told["model"], &told["files"][0]["role"]),
        (&json!(TINY), &json!("model"))
    );
}

#[test]
fn the_cache_can_be_looked_at_and_cleared() {
    let daemon = open_daemon();
    let folder = daemon.dir.path().join("cache");
    let none = daemon.get("/cache").json();
    assert_eq!(
        none,
        json!({"directory": folder.to_str().unwrap(), "limit": 32_u64 << 30, "bytes": 0, "files": [], "prompts": {"bytes": 0, "entries": []}})
    );
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{DUMMY}.packed"));
    fs::write(&file, vec![0; 3 << 20]).unwrap();
    fs::write(folder.join("other"), b"not ours").unwrap();

    let cache = daemon.get("/cache").json();
    assert_eq!(
        (&cache["bytes"], cache["files"].as_array().unwrap().len()),
        (&json!(3 << 20), 1)
    );
    assert_eq!(
        (&cache["files"][0]["name"], &cache["files"][0]["in_use"]),
        (&json!(DUMMY), &json!(false))
    );
    let listed = gemmactl(&daemon, &["cache"], "C");
    assert!(
        listed.contains(&format!("{DUMMY}  3.0 MiB  just now\n"))
            && listed.contains("1 file, 3.0 MiB of 32.0 GiB at most, in /"),
        "{listed}"
    );
    let told: Value = serde_json::from_str(&gemmactl(&daemon, &["cache", "--json"], "C")).unwrap();
    assert_eq!(told["files"], cache["files"]);

    if let Some(answer) = daemon.ask_as_stranger("POST", "/cache/clear", "") {
        assert!(
            answer.starts_with("HTTP/1.1 403") && file.exists(),
            "{answer}"
        );
        assert!(
            daemon
                .ask_as_stranger("GET", "/cache", "")
                .unwrap()
                .contains(DUMMY)
        );
    }
    assert_eq!(
        gemmactl(&daemon, &["cache", "clear"], "C"),
        "removed 1 file, 3.0 MiB (3145728 bytes) freed\n"
    );
    assert!(!file.exists() && folder.join("other").exists());
    let told: Value =
        serde_json::from_str(&gemmactl(&daemon, &["cache", "clear", "--json"], "C")).unwrap();
    assert_eq!(told, json!({"freed": 0, "files": []}));
    assert_eq!(daemon.status()["state"], "cold");
}
