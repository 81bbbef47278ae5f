//! Memory that runs short while the daemon serves: it gives back, shrinks, ends, and serves again.

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::cgroup::{Group, Hog};
use harness::{Daemon, Options, Reply, endless, proc_kib, question, signal, wait_for};
use serde_json::json;

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";
const MIB: u64 = 1 << 20;
/// Enough for the daemon, a worker and what the tests need beside them.
const LIMIT: u64 = 400 * MIB;
/// What the daemon wants to stay free of it.
const FLOOR: u64 = 24 * MIB;

fn level(daemon: &Daemon) -> String {
    daemon.status()["memory"]["level"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn samples(daemon: &Daemon, name: &str) -> u64 {
    let page = daemon.get("/metrics").text();
    let line = page.lines().find_map(|line| {
        line.strip_prefix(&format!("gemmad_{name} "))
            .map(str::to_owned)
    });
    line.unwrap_or_else(|| panic!("{name}: {page}"))
        .parse()
        .unwrap()
}

#[test]
fn an_idle_worker_gives_back_what_it_can_and_answers_as_before() {
    let options = Options {
        models_keys: "idle-release = \"2s\"".into(),
        inference: "context = 4096".into(),
        ..Options::default()
    };
    let daemon = Daemon::with(options);
    let worker = daemon.load();
    let long = question(&"a word and another ".repeat(400));
    assert_eq!(daemon.chat(&long).status, 200);
    let anonymous = || proc_kib(worker, "status", "RssAnon");
    let before = anonymous();
    wait_for("the memory to be given back", || {
        anonymous() + 3 * 1024 < before
    });
    wait_for("the report", || {
        daemon.log().contains("the worker gave back what it could")
    });
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    assert_eq!(
        (&daemon.status()["pid"], &daemon.status()["crashes"]),
        (&json!(worker), &json!(0))
    );
    assert_eq!(level(&daemon), "calm", "nothing is short");
}

#[test]
fn what_is_taken_step_by_step_costs_no_answer_that_had_begun() {
    let Some(group) = Group::new("memory that is taken step by step", LIMIT) else {
        return;
    };
    let options = Options {
        inference: "slots = 1\ncontext = 4096".into(),
        memory: "reserve = \"0\"".into(),
        ..Options::default()
    };
    let daemon = Daemon::with(options);
    group.admit(daemon.pid());
    let first = daemon.load();
    let mut body = endless();
    body["max_tokens"] = json!(1500);
    let mut running = daemon.stream(&body);
    running.next().unwrap();
    running.next().unwrap();

    let mut hogs = vec![Hog::leave(&group, 40 * MIB as i64)];
    wait_for("the first step", || level(&daemon) == "eased");
    hogs.push(Hog::leave(&group, 21 * MIB as i64));
    wait_for("memory to be taken", || group.free() < FLOOR);
    let low = Instant::now();
    wait_for("the second step", || {
        level(&daemon) == "shrinking" || daemon.status()["pid"] != first
    });
    assert!(
        low.elapsed() < Duration::from_secs(3),
        "{:?}",
        low.elapsed()
    );
    let told = daemon.status()["memory"].clone();
    assert!(
        told["reason"].as_str().unwrap().contains(&format!(
            "MiB are left of the memory limit of {}",
            group.folder.display()
        )),
        "{told}"
    );
    let waiting = daemon.send(
        "/v1/chat/completions",
        question(FRANCE).to_string().as_bytes(),
    );
    assert_eq!(running.text().1, Ok(()), "it had begun and is finished");
    wait_for("the worker to end", || daemon.status()["pid"] != first);
    hogs.clear();
    assert_eq!(Reply::read(waiting).unwrap().content(), PARIS);
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    let status = daemon.status();
    assert_eq!(status["crashes"], 0, "{}", daemon.log());
    assert!(
        samples(&daemon, "memory_eases_total") >= 1 && samples(&daemon, "memory_ends_total") >= 1
    );
}

#[test]
fn a_worker_that_the_kernel_takes_is_followed_by_a_smaller_one() {
    let Some(group) = Group::new("a worker that the kernel takes", LIMIT) else {
        return;
    };
    let daemon = Daemon::with(Options {
        inference: "context = 4096\nbatch = 256".into(),
        ..Options::default()
    });
    let scores = |pid: u32| {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))
            .unwrap()
            .trim()
            .parse::<i32>()
            .unwrap()
    };
    group.admit(daemon.pid());
    let worker = daemon.load();
    assert_eq!(daemon.status()["context"], 4096);
    assert!(
        scores(worker) > scores(daemon.pid()),
        "the worker goes first"
    );
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    running.next().unwrap();
    // Many, so that none of them is the one that the kernel takes; the last one all at once, so
    // that no step comes before it.
    let hogs = [300, 200, 100, 60, -4].map(|mib| Hog::leave(&group, mib * MIB as i64));
    let (_, end) = running.text();
    let message = end.unwrap_err();
    assert!(message.contains("memory ran out"), "{message}");
    drop(hogs);
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    let status = daemon.status();
    assert!(status["context"].as_u64().unwrap() < 4096, "{status}");
    // On a slow machine the daemon may have decided to end it before the kernel took it.
    let (taken, ended) = (
        samples(&daemon, "worker_oom_kills_total"),
        samples(&daemon, "memory_ends_total"),
    );
    assert!(
        taken <= 1 && ended <= 1 && taken + ended >= 1,
        "{taken} {ended} {}",
        daemon.log()
    );
}

#[test]
fn a_kill_by_somebody_else_makes_nothing_smaller() {
    let daemon = Daemon::with(Options {
        inference: "context = 4096".into(),
        ..Options::default()
    });
    signal(daemon.load(), "KILL");
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    assert_eq!(
        (
            &daemon.status()["context"],
            samples(&daemon, "worker_oom_kills_total")
        ),
        (&json!(4096), 0)
    );
}
