//! The service on a real bus: what it offers, whom it serves, what it bears.

mod gemmactl;
#[path = "../harness/mod.rs"]
mod harness;
mod interface;
mod private;
mod strain;
mod users;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gemmad::bus::proxy::{ConversationProxy, ManagerProxy, Options, StreamProxy};
use harness::{Daemon, TINY, endless, question, wait_for};
use private::{Bus, manager, named, possible, sober};
use serde_json::{Value, json};
use zbus::zvariant;

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";

fn running(daemon: &Daemon) -> u64 {
    daemon.status()["running"].as_u64().unwrap()
}

fn none() -> Options<'static> {
    Options::new()
}

fn socket(fd: zvariant::OwnedFd) -> UnixStream {
    UnixStream::from(std::os::fd::OwnedFd::from(fd))
}

#[tokio::test]
async fn the_service_answers_and_tells_what_it_does() {
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

    assert_eq!(manager.ask(FRANCE, sober()).await.unwrap(), PARIS);
    assert!(manager.tokens_per_second().await.unwrap() > 1.0);
    let whole: Value = serde_json::from_str(
        &manager
            .chat(&question(FRANCE).to_string(), none())
            .await
            .unwrap(),
    )
    .unwrap();
    assert_eq!(
        (&whole["choices"][0]["message"]["content"], &whole["model"]),
        (&json!(PARIS), &json!(TINY))
    );
    let plan = manager
        .plan(Options::from([
            ("context", 4096u32.into()),
            ("ram", (1u64 << 30).into()),
        ]))
        .await
        .unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["free"], json!(1u64 << 30));
    assert_eq!(plan["models"][0]["plans"][0]["context"], 4096);

    manager.unload(none()).await.unwrap();
    assert_eq!(manager.memory_used().await.unwrap(), 0);
    wait_for("the last state", || daemon.status()["state"] == "cold");
    while seen.last().unwrap() != "cold" {
        seen.push(states.next().await.unwrap().get().await.unwrap());
    }
    let log = daemon.log();
    assert!(!log.contains("France"), "{log}");
}

#[tokio::test]
async fn errors_have_names_and_remedies() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options {
        limits: "body-size = \"64 KiB\"".into(),
        ..harness::Options::default()
    });
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    let refused = async |name: &str, prompt: &str, options: Options<'_>| {
        let (error, text) = named(manager.ask(prompt, options).await);
        assert_eq!(error, format!("org.gemmad.Error.{name}"), "{text}");
        text
    };
    let text = refused(
        "UnknownModel",
        FRANCE,
        Options::from([("model", "gemma-9".into())]),
    )
    .await;
    assert!(text.contains("gemma-9") && text.contains(TINY), "{text}");
    assert!(
        refused(
            "InvalidRequest",
            FRANCE,
            Options::from([("colour", 1u32.into())])
        )
        .await
        .contains("\"colour\"")
    );
    assert!(
        refused(
            "InvalidRequest",
            FRANCE,
            Options::from([("model", 1u32.into())])
        )
        .await
        .contains("must be a string")
    );
    assert!(
        refused(
            "InvalidRequest",
            FRANCE,
            Options::from([("temperature", (-1.0).into())])
        )
        .await
        .contains("temperature")
    );
    assert!(
        refused("TooLarge", &"x".repeat(65 << 10), none())
            .await
            .contains("body-size")
    );
    assert!(
        named(manager.chat("{", none()).await)
            .0
            .ends_with(".InvalidRequest")
    );
    assert!(
        named(manager.chat("{\"messages\": []}", none()).await)
            .1
            .contains("messages")
    );
    // A call is not left waiting for longer than its caller listens.
    let long = Options::from([("timeout", 1u32.into())]);
    let mut body = endless();
    body["max_tokens"] = json!(1900);
    daemon.load();
    let blocked: Vec<_> = (0..2).map(|_| daemon.stream(&endless())).collect();
    wait_for("both slots", || running(&daemon) == 2);
    let asked = Instant::now();
    let (error, text) = named(manager.chat(&body.to_string(), long).await);
    assert!(
        error.ends_with(".TimedOut") && text.contains("`timeout`") && text.contains("OpenStream"),
        "{error}: {text}"
    );
    assert!(asked.elapsed() < Duration::from_secs(3));
    drop(blocked);
    wait_for("the end of what nobody waits for", || {
        running(&daemon) == 0 && daemon.status()["waiting"] == 0
    });
}

