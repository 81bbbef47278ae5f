//! Requests for models that are not installed: they say how to have them, or have them fetched.

mod harness;

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::hub::{FILES, Hub, REPOSITORY};
use harness::users::{self, ALICE, BOB, as_user};
use harness::{Daemon, Events, Options, Reply, TINY, wait_for};
use serde_json::{Value, json};

const PARIS: &str = "The capital of France is Paris.";
const FRANCE: &str = "What is the capital of France?";

/// A name of the model that the hub has.
fn named() -> String {
    format!("{REPOSITORY}:{}", FILES[0])
}

/// A question to a model, for each door: its path, and where the answer's text is.
fn doors(model: &str) -> [(&'static str, Value, &'static str); 7] {
    let messages = json!([{"role": "user", "content": FRANCE}]);
    let chat = json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 40});
    let ollama = json!({"temperature": 0, "num_predict": 40});
    [
        (
            "/v1/chat/completions",
            chat.clone(),
            "/choices/0/message/content",
        ),
        (
            "/v1/completions",
            json!({"model": model, "prompt": FRANCE, "temperature": 0, "max_tokens": 4}),
            "/choices/0/text",
        ),
        (
            "/v1/responses",
            json!({"model": model, "input": FRANCE, "temperature": 0}),
            "/output/0/content/0/text",
        ),
        ("/v1/messages", chat, "/content/0/text"),
        (
            "/completion",
            json!({"model": model, "prompt": FRANCE, "temperature": 0, "n_predict": 4}),
            "/content",
        ),
        (
            "/api/chat",
            json!({"model": model, "messages": messages, "stream": false, "options": ollama}),
            "/message/content",
        ),
        (
            "/api/generate",
            json!({"model": model, "prompt": FRANCE, "stream": false, "options": ollama}),
            "/response",
        ),
    ]
}

fn chat(model: &str) -> Value {
    let [(_, mut body, _), ..] = doors(model);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_progress": true});
    body
}

fn daemon(hub: &Hub, models: &Path, keys: &str) -> Daemon {
    let options = Options {
        models_keys: format!("pull-on-demand = true\n{keys}"),
        ..hub.options(models, "")
    };
    Daemon::with_environment(options, &[("SSL_CERT_FILE", &hub.trusted())])
}

fn pulls(daemon: &Daemon) -> Value {
    daemon.get("/v1/models/pulls").json()["data"].clone()
}

