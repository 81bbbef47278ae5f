//! The service on a real bus: what it offers, whom it serves, what it bears.

mod account;
mod asking;
mod conversations;
mod downloads;
mod gemmactl;
#[path = "../harness/mod.rs"]
mod harness;
mod interface;
mod private;
mod strain;
mod strangers;
mod streams;
mod users;
mod younger;

use futures_util::StreamExt;
use gemmad::bus::proxy::{ManagerProxy, Options};
use harness::{Daemon, TINY, question, wait_for};
use private::{Bus, manager, possible, sober};

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";

fn running(daemon: &Daemon) -> u64 {
    daemon.status()["running"].as_u64().unwrap()
}

fn none() -> Options<'static> {
    Options::new()
}

#[tokio::test]
async fn properties_follow_the_model() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    assert_eq!(
        (
            manager.state().await.unwrap().as_str(),
            manager.context().await.unwrap()
        ),
        ("cold", 0)
    );
    assert_eq!(manager.version().await.unwrap(), env!("CARGO_PKG_VERSION"));
    let watcher = ManagerProxy::new(&connection).await.unwrap();
    let mut states = watcher.receive_state_changed().await;

    assert_eq!(
        manager
            .load("auto", Options::from([("timeout", 60u32.into())]))
            .await
            .unwrap(),
        TINY
    );
    let mut seen = vec![];
    while seen.last().is_none_or(|state| state != "ready") {
        seen.push(states.next().await.unwrap().get().await.unwrap());
    }
    assert_eq!(manager.model().await.unwrap(), TINY);
    assert_eq!(manager.variant().await.unwrap(), "gemma-4-e2b");
    assert_eq!(
        (
            manager.context().await.unwrap(),
            manager.queue_length().await.unwrap()
        ),
        (2048, 0)
    );
    assert_eq!(
        (
            manager.device().await.unwrap().as_str(),
            manager.pressure().await.unwrap().as_str()
        ),
        ("cpu", "calm")
    );
    let (used, budget) = (
        manager.memory_used().await.unwrap(),
        manager.memory_budget().await.unwrap(),
    );
    assert!(used > 1 << 20 && budget > used, "{used} of {budget}");
    let models = manager.list_models().await.unwrap();
    let loaded: Vec<_> = models
        .iter()
        .filter(|model| bool::try_from(&model["loaded"]).unwrap())
        .collect();
    assert_eq!(loaded.len(), 1);
    assert_eq!(<&str>::try_from(&loaded[0]["id"]).unwrap(), TINY);

    manager.unload(none()).await.unwrap();
    assert_eq!(manager.memory_used().await.unwrap(), 0);
    wait_for("the last state", || daemon.status()["state"] == "cold");
    while seen.last().unwrap() != "cold" {
        seen.push(states.next().await.unwrap().get().await.unwrap());
    }
}

#[tokio::test]
async fn a_bus_that_restarts_is_joined_again() {
    if !possible() {
        return;
    }
    let mut bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    daemon.load();
    bus.restart();
    bus.wait_for_name();
    let manager = manager(&bus.connect().await).await;
    assert_eq!(manager.ask(FRANCE, sober()).await.unwrap(), PARIS);
    assert!(daemon.log().contains("the bus has hung up"));
}

#[test]
fn a_daemon_without_its_bus_serves_all_the_same() {
    let daemon = Daemon::with(harness::Options {
        server: "dbus = \"unix:path=/nowhere/bus\"".into(),
        ..harness::Options::default()
    });
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    assert!(daemon.log().contains("not on the bus"));
}