#[tokio::test]
async fn a_stream_comes_over_a_socket_and_is_cancelled() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let manager = manager(&connection).await;

    let (_, fd) = manager
        .open_stream(&question(FRANCE).to_string(), none())
        .await
        .unwrap();
    let lines = tokio::task::spawn_blocking(|| {
        BufReader::new(socket(fd))
            .lines()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    })
    .await
    .unwrap();
    let chunks: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, PARIS);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );

    // By its method, for its owner alone.
    let (path, fd) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    let other = bus.connect().await;
    let stream = StreamProxy::builder(&other)
        .path(path.clone())
        .unwrap()
        .build()
        .await
        .unwrap();
    assert!(named(stream.cancel().await).0.ends_with(".NotAuthorized"));
    let stream = StreamProxy::builder(&connection)
        .path(path)
        .unwrap()
        .build()
        .await
        .unwrap();
    stream.cancel().await.unwrap();
    wait_for("the cancelled answer's end", || running(&daemon) == 0);
    let left = tokio::task::spawn_blocking(|| socket(fd).read_to_end(&mut vec![]))
        .await
        .unwrap();
    assert!(left.is_ok(), "the socket ends");
    assert!(named(stream.cancel().await).0.contains("UnknownObject"));

    // By closing.
    let (_, fd) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    drop(fd);
    wait_for("the closed answer's end", || running(&daemon) == 0);

    // By leaving the bus, even if somebody else holds the socket.
    let owner = private::manager(&other).await;
    let (_, fd) = owner
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    drop(owner);
    other.close().await.unwrap();
    wait_for("the abandoned answer's end", || running(&daemon) == 0);
    drop(fd);

    // What fails says why, in a line of its own.
    let (_, fd) = manager
        .open_stream(
            &json!({"model": "gemma-9", "messages": [{"role": "user", "content": "x"}]})
                .to_string(),
            none(),
        )
        .await
        .unwrap();
    let line =
        tokio::task::spawn_blocking(|| BufReader::new(socket(fd)).lines().next().unwrap().unwrap())
            .await
            .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap()["error"]["code"],
        "model_not_found"
    );
}

#[tokio::test]
async fn pictures_and_sounds_come_as_descriptors() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let _daemon = bus.daemon(harness::Options::default());
    let manager = manager(&bus.connect().await).await;
    let picture = || {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/pictures/red-circle.png");
        zvariant::Value::from(vec![zvariant::Fd::from(std::os::fd::OwnedFd::from(
            std::fs::File::open(path).unwrap(),
        ))])
    };
    let options = || sober().into_iter().chain([("max-tokens", 40u32.into())]);
    let asked = manager
        .ask(
            "What color is this?",
            options().chain([("images", picture())]).collect(),
        )
        .await
        .unwrap();
    let mut body = question("");
    body["messages"][0]["content"] = json!([{"type": "image_url", "image_url": {"url": "fd:0"}}, {"type": "text", "text": "What color is this?"}]);
    body["max_tokens"] = json!(40);
    let whole = manager
        .chat(&body.to_string(), Options::from([("files", picture())]))
        .await
        .unwrap();
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], json!(asked));
    assert!(asked.contains("red"), "{asked}");
    let tone =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sounds/tone-1.opus");
    let tone = zvariant::Value::from(vec![zvariant::Fd::from(std::os::fd::OwnedFd::from(
        std::fs::File::open(tone).unwrap(),
    ))]);
    let heard = manager
        .ask(
            "Which tone is this, high or low?",
            options().chain([("sounds", tone)]).collect(),
        )
        .await
        .unwrap();
    assert!(heard.contains("low"), "{heard}");
    // A name without a file is what it says: no address that is taken.
    assert!(
        named(manager.chat(&body.to_string(), none()).await)
            .1
            .contains("must be the picture itself")
    );
}