/// What a stream tells: the phases that its request goes through, and the answer, or why there is none.
fn told(events: Events) -> (Vec<String>, Result<String, String>) {
    assert_eq!(events.status, 200);
    let (mut phases, mut text) = (vec![], String::new());
    for data in events {
        if data == "[DONE]" {
            return (phases, Ok(text));
        }
        let event: Value = serde_json::from_str(&data).unwrap();
        if let Some(message) = event["error"]["message"].as_str() {
            return (phases, Err(message.to_owned()));
        }
        let phase = event["progress"]["phase"].as_str().map(str::to_owned);
        phases.extend(phase);
        phases.dedup();
        text += event["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default();
    }
    panic!("no end: {phases:?} {text}");
}

#[test]
fn what_is_not_installed_and_could_be_is_told_at_every_door() {
    let models = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(Options {
        models: models.path().to_owned(),
        ..Options::default()
    });
    for model in [
        "e2b",
        "gemma4:31b",
        "https://models.example/gemma.gguf",
        "hf.co/acme/x:Q4_0",
    ] {
        let other = [
            (
                "/v1/messages/count_tokens",
                json!({"model": model, "messages": [{"role": "user", "content": "x"}]}),
                "",
            ),
            ("/tokenize", json!({"model": model, "content": "x"}), ""),
            ("/models/load", json!({"model": model}), ""),
        ];
        for (path, body, _) in doors(model).into_iter().chain(other) {
            let reply = daemon.post(path, &body);
            let said = reply.text();
            assert_eq!(reply.status, 404, "{path}: {said}");
            assert!(
                said.contains(&format!("`gemmactl pull {model}` fetches it")),
                "{path}: {said}"
            );
        }
    }
}

#[test]
fn a_stream_tells_that_its_model_is_fetched_and_then_answers() {
    let (hub, models) = (Hub::start(), tempfile::tempdir().unwrap());
    let daemon = daemon(&hub, models.path(), "");
    hub.behave(json!({"pace": 0.03}));
    let events = daemon.send(
        "/v1/chat/completions",
        chat(&named()).to_string().as_bytes(),
    );
    // Another one waits for the same download.
    let second = daemon.send(
        "/v1/chat/completions",
        chat(&named()).to_string().as_bytes(),
    );
    for events in [events, second].map(Events::read) {
        let (phases, answer) = told(events);
        assert_eq!(phases[0], "fetching", "{phases:?}");
        assert_eq!(answer.as_deref(), Ok(PARIS));
    }
    let listed = daemon.get("/v1/models").json();
    assert_eq!(listed["data"][0]["drafter"], true, "{listed}");
    assert_eq!(pulls(&daemon).as_array().unwrap().len(), 1);
    // By the same name it is known now, without the hub.
    hub.behave(json!({}));
    let (phases, answer) = told(Events::read(daemon.send(
        "/v1/chat/completions",
        chat(&named()).to_string().as_bytes(),
    )));
    assert!(!phases.contains(&"fetching".to_owned()), "{phases:?}");
    assert_eq!(answer.as_deref(), Ok(PARIS));
    assert_eq!(hub.seen(), Vec::<Value>::new());
}

#[test]
fn every_door_has_its_model_fetched() {
    let hub = Hub::start();
    for (path, body, place) in doors(&named()) {
        let models = tempfile::tempdir().unwrap();
        let daemon = daemon(&hub, models.path(), "");
        let reply = daemon.post(path, &body);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let answer = reply.json();
        let text = answer.pointer(place).and_then(Value::as_str);
        assert!(
            text.is_some_and(|text| text == PARIS || path.contains("completion")),
            "{path}: {answer}"
        );
        assert!(
            answer["model"]
                .as_str()
                .is_none_or(|model| model.starts_with(TINY)),
            "{answer}"
        );
    }
}

#[test]
fn pictures_wait_for_a_model_that_is_fetched() {
    let (hub, models) = (Hub::start(), tempfile::tempdir().unwrap());
    let daemon = daemon(&hub, models.path(), "");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures/red-circle.png");
    let picture = STANDARD.encode(fs::read(file).unwrap());
    let content = json!([{"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{picture}")}},
        {"type": "text", "text": "What is it?"}]);
    let shown = daemon.shown(&named(), content.clone());
    assert_eq!(shown.status, 200, "{}", shown.text());
    // Where nothing is fetched, nothing is decoded either.
    let reply = daemon.shown("acme/absent", content);
    assert_eq!(reply.status, 404, "{}", reply.text());
}

