//! Many at once, too much at once, too large at once: nobody else is blocked, and memory stays
//! bounded.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gemmad::bus::proxy::Options;
use serde_json::json;
use zbus::zvariant::{Fd, Value};

use crate::harness::{self, Daemon, endless, proc_kib, question, wait_for};
use crate::private::{Bus, manager, named, possible, sober};
use crate::{FRANCE, PARIS, none, running};

/// KiB of the supervisor that no file stands behind.
fn anonymous(daemon: &Daemon) -> u64 {
    proc_kib(daemon.pid(), "status", "RssAnon")
}

/// KiB that the idle supervisor may have, as without a bus (`footprint.rs`).
const RSS_ANON: u64 = 2 << 10;
const PSS: u64 = 12 << 10;

/// KiB that the supervisor has more at its peak, while `work` is done, than before.
async fn peak_growth(daemon: &Daemon, work: impl Future<Output = ()>) -> u64 {
    // From now on `VmHWM` is the peak since now.
    std::fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").unwrap();
    let before = proc_kib(daemon.pid(), "status", "VmRSS");
    work.await;
    proc_kib(daemon.pid(), "status", "VmHWM").saturating_sub(before)
}

/// A file of so many MiB that is in no folder; its first bytes are these, the others zeros.
fn memfd(begin: &[u8], mib: u64) -> std::fs::File {
    let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = std::fs::File::from(file);
    std::os::unix::fs::FileExt::write_all_at(&file, begin, 0).unwrap();
    file.set_len(mib << 20).unwrap();
    file
}

fn passed(file: &std::fs::File) -> Value<'static> {
    let file = std::os::fd::OwnedFd::from(file.try_clone().unwrap());
    Value::from(vec![Fd::from(file)])
}

#[tokio::test]
async fn a_large_file_is_there_once_and_in_the_frame_for_the_worker() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    daemon.load();
    let manager = manager(&bus.connect().await).await;
    let file = memfd(b"\x89PNG\r\n\x1a\n\xff", 20);
    let mut options = sober();
    options.insert("images", passed(&file));
    let ask = async {
        let (name, text) = named(manager.ask(FRANCE, options).await);
        assert!(name.ends_with(".InvalidRequest"), "{name}: {text}");
    };
    let kib = peak_growth(&daemon, ask).await;
    eprintln!("a file of 20 MiB took {kib} KiB");
    assert!(kib < 48 << 10, "{kib} KiB for a file of 20 MiB");
    let mut body = question(FRANCE);
    body["messages"][0]["content"] = json!([{"type": "image_url", "image_url": {"url": "fd:0"}}]);
    let chat = async {
        let files = Options::from([("files", passed(&file)), ("timeout", 60u32.into())]);
        let (name, text) = named(manager.chat(&body.to_string(), files).await);
        assert!(name.ends_with(".InvalidRequest"), "{name}: {text}");
    };
    let kib = peak_growth(&daemon, chat).await;
    eprintln!("the same in a request took {kib} KiB");
    assert!(kib < 48 << 10, "{kib} KiB for a file of 20 MiB");
}

#[tokio::test]
async fn callers_with_a_large_file_each_are_held_to_their_users_share() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    daemon.load();
    let file = memfd(b"", 23);
    let clients = join_all((0..8).map(|_| bus.connect())).await;
    let ask = async |client: &zbus::Connection| {
        let options = Options::from([("files", passed(&file)), ("timeout", 60u32.into())]);
        named(manager(client).await.ask(FRANCE, options).await).0
    };
    let all = async {
        let errors = join_all(clients.iter().map(ask)).await;
        let are = |name: &str| errors.iter().filter(|error| error.ends_with(name)).count();
        // 40 MiB are one user's share (`body-size`, and 8 MiB): there is room for one of them.
        assert!(are(".InvalidRequest") >= 1, "{errors:?}");
        assert_eq!(are(".InvalidRequest") + are(".Busy"), 8, "{errors:?}");
    };
    let kib = peak_growth(&daemon, all).await;
    eprintln!("eight files of 23 MiB took {kib} KiB");
    assert!(kib < 48 << 10, "{kib} KiB for eight files of 23 MiB");
}

#[tokio::test]
async fn a_request_of_many_small_values_costs_little_more_than_its_bytes() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let manager = manager(&bus.connect().await).await;
    let file = memfd(b"abc", 0);
    let request = format!("{{\"x\":[{}[]]}}", "[],".repeat(2 << 20));
    let chat = async {
        let files = Options::from([("files", passed(&file))]);
        let (name, text) = named(manager.chat(&request, files).await);
        assert!(
            name.ends_with(".InvalidRequest") && text.contains("`messages` is required"),
            "{name}: {text}"
        );
    };
    let kib = peak_growth(&daemon, chat).await;
    eprintln!("a request of 6 MiB took {kib} KiB");
    assert!(kib < 32 << 10, "{kib} KiB for a request of 6 MiB");
}

