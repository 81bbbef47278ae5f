//! Models that come and go over the bus: who may, who sees it, what is told.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gemmad::bus::proxy::{DownloadProxy, ModelsProxy};
use serde_json::{Value, json};
use zbus::Connection;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedObjectPath;

use crate::harness::hub::{FILES, Hub, REPOSITORY};
use crate::harness::{TINY, tiny_models, wait_for};
use crate::private::{Bus, NOBODY, STRANGER, manager, named, possible, sober};
use crate::{FRANCE, PARIS, none};

const SERVICE: &str = gemmad::bus::NAME;

/// What the hub is asked for.
pub fn asked() -> String {
    format!("{REPOSITORY}:{}", FILES[0])
}

pub async fn models_of(connection: &Connection) -> ModelsProxy<'static> {
    ModelsProxy::new(connection).await.unwrap()
}

/// A model directory that has the usual model.
pub fn with_tiny() -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    let file = format!("{TINY}.gguf");
    fs::copy(tiny_models().join(&file), models.path().join(&file)).unwrap();
    models
}

async fn download<'a>(connection: &Connection, path: &'a OwnedObjectPath) -> DownloadProxy<'a> {
    DownloadProxy::builder(connection)
        .path(path)
        .unwrap()
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .unwrap()
}

async fn properties<'a>(connection: &Connection, path: &'a OwnedObjectPath) -> PropertiesProxy<'a> {
    PropertiesProxy::builder(connection)
        .destination(SERVICE)
        .unwrap()
        .path(path)
        .unwrap()
        .build()
        .await
        .unwrap()
}