#[tokio::test]
async fn a_conversation_is_kept_for_its_owner() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let (connection, other) = (bus.connect().await, bus.connect().await);
    let manager = manager(&connection).await;
    let open = || {
        manager.open_conversation(Options::from([
            ("temperature", 0.0.into()),
            ("model", TINY.into()),
        ]))
    };
    let at = async |connection: &zbus::Connection, path: &zvariant::OwnedObjectPath| {
        ConversationProxy::builder(connection)
            .path(path.clone())
            .unwrap()
            .build()
            .await
            .unwrap()
    };
    let path = open().await.unwrap();
    let talk = at(&connection, &path).await;
    let mut answers = talk.receive_answered().await.unwrap();
    let wait = || Options::from([("timeout", 60u32.into())]);
    talk.send("My name is Anna.", wait()).await.unwrap();
    let name = talk.send("What is my name?", wait()).await.unwrap();
    assert!(name.contains("Anna"), "{name}");
    assert_eq!(answers.next().await.unwrap().args().unwrap().messages, 2);
    assert_eq!(answers.next().await.unwrap().args().unwrap().messages, 4);
    let history: Value = serde_json::from_str(&talk.history().await.unwrap()).unwrap();
    assert_eq!(
        (history[1]["role"].as_str(), history[3]["content"].as_str()),
        (Some("assistant"), Some(name.as_str()))
    );
    assert_eq!(talk.model().await.unwrap(), TINY);
    // A turn that fails leaves no trace.
    assert!(
        named(talk.send(&"x ".repeat(4000), wait()).await)
            .0
            .ends_with(".InvalidRequest")
    );
    assert_eq!(
        serde_json::from_str::<Value>(&talk.history().await.unwrap()).unwrap(),
        history
    );
    // Nobody else reads it.
    let strange = at(&other, &path).await;
    assert!(named(strange.history().await).0.ends_with(".NotAuthorized"));
    assert!(named(strange.close().await).0.ends_with(".NotAuthorized"));
    talk.close().await.unwrap();
    let gone = async |talk: &ConversationProxy<'_>| {
        while !talk
            .history()
            .await
            .is_err_and(|error| error.to_string().contains("UnknownObject"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    gone(&talk).await;

    let path = open().await.unwrap();
    drop((talk, answers, manager));
    connection.close().await.unwrap();
    gone(&at(&other, &path).await).await;
    assert_eq!(running(&daemon), 0);
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

#[tokio::test]
async fn asking_over_the_bus_costs_little_more_than_over_the_socket() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let manager = manager(&bus.connect().await).await;
    daemon.load();
    let mut body = question(FRANCE);
    body["max_tokens"] = json!(1);
    // The shortest of many: the machine has other things to do.
    let (mut over_bus, mut over_socket) = (Duration::MAX, Duration::MAX);
    for _ in 0..40 {
        let start = Instant::now();
        manager
            .ask(
                FRANCE,
                sober()
                    .into_iter()
                    .chain([("max-tokens", 1u32.into())])
                    .collect(),
            )
            .await
            .unwrap();
        over_bus = over_bus.min(start.elapsed());
        let start = Instant::now();
        daemon.chat(&body);
        over_socket = over_socket.min(start.elapsed());
    }
    eprintln!("bus {over_bus:?}, socket {over_socket:?}");
    assert!(
        over_bus < over_socket + Duration::from_millis(5),
        "bus {over_bus:?}, socket {over_socket:?}"
    );
}