#[test]
fn who_hangs_up_leaves_the_download_going_on() {
    let (hub, models) = (Hub::start(), tempfile::tempdir().unwrap());
    let daemon = daemon(&hub, models.path(), "");
    hub.behave(json!({"pace": 0.02}));
    let mut events = Events::read(daemon.send(
        "/v1/chat/completions",
        chat(&named()).to_string().as_bytes(),
    ));
    assert!(events.next().unwrap().contains("fetching"));
    wait_for("the download", || {
        pulls(&daemon)[0]["received"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    });
    drop(events);
    wait_for("its end", || pulls(&daemon)[0]["state"] == "done");
    assert_eq!(daemon.status()["running"], 0);
    assert_eq!(daemon.chat(&doors(TINY)[0].1).content(), PARIS);
}

#[test]
fn what_goes_wrong_after_the_headers_is_an_event() {
    let (hub, models) = (Hub::start(), tempfile::tempdir().unwrap());
    let daemon = daemon(&hub, models.path(), "");
    hub.behave(json!({"flip": 300_000, "pace": 0.02}));
    let (phases, answer) = told(Events::read(daemon.send(
        "/v1/chat/completions",
        chat(&named()).to_string().as_bytes(),
    )));
    assert_eq!(phases, ["fetching"]);
    assert!(
        answer.as_ref().unwrap_err().contains("was not fetched"),
        "{answer:?}"
    );
    // A download that somebody stops ends those who wait for it.
    hub.behave(json!({"pace": 0.2}));
    let events = daemon.send(
        "/v1/chat/completions",
        chat(&named()).to_string().as_bytes(),
    );
    wait_for("the download", || {
        pulls(&daemon)[0]["state"] == "downloading"
    });
    std::thread::sleep(Duration::from_millis(1500));
    let id = pulls(&daemon)[0]["id"].as_str().unwrap().to_owned();
    daemon.post(&format!("/v1/models/pulls/{id}/cancel"), &json!({}));
    let (_, answer) = told(Events::read(events));
    assert!(
        answer.as_ref().unwrap_err().contains("cancelled"),
        "{answer:?}"
    );
    // What is refused before anything comes has a status.
    hub.behave(json!({"short": 1000}));
    let reply = daemon.chat(&doors(&named())[0].1);
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (400, &json!("cannot_pull")),
        "{}",
        reply.text()
    );
    // And what the hub does not have either is refused as ever.
    let reply = daemon.chat(&doors("tiny/absent")[0].1);
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (503, &json!("no_models")),
        "{}",
        reply.text()
    );
}

#[test]
fn only_for_those_who_may_fetch_it() {
    use std::os::unix::fs::PermissionsExt;
    if !users::possible("who has models fetched by asking them") {
        return;
    }
    let (hub, models) = (Hub::start(), tempfile::tempdir().unwrap());
    let catalogs = tempfile::tempdir().unwrap();
    let catalog = catalogs.path().join("own.toml");
    fs::write(
        &catalog,
        format!("[[allow]]\nrepositories = [\"{REPOSITORY}\"]\nusers = [\"{ALICE}\"]\n"),
    )
    .unwrap();
    fs::set_permissions(&catalog, fs::Permissions::from_mode(0o644)).unwrap();
    let options = Options {
        server: "socket-mode = \"0666\"\n".into(),
        models_keys: format!(
            "pull-on-demand = true\ncatalog-directory = \"{}\"\n",
            catalogs.path().display()
        ),
        ..hub.options(models.path(), "")
    };
    let daemon = Daemon::with_environment(options, &[("SSL_CERT_FILE", &hub.trusted())]);
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    hub.behave(json!({}));
    let ask = |daemon: &Daemon, uid, model: &str| as_user(uid, || daemon.chat(&doors(model)[0].1));
    let refused = |reply: Reply| assert!([404, 503].contains(&reply.status), "{}", reply.text());
    refused(ask(&daemon, ALICE, &hub.file(FILES[0])));
    assert_eq!(hub.seen(), Vec::<Value>::new());
    // Whoever may fetch it has it fetched, on their own account.
    assert_eq!(ask(&daemon, ALICE, &named()).content(), PARIS);
    let own = as_user(ALICE, || pulls(&daemon));
    assert_eq!(own[0]["state"], "done", "{own}");
    // And then it is there for everybody.
    assert_eq!(ask(&daemon, BOB, &named()).content(), PARIS);

    // A reload takes it away.
    let config = fs::read_to_string(daemon.config()).unwrap();
    fs::write(
        daemon.config(),
        config.replace("pull-on-demand = true", "pull-on-demand = false"),
    )
    .unwrap();
    daemon.signal("HUP");
    std::thread::sleep(Duration::from_millis(500));
    hub.behave(json!({}));
    refused(daemon.chat(&doors(&hub.file(FILES[1]))[0].1));
    assert_eq!(hub.seen(), Vec::<Value>::new());
}