#[tokio::test]
async fn the_idle_supervisor_on_the_bus_is_small_before_and_after_work() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let check = |when: &str| {
        let (anon, pss) = (
            anonymous(&daemon),
            proc_kib(daemon.pid(), "smaps_rollup", "Pss"),
        );
        eprintln!("{when}: RssAnon {anon} KiB, PSS {pss} KiB");
        assert!(
            anon <= RSS_ANON && pss <= PSS,
            "{when}: RssAnon {anon} KiB, PSS {pss} KiB"
        );
    };
    check("fresh");
    let manager = manager(&bus.connect().await).await;
    for _ in 0..20 {
        manager.ask(FRANCE, sober()).await.unwrap();
    }
    manager.unload(none()).await.unwrap();
    check("after work");
}

#[tokio::test]
async fn two_hundred_programs_are_answered() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let limits = "queue = 256\nqueue-per-user = 256".into();
    let daemon = bus.daemon(harness::Options {
        limits,
        ..harness::Options::default()
    });
    daemon.load();
    let clients = join_all((0..200).map(|_| bus.connect())).await;
    let mut body = question(FRANCE);
    body["max_tokens"] = json!(2);
    let body = body.to_string();
    let ask = async |client: &zbus::Connection| {
        manager(client)
            .await
            .chat(&body, Options::from([("timeout", 60u32.into())]))
            .await
    };
    for answer in join_all(clients.iter().map(ask)).await {
        assert!(answer.unwrap().contains("\"finish_reason\":\"length\""));
    }
    drop(clients);
    wait_for("everything to end", || running(&daemon) == 0);
    let kib = anonymous(&daemon);
    eprintln!("{kib} KiB after 200 programs");
    assert!(kib < 10 << 10, "{kib} KiB after 200 programs");
    wait_for("the memory to be given back", || {
        anonymous(&daemon) <= RSS_ANON
    });
}

#[tokio::test]
async fn owners_that_vanish_leave_nothing_behind() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    daemon.load();
    let before = harness::descriptors(daemon.pid());
    for _ in 0..5 {
        let connection = bus.connect().await;
        let manager = manager(&connection).await;
        let body = endless().to_string();
        let streams = join_all((0..6).map(|_| manager.open_stream(&body, Options::new()))).await;
        let streams: Vec<_> = streams.into_iter().map(Result::unwrap).collect();
        manager.open_conversation(none()).await.unwrap();
        wait_for("answers to begin", || running(&daemon) == 2);
        connection.close().await.unwrap();
        drop(streams);
    }
    wait_for("everything to end", || {
        running(&daemon) == 0 && daemon.status()["waiting"] == 0
    });
    wait_for("the sockets' end", || {
        harness::descriptors(daemon.pid()) <= before
    });
}

#[tokio::test]
async fn a_flood_does_not_keep_others_from_being_answered() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    daemon.load();
    let (flood, other) = (bus.connect().await, bus.connect().await);
    let mut body = endless();
    body["max_tokens"] = json!(300);
    let body = body.to_string();
    let flooding = tokio::spawn(async move {
        let manager = manager(&flood).await;
        let calls = join_all((0..2000).map(|_| manager.chat(&body, none()))).await;
        calls.into_iter().filter(|call| call.is_err()).count()
    });
    // Properties come while all that is refused.
    let manager = manager(&other).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        manager.state().await.unwrap();
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // The same user, who has too much open already; another one has turns of their own.
    let answer = bus
        .as_user(crate::private::NOBODY, "busctl")
        .args([
            "--timeout=60",
            "call",
            gemmad::bus::NAME,
            gemmad::bus::PATH,
            "org.gemmad.Gemmad1.Manager",
            "Ask",
            "sa{sv}",
            FRANCE,
            "2",
        ])
        .args(["temperature", "d", "0", "timeout", "u", "60"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&answer.stdout).contains(PARIS),
        "{answer:?}"
    );
    assert!(flooding.await.unwrap() > 1000, "a flood is refused");
    wait_for("everything to end", || running(&daemon) == 0);
    let kib = anonymous(&daemon);
    assert!(kib < 16 << 10, "{kib} KiB after a flood");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_forgotten() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options {
        limits: "body-size = \"1 MiB\"".into(),
        ..harness::Options::default()
    });
    daemon.load();
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    let large = "x".repeat(8 << 20);
    for _ in 0..8 {
        assert!(
            named(manager.ask(&large, none()).await)
                .0
                .ends_with(".TooLarge")
        );
    }
    assert_eq!(manager.ask(FRANCE, sober()).await.unwrap(), PARIS);
    let kib = anonymous(&daemon);
    assert!(kib < 32 << 10, "{kib} KiB after 64 MiB of what was refused");
}