fn denied(bus: &Bus, uid: u32, args: &[&str]) -> String {
    let output = bus.busctl(uid, args);
    assert!(!output.status.success(), "{uid} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_download_tells_its_owner_how_far_it_is_and_that_it_is_done() {
    if !possible() {
        return;
    }
    let (bus, hub) = (Bus::start(), Hub::start());
    let folder = tempfile::tempdir().unwrap();
    let environment = [("SSL_CERT_FILE", &*hub.trusted())];
    let daemon = bus.daemon_with(hub.options(folder.path(), ""), &environment);
    let connection = bus.connect().await;
    let models = models_of(&connection).await;
    let plan = models.plan_pull(&asked(), none()).await.unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let all = plan["download"].as_u64().unwrap();

    hub.behave(json!({"pace": 0.05}));
    let path = models.pull(&asked(), none()).await.unwrap();
    assert!(path.as_str().starts_with("/org/gemmad/client/download_"));
    let job = download(&connection, &path).await;
    let seen = properties(&connection, &path).await;
    let mut changes = seen.receive_properties_changed().await.unwrap();
    let mut finished = job.receive_finished().await.unwrap();
    let state = job.state().await.unwrap();
    assert!(["downloading", "verifying"].contains(&&*state), "{state}");
    assert_eq!(job.model().await.unwrap(), TINY);
    assert_eq!(job.total().await.unwrap(), all);

    let (begun, mut told, mut received) = (Instant::now(), 0, vec![]);
    let end = loop {
        tokio::select! {
            biased;
            Some(change) = changes.next() => {
                told += 1;
                let change = change.args().unwrap();
                let value = change.changed_properties().get("Received");
                received.extend(value.map(|value| u64::try_from(value).unwrap()));
            }
            Some(end) = finished.next() => break end,
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("no end: {}", daemon.log()),
        }
    };
    let most = begun.elapsed().as_millis() / 250 + 3;
    assert!(
        told >= 2 && u128::try_from(told).unwrap() <= most,
        "{told} of {most}"
    );
    assert!(received.is_sorted(), "{received:?}");
    assert_eq!(received.last(), Some(&all));
    let end = end.args().unwrap();
    assert_eq!((*end.state(), *end.error()), ("done", ""));
    // It can be asked at once, and what became of it can still be read.
    assert_eq!(job.state().await.unwrap(), "done");
    let manager = manager(&connection).await;
    assert_eq!(manager.ask(FRANCE, sober()).await.unwrap(), PARIS);
    let verified = models.verify(TINY, none()).await.unwrap();
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
    // A model in use is not taken away.
    let (name, _) = named(models.remove(TINY).await);
    assert_eq!(name, "org.gemmad.Error.Busy");
    manager.unload(none()).await.unwrap();
    models.remove(TINY).await.unwrap();
    wait_for("the model to be gone", || {
        daemon.get("/v1/models").json()["data"] == json!([])
    });

    // From a descriptor, and nothing but a file.
    let file = File::open(tiny_models().join(FILES[0])).unwrap();
    let file = std::os::fd::OwnedFd::from(file).into();
    let imported = models.import(FILES[0], file, none()).await.unwrap();
    let imported: Value = serde_json::from_str(&imported).unwrap();
    assert_eq!(imported["id"], TINY, "{imported}");
    let (pipe, _end) = std::io::pipe().unwrap();
    let pipe = std::os::fd::OwnedFd::from(pipe).into();
    let (name, text) = named(models.import("x.gguf", pipe, none()).await);
    assert_eq!(name, "org.gemmad.Error.InvalidRequest");
    assert!(text.contains("no regular file"), "{text}");
}

#[tokio::test]
async fn others_do_not_see_a_download_and_cannot_end_it() {
    if !possible() {
        return;
    }
    let (bus, hub) = (Bus::start(), Hub::start());
    let folder = tempfile::tempdir().unwrap();
    let environment = [("SSL_CERT_FILE", &*hub.trusted())];
    let daemon = bus.daemon_with(hub.options(folder.path(), ""), &environment);
    let connection = bus.connect().await;
    let models = models_of(&connection).await;
    hub.behave(json!({"pace": 0.2}));
    // Whoever listens to all signals hears nothing of it.
    let listening = bus.dir().join("heard");
    let mut listener = bus
        .as_user(NOBODY, "dbus-monitor")
        .args(["--address", &bus.address, "type='signal'"])
        .stdout(File::create(&listening).unwrap())
        .spawn()
        .unwrap();
    let path = models.pull(&asked(), none()).await.unwrap();
    let path = path.as_str();
    let (folder_of, _) = path.rsplit_once('/').unwrap();
    let interface = "org.gemmad.Gemmad1.Download";
    for uid in [NOBODY, STRANGER] {
        for hidden in [folder_of, "/"] {
            let error = denied(&bus, uid, &["introspect", SERVICE, hidden]);
            assert!(!error.contains("download_"), "{error}");
        }
        denied(
            &bus,
            uid,
            &["get-property", SERVICE, path, interface, "State"],
        );
        denied(&bus, uid, &["call", SERVICE, path, interface, "Cancel"]);
        let properties = "org.freedesktop.DBus.Properties";
        let all = ["call", SERVICE, path, properties, "GetAll", "s", interface];
        let output = bus.busctl(uid, &all);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!shown.contains(TINY), "{shown}");
    }
    // Who is no administrator changes nothing.
    let interface = "org.gemmad.Gemmad1.Models";
    let call = ["call", SERVICE, gemmad::bus::PATH, interface];
    for args in [
        &["Pull", "sa{sv}", &asked(), "0"][..],
        &["PlanPull", "sa{sv}", &asked(), "0"],
        &["ListPulls"],
        &["CancelPull", "s", "x"],
        &["Remove", "s", TINY],
        &["Verify", "sa{sv}", TINY, "0"],
    ] {
        let error = denied(&bus, NOBODY, &[&call[..], args].concat());
        assert!(error.contains("for administrators"), "{error}");
        denied(&bus, STRANGER, &[&call[..], args].concat());
    }
    let seen = || daemon.get("/v1/models/pulls").json()["data"][0].clone();
    assert_eq!(seen()["state"], "downloading");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let _ = listener.kill();
    let _ = listener.wait();
    let heard = fs::read_to_string(&listening).unwrap();
    assert!(heard.contains("NameAcquired"), "{heard}");
    assert!(!heard.contains("download_"), "{heard}");

    // A second one who asks joins it; the download outlives those who wait for it.
    let other = bus.connect().await;
    let joined = models_of(&other).await.pull(&asked(), none()).await;
    let joined = joined.unwrap();
    assert_ne!(joined.as_str(), path);
    other.close().await.unwrap();
    let owned = OwnedObjectPath::try_from(path).unwrap();
    let job = download(&connection, &owned).await;
    assert_eq!(job.state().await.unwrap(), "downloading");
    let mut finished = job.receive_finished().await.unwrap();
    job.cancel().await.unwrap();
    let end = finished.next().await.unwrap();
    assert_eq!(*end.args().unwrap().state(), "cancelled");
    assert_eq!(seen()["state"], "cancelled");
}
