//! The whole front door over real sockets, with backends that follow a script.

mod answers;
mod connections;
mod daemon;
mod hangup;
mod requests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::access::Caller;
use crate::access::admission::Admission;
use crate::access::oidc::Oidc;
use crate::access::token::Tokens;
use crate::access::{Policy, Principal};
use crate::api::*;
use crate::backend::{Answer, Failure, Found, ModelInfo, Phase, Status, scripted::Call};
use crate::chat::{ChatEvent, ChatRequest, Done, Finish, Timings, Usage};
use crate::config::Access;

const SOON: Duration = Duration::from_secs(5);

/// A daemon's front door in a directory of its own.
struct Door {
    path: std::path::PathBuf,
    api: Arc<Api>,
    asked: mpsc::Receiver<Call>,
    publish: watch::Sender<Status>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

fn status() -> Status {
    let model = ModelInfo {
        parts: vec![],
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
        let api = Arc::new(Api::new(
            backends.clone(),
            Attachments::new(
                backends,
                Default::default(),
                Default::default(),
                Default::default(),
                SOON,
            ),
            limits.clone(),
            Admission::new(
                access,
                limits.body_bytes,
                Tokens::open(None),
                Oidc::default(),
            ),
        ));
        let listener = Listener {
            socket: listener,
            app: None,
        };
        let serving = tokio::spawn(serve(Arc::clone(&api), listener, stopping));
        Self {
            path,
            api,
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
            while let Some(Call::Find { name, reply, .. }) = asked.recv().await {
                let known = ["tiny", "auto"].contains(&name.to_lowercase().as_str());
                let found = known
                    .then(|| Found {
                        model: status().models[0].clone(),
                        ..Found::example("tiny")
                    })
                    .ok_or(Failure::UnknownModel {
                        asked: name,
                        known: vec![],
                        passed_over: None,
                        hint: None,
                    });
                reply.send(found).unwrap();
            }
        });
    }

    /// A connection on which a chat is under way, and what sends the events of its answer.
    async fn begin_chat(
        &mut self,
        rest: &str,
    ) -> (UnixStream, mpsc::Sender<Result<ChatEvent, Failure>>) {
        let mut stream = self.connect().await;
        stream.write_all(chat(rest).as_bytes()).await.unwrap();
        let (events, ..) = self.answer().await;
        (stream, events)
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

/// Lets everything else run until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "no {what}");
}

/// Reads on until `seen` is so.
async fn read_until(stream: &mut UnixStream, seen: &mut String, so: impl Fn(&str) -> bool) {
    let mut buffer = vec![0; 4096];
    while !so(seen) {
        let n = timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(n, 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
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

/// The same, on a connection that ends with its answer.
fn last_chat(rest: &str) -> String {
    chat(rest).replace("host: x", "host: x\r\nconnection: close")
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
