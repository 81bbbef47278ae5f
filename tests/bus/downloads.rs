//! Models that come and go over the bus: who may, who sees it, what is told.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gemmad::bus::proxy::{DownloadProxy, ModelsProxy};
use serde_json::{Value, json};
use zbus::Connection;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedObjectPath;

use crate::harness::hub::{FILES, Hub, REPOSITORY};
use crate::harness::{Daemon, Options, TINY, tiny_models, wait_for};
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

/// A daemon with a catalog that lets `NOBODY` fetch from the hub.
fn daemon_that_lets(bus: &Bus, hub: &Hub, models: &Path, keys: &str) -> Daemon {
    let catalog = bus.dir().join("catalog.d");
    DirBuilder::new().mode(0o755).create(&catalog).unwrap();
    let text = format!("[[allow]]\nrepositories = [\"{REPOSITORY}\"]\nusers = [\"{NOBODY}\"]\n");
    fs::write(catalog.join("own.toml"), text).unwrap();
    // Everybody may write the bus's folder; the folder that leads to a catalog is nobody else's.
    fs::set_permissions(bus.dir(), fs::Permissions::from_mode(0o1777)).unwrap();
    let options = Options {
        models_keys: format!("catalog-directory = \"{}\"\n{keys}", catalog.display()),
        ..hub.options(models, "")
    };
    bus.daemon_with(options, &[("SSL_CERT_FILE", &hub.trusted())])
}

#[tokio::test]
async fn whom_a_catalog_lets_download_sees_and_ends_their_own_downloads_and_no_others() {
    if !possible() {
        return;
    }
    let (bus, hub) = (Bus::start(), Hub::start());
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon_that_lets(&bus, &hub, folder.path(), "");
    let call = [
        "call",
        SERVICE,
        gemmad::bus::PATH,
        "org.gemmad.Gemmad1.Models",
    ];
    let with = |args: &[&'static str]| [&call[..], args].concat();
    let told = |uid, args: &[&str]| {
        let output = bus.busctl(uid, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    hub.behave(json!({"pace": 0.2}));
    let pull = |name: &str| {
        [&call[..], &["Pull", "sa{sv}", name, "0"]]
            .concat()
            .join("\n")
    };
    let pulled = |uid, name: &str| told(uid, &pull(name).split('\n').collect::<Vec<_>>());
    // Who calls leaves the bus at once, and the download goes on.
    pulled(NOBODY, &asked());
    let seen = || daemon.get("/v1/models/pulls").json()["data"].clone();
    let own = seen()[0]["id"].as_str().unwrap().to_owned();
    assert!(told(NOBODY, &with(&["ListPulls"])).contains(&own));
    // Another's is none of theirs.
    let connection = bus.connect().await;
    let models = models_of(&connection).await;
    models.pull(&hub.file(FILES[0]), none()).await.unwrap();
    let all: Value = serde_json::from_str(&models.list_pulls().await.unwrap()).unwrap();
    let ids: Vec<&str> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{all}");
    let other = *ids.iter().find(|id| **id != own).unwrap();
    assert!(!told(NOBODY, &with(&["ListPulls"])).contains(other));
    let error = denied(
        &bus,
        NOBODY,
        &[&call[..], &["CancelPull", "s", other]].concat(),
    );
    assert!(error.contains("for administrators"), "{error}");
    told(NOBODY, &[&call[..], &["CancelPull", "s", &own]].concat());
    let state = |id: &str| {
        let seen = seen();
        let mut seen = seen.as_array().unwrap().iter();
        seen.find(|one| one["id"] == id).unwrap()["state"].clone()
    };
    assert_eq!(
        (state(&own), state(other)),
        (json!("cancelled"), json!("downloading"))
    );
    // Nothing else is theirs, though they may download.
    let error = denied(&bus, NOBODY, &with(&["Prune", "a{sv}", "0"]));
    assert!(error.contains("for administrators"), "{error}");
    models.cancel_pull(other).await.unwrap();
}

#[tokio::test]
async fn what_serves_no_model_is_pruned() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let models = with_tiny();
    let daemon = bus.daemon(Options {
        models: models.path().to_owned(),
        ..Options::default()
    });
    let packed = daemon.dir.path().join("cache/gone-0123456789abcdef.packed");
    fs::create_dir_all(packed.parent().unwrap()).unwrap();
    fs::write(&packed, [0; 8192]).unwrap();
    let connection = bus.connect().await;
    let proxy = models_of(&connection).await;
    let dry_run = gemmad::bus::proxy::Options::from([("dry-run", true.into())]);
    for (options, is_there) in [(dry_run, true), (none(), false)] {
        let pruned = proxy.prune(options).await.unwrap();
        let pruned: Value = serde_json::from_str(&pruned).unwrap();
        assert_eq!(
            (&pruned["freed"], &pruned["dry_run"]),
            (&json!(8192), &json!(is_there)),
            "{pruned}"
        );
        assert_eq!(pruned["data"][0]["kind"], "packed_weights", "{pruned}");
        assert_eq!(packed.exists(), is_there);
    }
    let again: Value = serde_json::from_str(&proxy.prune(none()).await.unwrap()).unwrap();
    assert_eq!(again["data"], json!([]));
    assert_eq!(daemon.get("/v1/models").json()["data"][0]["id"], TINY);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_fetched_for_those_who_may() {
    if !possible() {
        return;
    }
    let (bus, hub) = (Bus::start(), Hub::start());
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon_that_lets(&bus, &hub, folder.path(), "pull-on-demand = true\n");
    let ask = |uid, name: &str| {
        let manager = "org.gemmad.Gemmad1.Manager";
        let ask = [
            "call",
            "--timeout=60",
            SERVICE,
            gemmad::bus::PATH,
            manager,
            "Ask",
            "sa{sv}",
            FRANCE,
        ];
        let options = [
            "3",
            "temperature",
            "d",
            "0",
            "timeout",
            "u",
            "60",
            "model",
            "s",
            name,
        ];
        let output = bus.busctl(uid, &[&ask[..], &options].concat());
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).unwrap()
    };
    assert!(ask(NOBODY, "e2b").contains("`gemmactl pull e2b` fetches it"));
    assert_eq!(daemon.get("/v1/models/pulls").json()["data"], json!([]));
    let told = ask(NOBODY, &asked());
    assert!(told.contains(PARIS), "{told}");
    // A call that ends before leaves the download going on.
    hub.behave(json!({"pace": 0.05}));
    let connection = bus.connect().await;
    let mut options = sober();
    let address = hub.add("other.gguf");
    options.insert("timeout", 1u32.into());
    options.insert("model", address.as_str().into());
    let (name, message) = named(manager(&connection).await.ask(FRANCE, options).await);
    assert_eq!(name, "org.gemmad.Error.TimedOut", "{message}");
    wait_for("the download's end", || {
        let pulls = daemon.get("/v1/models/pulls").json();
        let mut pulls = pulls["data"].as_array().unwrap().iter();
        pulls.all(|pull| pull["state"] == "done")
    });
}
