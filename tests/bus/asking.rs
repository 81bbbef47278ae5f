//! Questions and requests, and what is wrong with them.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use gemmad::bus::proxy::{ConversationProxy, Options, ProgressStream};
use serde_json::{Value, json};
use zbus::message::Type;
use zbus::{MatchRule, MessageStream, zvariant};

use crate::harness::{self, TINY, endless, question, wait_for};
use crate::private::{Bus, manager, named, possible, sober};
use crate::{FRANCE, PARIS, none, running};

#[tokio::test]
async fn questions_and_requests_are_answered() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let manager = manager(&bus.connect().await).await;
    assert_eq!(manager.ask(FRANCE, sober()).await.unwrap(), PARIS);
    // The state is published when the answer is out.
    let rate = async {
        while manager.tokens_per_second().await.unwrap() <= 1.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), rate)
        .await
        .expect("tokens per second");
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
    let devices: Value = serde_json::from_str(&manager.list_devices().await.unwrap()).unwrap();
    assert_eq!(devices["modules"], json!([]));
    let log = daemon.log();
    assert!(!log.contains("France"), "{log}");
}

#[tokio::test]
async fn errors_have_names_and_remedies() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let models = tempfile::tempdir().unwrap();
    let tiny = format!("{TINY}.gguf");
    std::fs::copy(
        harness::tiny_models().join(&tiny),
        models.path().join(&tiny),
    )
    .unwrap();
    std::fs::write(models.path().join("page.gguf"), "<html>").unwrap();
    let _daemon = bus.daemon(harness::Options {
        models: models.path().into(),
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
    let page = Options::from([("model", "page".into())]);
    let text = refused("UnknownModel", FRANCE, page).await;
    assert!(
        text.contains("page.gguf is passed over: header: not a GGUF file"),
        "{text}"
    );
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
}

#[tokio::test]
async fn a_call_waits_no_longer_than_its_caller_listens() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let manager = manager(&bus.connect().await).await;
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

/// The phases that signals tell of until all is read.
async fn told(signals: &mut ProgressStream) -> Vec<String> {
    let mut phases: Vec<String> = vec![];
    let mut read = (0, 1);
    while read.0 < read.1 {
        let next = tokio::time::timeout(Duration::from_secs(60), signals.next()).await;
        let signal = next.unwrap_or_else(|_| panic!("no signal after {read:?} of {phases:?}"));
        let signal = signal.unwrap();
        let said = signal.args().unwrap();
        assert_eq!(said.name, "mine");
        let count = |key: &str| u32::try_from(&said.progress[key]).unwrap();
        let phase = <&str>::try_from(&said.progress["phase"]).unwrap();
        match phase {
            "queued" => assert_eq!(count("position"), 1),
            "loading" => {}
            _ => read = (count("tokens-read"), count("tokens-to-read")),
        }
        if phases.last().is_none_or(|last| last != phase) {
            phases.push(phase.to_owned());
        }
    }
    assert!(read.1 > 1000, "{read:?}");
    phases
}

#[tokio::test]
async fn a_caller_and_nobody_else_is_told_how_far_a_call_is() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options {
        inference: "slots = 1\ncontext = 8192\nbatch = 64".into(),
        ..harness::Options::default()
    });
    let (connection, other) = (bus.connect().await, bus.connect().await);
    let all = MatchRule::builder().msg_type(Type::Signal).build();
    let overheard = MessageStream::for_match_rule(all, &other, None).await;
    let mut overheard = overheard.unwrap();
    let manager = manager(&connection).await;
    let mut signals = manager.receive_progress().await.unwrap();
    let text = "word ".repeat(3000);

    // Of a conversation whose model is not there yet.
    let settings = Options::from([("max-tokens", 300_u32.into())]);
    let path = manager.open_conversation(settings).await.unwrap();
    let talk = ConversationProxy::builder(&connection).path(path).unwrap();
    let talk = talk.build().await.unwrap();
    let named_call = || Options::from([("progress", "mine".into()), ("timeout", 60_u32.into())]);
    let (answer, phases) = tokio::join!(talk.send(&text, named_call()), told(&mut signals));
    answer.unwrap();
    assert!(
        phases.ends_with(&["loading".into(), "reading".into()]),
        "{phases:?}"
    );

    // Of a question behind another answer. The prompt is another one, or the cache has it.
    let (_, first) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    let release = async {
        while manager.queue_length().await.unwrap() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(first);
    };
    let (text, options) = (format!("No {text}"), named_call());
    let (answer, phases, ()) =
        tokio::join!(manager.ask(&text, options), told(&mut signals), release);
    answer.unwrap();
    assert_eq!(phases, ["queued", "reading"]);

    // Who does not ask for it is told nothing, and a name has its bounds.
    manager.ask(FRANCE, sober()).await.unwrap();
    assert!(signals.next().now_or_never().is_none());
    let long = "n".repeat(129);
    let options = Options::from([("progress", long.as_str().into())]);
    let (name, message) = named(manager.ask(FRANCE, options).await);
    assert!(name.ends_with(".InvalidRequest"), "{name}");
    assert!(message.contains("`progress` has 129 bytes"), "{message}");

    // Others have seen what becomes of the model, and nothing of the calls.
    let mut members = vec![];
    while let Some(message) = overheard.next().now_or_never() {
        let message = message.unwrap().unwrap();
        members.push(message.header().member().unwrap().to_string());
    }
    assert!(
        members.iter().any(|member| member == "PropertiesChanged"),
        "{members:?}"
    );
    assert!(
        members.iter().all(|member| member != "Progress"),
        "{members:?}"
    );
}
