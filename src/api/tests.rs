//! The whole front door over real sockets, with an backends that follows a script.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::access::Caller;
use crate::access::admission::Admission;
use crate::access::{Policy, Principal};
use crate::api::*;
use crate::backend::{Answer, Failure, ModelInfo, Phase, Status, scripted::Call};
use crate::chat::{ChatEvent, ChatRequest, Done, Finish, Timings, Usage};
use crate::config::Access;

const SOON: Duration = Duration::from_secs(5);

/// A daemon's front door in a directory of its own.
struct Door {
    path: std::path::PathBuf,
    asked: mpsc::Receiver<Call>,
    publish: watch::Sender<Status>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

fn status() -> Status {
    let model = ModelInfo {
        size: 5,
        created: 6,
        ..ModelInfo::example("tiny")
    };
    Status::first(vec![model], vec![], Some("tiny".into()))
}

impl Door {
    fn open(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let (backends, asked, publish) = Backends::scripted(status());
        let access = Policy::new(&Access::default(), nix::unistd::getuid().as_raw()).unwrap();
        let (stop, stopping) = watch::channel(false);
        let listener = UnixListener::bind(&path).unwrap();
        let serving = tokio::spawn(serve(
            Arc::new(Api::new(
                backends,
                Attachments::new(Default::default(), Default::default(), Default::default()),
                limits.clone(),
                Admission::new(access, limits.body_bytes),
            )),
            listener,
            stopping,
        ));
        Self {
            path,
            asked,
            publish,
            stop,
            serving,
            _directory: directory,
        }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// One request on a connection of its own; the whole response as text.
    async fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = self.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A body that is refused may find the other end closed.
        let _ = stream.write_all(body.as_bytes()).await;
        read_all(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask("GET", path, "").await
    }

    /// Answers every further command, which must ask what a name means: `tiny` or `auto`.
    fn answer_finds(&mut self) {
        let (_, none) = mpsc::channel(1);
        let mut asked = std::mem::replace(&mut self.asked, none);
        tokio::spawn(async move {
            while let Some(Call::Find { name, reply }) = asked.recv().await {
                let known = ["tiny", "auto"].contains(&name.to_lowercase().as_str());
                let found =
                    known
                        .then(|| status().models[0].clone())
                        .ok_or(Failure::UnknownModel {
                            asked: name,
                            known: vec![],
                        });
                reply.send(found).unwrap();
            }
        });
    }

    /// Takes the next command, which must be a chat, and answers it with a scripted answer.
    async fn answer(
        &mut self,
    ) -> (
        mpsc::Sender<Result<ChatEvent, Failure>>,
        String,
        ChatRequest,
    ) {
        match timeout(SOON, self.asked.recv()).await.unwrap().unwrap() {
            Call::Chat {
                model,
                request,
                reply,
                ..
            } => {
                let (answer, events) = Answer::scripted("tiny");
                reply.send(Ok(answer)).unwrap();
                (events, model, *request)
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn read_all(stream: &mut UnixStream) -> String {
    let mut response = Vec::new();
    // Who is refused before all was sent finds a reset behind the answer.
    let _ = timeout(SOON, stream.read_to_end(&mut response))
        .await
        .unwrap();
    String::from_utf8(response).unwrap()
}

fn code(response: &str) -> u16 {
    response
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{response}"))
}

fn content(response: &str) -> Value {
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {response}"))
}

fn chat(rest: &str) -> String {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn text(text: &str) -> Result<ChatEvent, Failure> {
    Ok(ChatEvent::Text {
        text: text.into(),
        logprobs: vec![],
    })
}

fn started() -> Result<ChatEvent, Failure> {
    Ok(ChatEvent::Started {
        prompt_tokens: 3,
        cached_tokens: 0,
    })
}

fn done() -> Result<ChatEvent, Failure> {
    Ok(ChatEvent::Done(Done {
        finish: Finish::Stop,
        usage: Usage::default(),
        timings: Timings::default(),
    }))
}

#[tokio::test]
async fn a_whole_answer() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    // Twice on one connection.
    for _ in 0..2 {
        stream
            .write_all(chat(r#","model":"Tiny","temperature":0"#).as_bytes())
            .await
            .unwrap();
        let (events, model, request) = door.answer().await;
        assert_eq!(
            (model.as_str(), request.sampling.temperature),
            ("Tiny", 0.0)
        );
        for event in [started(), text("Hel"), text("lo"), done()] {
            events.send(event).await.unwrap();
        }
        let mut buffer = vec![0; 4096];
        let n = timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        let response = std::str::from_utf8(&buffer[..n]).unwrap();
        assert!(response.contains("x-request-id: req_"), "{response}");
        assert_eq!(
            content(response)["choices"][0]["message"]["content"],
            "Hello"
        );
        assert_eq!(content(response)["model"], "tiny");
    }
}

#[tokio::test]
async fn a_streamed_answer_comes_piece_by_piece() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream
        .write_all(chat(r#","stream":true"#).as_bytes())
        .await
        .unwrap();
    let (events, ..) = door.answer().await;
    events.send(started()).await.unwrap();
    let mut seen = String::new();
    for word in ["one", "two"] {
        events.send(text(word)).await.unwrap();
        while !seen.contains(word) {
            let mut buffer = vec![0; 4096];
            let n = timeout(SOON, stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert_ne!(n, 0, "{seen}");
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    }
    assert_eq!(code(&seen), 200);
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    events.send(done()).await.unwrap();
    // The connection stays open, the stream ends: its last chunk is the empty one.
    while !seen.ends_with("\r\n0\r\n\r\n") {
        let mut buffer = vec![0; 4096];
        let n = timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(n, 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    assert!(seen.contains("data: [DONE]\n\n"), "{seen}");
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_told() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream
        .write_all(
            chat(r#","stream":true"#)
                .replace("host: x", "connection: close")
                .as_bytes(),
        )
        .await
        .unwrap();
    let (events, ..) = door.answer().await;
    for event in [
        started(),
        text("one"),
        Err(Failure::WorkerDied {
            cause: "SIGKILL".into(),
        }),
    ] {
        events.send(event).await.unwrap();
    }
    let response = read_all(&mut stream).await;
    assert_eq!(code(&response), 200);
    assert!(
        response.contains(
            "data: {\"error\":{\"message\":\"the worker died while it answered: SIGKILL\""
        ),
        "{response}"
    );
    assert!(!response.contains("[DONE]"), "{response}");
}

#[tokio::test]
async fn a_failure_before_the_first_event_has_its_status() {
    let mut door = Door::open(Limits::default());
    for stream in ["", r#","stream":true"#] {
        let mut connection = door.connect().await;
        connection
            .write_all(
                chat(stream)
                    .replace("host: x", "connection: close")
                    .as_bytes(),
            )
            .await
            .unwrap();
        let (events, ..) = door.answer().await;
        let retry_after = Duration::from_secs(7);
        events
            .send(Err(Failure::BackingOff {
                cause: "SIGSEGV".into(),
                retry_after,
            }))
            .await
            .unwrap();
        let response = read_all(&mut connection).await;
        assert_eq!(code(&response), 503);
        assert!(response.contains("retry-after: 7\r\n"), "{response}");
        assert_eq!(content(&response)["error"]["code"], "backing_off");
    }
}

#[tokio::test]
async fn hanging_up_ends_the_answer() {
    let mut door = Door::open(Limits::default());
    // While nothing came yet, in the middle of a whole answer, and in an idle stream.
    for (rest, begun) in [
        ("", vec![]),
        ("", vec![started(), text("a")]),
        (r#","stream":true"#, vec![started(), text("a")]),
    ] {
        let mut stream = door.connect().await;
        stream.write_all(chat(rest).as_bytes()).await.unwrap();
        let (events, ..) = door.answer().await;
        for event in begun {
            events.send(event).await.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
        assert!(!events.is_closed());
        let start = Instant::now();
        drop(stream);
        timeout(SOON, events.closed()).await.unwrap();
        assert!(
            start.elapsed() < Duration::from_millis(50),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_has_hung_up() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream.write_all(chat("").as_bytes()).await.unwrap();
    let (events, ..) = door.answer().await;
    stream.shutdown().await.unwrap();
    timeout(SOON, events.closed()).await.unwrap();
}

#[tokio::test]
async fn hanging_up_in_the_queue_takes_the_request_back() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream.write_all(chat("").as_bytes()).await.unwrap();
    let Some(Call::Chat { mut reply, .. }) = door.asked.recv().await else {
        panic!()
    };
    drop(stream);
    timeout(SOON, reply.closed()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_hung_up_on() {
    let mut door = Door::open(Limits {
        client_stall: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut stream = door.connect().await;
    stream
        .write_all(chat(r#","stream":true"#).as_bytes())
        .await
        .unwrap();
    let (events, ..) = door.answer().await;
    events.send(started()).await.unwrap();
    let flood = async { while events.send(text(&"x".repeat(4096))).await.is_ok() {} };
    timeout(SOON, flood).await.unwrap();
}

#[tokio::test]
async fn requests_that_are_wrong_name_the_field() {
    let door = Door::open(Limits::default());
    let response = door
        .ask(
            "POST",
            "/v1/chat/completions",
            r#"{"messages":[{"role":"king","content":"x"}]}"#,
        )
        .await;
    assert_eq!(code(&response), 400);
    assert_eq!(content(&response)["error"]["param"], "messages[0].role");
    assert_eq!(content(&response)["error"]["type"], "invalid_request_error");
    let response = door.ask("POST", "/v1/chat/completions", "{").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["param"]),
        (400, &Value::Null)
    );
}

#[tokio::test]
async fn a_body_has_its_limit() {
    let door = Door::open(Limits {
        body_bytes: 1000,
        ..Limits::default()
    });
    let response = door
        .ask("POST", "/v1/chat/completions", &" ".repeat(5000))
        .await;
    assert_eq!(code(&response), 413);
    let message = content(&response)["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("5000") && message.contains("1000"),
        "{message}"
    );
    // Without a length in the head.
    let mut stream = door.connect().await;
    let piece = format!("400\r\n{}\r\n", " ".repeat(0x400));
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{piece}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(code(&read_all(&mut stream).await), 413);
}

#[tokio::test]
async fn a_request_keeps_its_clients_name() {
    let door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nx-request-id: mine-7\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(
        read_all(&mut stream)
            .await
            .contains("x-request-id: mine-7\r\n")
    );
    assert!(door.get("/version").await.contains("x-request-id: req_"));
}

#[tokio::test]
async fn what_other_services_have_is_explained() {
    let door = Door::open(Limits::default());
    let response = door.ask("POST", "/v1/embeddings", "{}").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (404, &json!("unsupported_endpoint"))
    );
    assert!(
        content(&response)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/v1/chat/completions")
    );
}

#[tokio::test]
async fn a_completion_says_what_is_wrong_in_its_own_words() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    let body = r#"{"prompt":"x","echo":true}"#;
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (events, _, request) = door.answer().await;
    assert_eq!(
        (request.prompt.as_deref(), request.output.max_tokens),
        (Some("x"), Some(16))
    );
    let error = crate::chat::ChatError::PromptTooLong {
        prompt_tokens: 9,
        context_tokens: 8,
    };
    events.send(Err(Failure::Chat(error))).await.unwrap();
    let response = read_all(&mut stream).await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["param"]),
        (400, &json!("prompt"))
    );
}

#[tokio::test]
async fn a_large_request_is_read_aside() {
    let mut door = Door::open(Limits::default());
    let long = "a".repeat(generation::PARSE_ASIDE + 1);
    let body = json!({"messages": [{"role": "user", "content": long}]}).to_string();
    let ask = door.path.clone();
    let client = tokio::spawn(async move {
        let mut stream = UnixStream::connect(ask).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    });
    let (events, _, request) = door.answer().await;
    assert_eq!(
        request.messages[0],
        crate::chat::Message::text(crate::chat::Role::User, long)
    );
    events.send(done()).await.unwrap();
    assert_eq!(code(&client.await.unwrap()), 200);
}

#[tokio::test]
async fn connections_have_limits() {
    let door = Door::open(Limits {
        connections_per_user: 2,
        ..Limits::default()
    });
    let first = door.connect().await;
    let mut second = door.connect().await;
    let mut third = door.connect().await;
    let response = read_all(&mut third).await;
    assert_eq!(code(&response), 429);
    assert!(
        response.contains("retry-after: 1\r\n") && response.contains("x-request-id: req_"),
        "{response}"
    );
    assert_eq!(content(&response)["error"]["code"], "user_connections_full");
    // The others go on, and a closed one makes room.
    second
        .write_all(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(code(&read_all(&mut second).await), 200);
    drop(first);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(code(&door.get("/health").await), 200);

    let door = Door::open(Limits {
        connections: 1,
        ..Limits::default()
    });
    let _first = door.connect().await;
    let mut second = door.connect().await;
    assert_eq!(code(&read_all(&mut second).await), 503);
}

#[tokio::test]
async fn a_thousand_idle_connections_disturb_nobody() {
    let door = Door::open(Limits::default());
    let mut idle = vec![];
    for _ in 0..1000 {
        idle.push(door.connect().await);
    }
    let start = Instant::now();
    assert_eq!(code(&door.get("/health").await), 200);
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let door = Door::open(Limits::default());
    let response = door.get("/v1/nothing").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (404, &json!("unknown_path"))
    );
    let response = door.ask("DELETE", "/v1/chat/completions", "").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (405, &json!("method_not_allowed"))
    );
    assert!(response.contains("allow: POST\r\n"), "{response}");
    let response = door.ask("POST", "/health", "").await;
    assert!(response.contains("allow: GET,HEAD\r\n"), "{response}");
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let mut door = Door::open(Limits::default());
    door.answer_finds();
    let entry = json!({"id": "tiny", "object": "model", "created": 6, "owned_by": "google", "variant": "gemma-4-e2b", "size": 5,
        "context_length": 4096, "quantization": "Q8_0", "input_modalities": ["text"], "drafter": false, "loaded": false, "default": true});
    assert_eq!(
        content(&door.get("/v1/models").await),
        json!({"object": "list", "data": [entry]})
    );
    for name in ["tiny", "TINY", "t%69ny", "auto"] {
        assert_eq!(
            content(&door.get(&format!("/v1/models/{name}")).await),
            entry,
            "{name}"
        );
    }
    for name in ["gpt", "google/gpt", "%ff"] {
        let response = door.get(&format!("/v1/models/{name}")).await;
        assert_eq!(
            (code(&response), &content(&response)["error"]["code"]),
            (404, &json!("model_not_found")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn health_says_whether_a_request_would_be_served() {
    let door = Door::open(Limits::default());
    assert_eq!(content(&door.get("/health").await), json!({"status": "ok"}));
    assert_eq!(content(&door.get("/version").await)["name"], "gemmad");
    assert_eq!(content(&door.get("/status").await)["state"], "cold");
    let backing = Phase::BackingOff {
        cause: "SIGSEGV".into(),
        until: Instant::now() + Duration::from_secs(3),
    };
    for (phase, expected) in [(backing, "backing_off"), (Phase::Draining, "shutting_down")] {
        door.publish.send_modify(|status| status.phase = phase);
        let response = door.get("/health").await;
        assert_eq!(
            (code(&response), &content(&response)["error"]["code"]),
            (503, &json!(expected))
        );
    }
}

#[tokio::test]
async fn loading_is_for_administrators() {
    let mut door = Door::open(Limits::default());
    let path = door.path.clone();
    let client = tokio::spawn(async move {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream
            .write_all(b"POST /models/load HTTP/1.1\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{\"model\":\"tiny\"}")
            .await
            .unwrap();
        read_all(&mut stream).await
    });
    match timeout(SOON, door.asked.recv()).await.unwrap().unwrap() {
        Call::Load { model, reply, .. } => {
            assert_eq!(model, "tiny");
            reply.send(Ok(status().models.remove(0))).unwrap();
        }
        other => panic!("{other:?}"),
    }
    let response = client.await.unwrap();
    assert_eq!(
        (code(&response), &content(&response)["id"]),
        (200, &json!("tiny"))
    );
    let response = door
        .ask("POST", "/models/load", r#"{"modle":"tiny"}"#)
        .await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["param"]),
        (400, &json!("modle"))
    );
}

#[tokio::test]
async fn what_is_for_administrators_is_for_nobody_else() {
    let (backends, ..) = Backends::scripted(status());
    let access = Policy::new(&Access::default(), 990).unwrap();
    let api = Arc::new(Api::new(
        backends,
        Attachments::new(Default::default(), Default::default(), Default::default()),
        Limits::default(),
        Admission::new(access, 1 << 20),
    ));
    let stranger = Extension(Caller {
        principal: Principal::User {
            uid: 1234,
            groups: [1234].into(),
            owner: None,
        },
        pid: None,
    });
    for error in [
        native::admin::load(
            State(Arc::clone(&api)),
            stranger.clone(),
            Request::new(Body::empty()),
        )
        .await
        .unwrap_err(),
        native::admin::unload(State(Arc::clone(&api)), stranger.clone())
            .await
            .unwrap_err(),
        native::cache::clear(State(Arc::clone(&api)), stranger.clone())
            .await
            .unwrap_err(),
        native::metrics::metrics(State(Arc::clone(&api)), stranger)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(
            (error.status, error.code),
            (StatusCode::FORBIDDEN, Some("not_permitted"))
        );
        assert!(error.message.contains("1234"), "{}", error.message);
    }
}

#[tokio::test]
async fn requests_that_wait_have_a_limit_together() {
    let mut door = Door::open(Limits {
        body_bytes: 6 << 20,
        ..Limits::default()
    });
    let body = json!({"messages": [{"role": "user", "content": "a".repeat(5 << 20)}]}).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut waiting = vec![];
    // Two of 5 MiB fit into 6 + 8 MiB, a third does not.
    for _ in 0..2 {
        let mut stream = door.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        waiting.push((stream, door.answer().await.0));
    }
    let response = door.ask("POST", "/v1/chat/completions", &body).await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (429, &json!("user_requests_too_large"))
    );
    // What is being answered counts no longer.
    waiting[0].1.send(started()).await.unwrap();
    sleep(Duration::from_millis(20)).await;
    let mut stream = door.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    door.answer().await;
}

#[tokio::test]
async fn stopping_lets_running_answers_finish() {
    let mut door = Door::open(Limits::default());
    let _idle = door.connect().await;
    let mut kept = door.connect().await;
    kept.write_all(b"GET /health HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = vec![0; 1024];
    let _ = kept.read(&mut buffer).await.unwrap();
    let mut stream = door.connect().await;
    stream.write_all(chat("").as_bytes()).await.unwrap();
    let (events, ..) = door.answer().await;
    door.stop.send(true).unwrap();
    sleep(Duration::from_millis(50)).await;
    assert!(
        UnixStream::connect(&door.path).await.is_err(),
        "new connections are refused"
    );
    assert!(!door.serving.is_finished());
    assert_eq!(
        kept.read(&mut buffer).await.unwrap(),
        0,
        "idle connections are closed"
    );
    for event in [started(), text("bye"), done()] {
        events.send(event).await.unwrap();
    }
    assert_eq!(
        content(&read_all(&mut stream).await)["choices"][0]["message"]["content"],
        "bye"
    );
    timeout(SOON, door.serving).await.unwrap().unwrap();
}
