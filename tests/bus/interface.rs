//! What is written of the interface holds: the installed XML, and the examples.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use zbus::fdo::{IntrospectableProxy, PeerProxy};

use crate::downloads::{models_of, with_tiny};
use crate::harness::hub::Hub;
use crate::harness::skip::skip;
use crate::harness::{self, endless};
use crate::private::{Bus, bus_of, manager, possible};
use crate::{PARIS, none};

/// Each interface's own XML, without the indentation that depends on where it stands.
fn interfaces(xml: &str) -> BTreeMap<String, String> {
    let parts = xml
        .split("<interface name=\"")
        .skip(1)
        .map(|part| part.split("</interface>").next().unwrap());
    let parts = parts.map(|part| {
        (
            part.split('"').next().unwrap(),
            part.lines().map(str::trim).collect::<Vec<_>>().join("\n"),
        )
    });
    parts
        .filter(|(name, _)| name.starts_with("org.gemmad."))
        .map(|(name, part)| (name.to_owned(), part.trim().to_owned()))
        .collect()
}

/// Holds the installed file against what the service says; writes what that is if they differ.
fn assert_is_installed(said: &BTreeMap<String, String>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/dbus/org.gemmad.Gemmad1.xml");
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    if interfaces(&written) != *said {
        let new = std::env::temp_dir().join("org.gemmad.Gemmad1.xml");
        let body: String = said
            .values()
            .map(|part| format!("<interface name=\"{part}\n</interface>\n"))
            .collect();
        std::fs::write(&new, format!("<node>\n{body}</node>\n")).unwrap();
        panic!(
            "{} is not what the code says, which is now in {}",
            file.display(),
            new.display()
        );
    }
}

#[tokio::test]
async fn the_installed_description_is_what_the_service_says_of_itself() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let (hub, models) = (Hub::start(), with_tiny());
    let environment = [("SSL_CERT_FILE", &*hub.trusted())];
    let _daemon = bus.daemon_with(hub.options(models.path(), ""), &environment);
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    let downloads = models_of(&connection).await;
    let download = downloads.pull(&hub.add("other.gguf"), none()).await;
    let download = download.unwrap();
    let (stream, _fd) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    let conversation = manager.open_conversation(none()).await.unwrap();
    let mut said = BTreeMap::new();
    for path in [
        gemmad::bus::PATH,
        stream.as_str(),
        conversation.as_str(),
        download.as_str(),
    ] {
        let object = IntrospectableProxy::builder(&connection)
            .destination(gemmad::bus::NAME)
            .unwrap()
            .path(path)
            .unwrap()
            .build()
            .await
            .unwrap();
        let xml = object.introspect().await.unwrap();
        assert!(xml.contains("org.freedesktop.DBus.Properties"), "{xml}");
        said.extend(interfaces(&xml));
    }
    assert_is_installed(&said);

    let peer = PeerProxy::builder(&connection)
        .destination(gemmad::bus::NAME)
        .unwrap()
        .path("/")
        .unwrap()
        .build()
        .await
        .unwrap();
    peer.ping().await.unwrap();
    assert!(
        bus_of(&connection)
            .await
            .list_names()
            .await
            .unwrap()
            .iter()
            .any(|name| name.as_str() == gemmad::bus::NAME)
    );
}

#[test]
fn the_examples_work() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let _daemon = bus.daemon(harness::Options::default());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients/dbus");
    let python = std::env::var("GEMMAD_PYTHON").ok();
    for (name, program, answers) in [
        ("busctl.sh", Some("sh"), 1),
        ("gdbus.sh", Some("sh"), 1),
        ("dbus_fast_ask.py", python.as_deref(), 2),
    ] {
        let Some(program) = program else {
            skip(
                &format!("docs/clients/dbus/{name}"),
                "GEMMAD_PYTHON names no Python with tests/clients/requirements.txt",
            );
            continue;
        };
        let output = Command::new(program)
            .arg(examples.join(name))
            .env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{name}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(said.matches(PARIS).count(), answers, "{name}: {said}");
    }
}
