//! Users of the bus who may ask nothing: what they see, and what their reading costs others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gemmad::bus::proxy::ManagerProxy;
use zbus::connection::Builder;
use zbus::proxy::CacheProperties;

use crate::harness::users::as_user;
use crate::harness::{self, Daemon, question};
use crate::private::{Bus, NOBODY, STRANGER, manager, possible};
use crate::{FRANCE, none};

const SERVICE: &str = gemmad::bus::NAME;

#[tokio::test]
async fn nobody_sees_what_others_have_open() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let _daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    let conversation = manager.open_conversation(none()).await.unwrap();
    let path = conversation.as_str();
    let (folder, _) = path.rsplit_once('/').unwrap();
    let denied = |uid, args: &[&str]| {
        let output = bus.busctl(uid, args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{uid} {args:?}: {output:?}");
        assert!(!error.contains("conversation_"), "{error}");
    };
    let interface = "org.gemmad.Gemmad1.Conversation";
    for uid in [NOBODY, STRANGER] {
        denied(uid, &["introspect", SERVICE, folder]);
        denied(uid, &["introspect", SERVICE, "/"]);
        denied(uid, &["get-property", SERVICE, path, interface, "Model"]);
        let objects = "org.freedesktop.DBus.ObjectManager";
        let list = ["call", SERVICE, gemmad::bus::PATH, objects];
        denied(uid, &[&list[..], &["GetManagedObjects"]].concat());
        let shown = bus.busctl(uid, &["introspect", SERVICE, gemmad::bus::PATH]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(".State"), "{shown}");
        assert!(!shown.contains("onversation_"), "{shown}");
    }
}

/// The median of the times that an answer takes.
fn median(daemon: &Daemon) -> Duration {
    let mut times: Vec<_> = (0..15)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(daemon.chat(&question(FRANCE)).status, 200);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Reads a property that the worker must be asked for, again and again, until `ended`.
fn flood(bus: &Bus, ended: &AtomicBool, reads: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let builder = Builder::address(bus.address.as_str()).unwrap();
        let connection = builder.build().await.unwrap();
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .unwrap();
        let read = async || {
            while !ended.load(Ordering::Relaxed) {
                manager.memory_used().await.unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        };
        join_all((0..16).map(|_| read())).await;
    });
}

/// Clock ticks that a process has computed for.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields = fields.split(' ').skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_flood_of_reads_does_not_reach_the_worker() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let worker = daemon.load();
    let quiet = median(&daemon);
    let (ended, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let (flooded, per_second, computed) = std::thread::scope(|scope| {
        let floods = [STRANGER, STRANGER + 1].map(|uid| {
            let (bus, ended, reads) = (&bus, &ended, &reads);
            scope.spawn(move || as_user(uid, || flood(bus, ended, reads)))
        });
        harness::wait_for("the flood", || reads.load(Ordering::Relaxed) > 100);
        let (begun, before) = (Instant::now(), reads.load(Ordering::Relaxed));
        let computed = ticks(worker);
        std::thread::sleep(Duration::from_secs(2));
        let computed = ticks(worker) - computed;
        let flooded = median(&daemon);
        let read = reads.load(Ordering::Relaxed) - before;
        let per_second = read as f64 / begun.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        (flooded, per_second, computed)
    });
    eprintln!(
        "an answer took {quiet:?}, and {flooded:?} beside {per_second:.0} reads a second; the worker computed for {computed} ticks in 2 s"
    );
    assert!(computed < 20, "{computed} ticks of 200");
}
