//! `POST /api/pull`: a model is fetched as `POST /v1/models/pull` does it, and told of in Ollama's words.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::OllamaError;
use super::models::named;
use crate::access::Caller;
use crate::api::generation::{lines, write_line};
use crate::api::native::pull::{puller, told};
use crate::api::parse::json::body as parse;
use crate::api::{Api, Invalid, body, json, render};
use crate::backend::{Failure, PullAsk, PullFault, PullState, PullStatus, PulledFile, listed};

/// What is asked for, and how it is answered.
#[derive(Debug, PartialEq)]
pub struct Asked {
    ask: PullAsk,
    stream: bool,
}

/// Takes a request apart.
///
/// # Errors
///
/// What is wrong with it.
pub fn read(body: &[u8]) -> Result<Asked, Invalid> {
    let mut object = parse(body)?;
    let model = named(&mut object)?;
    let stream = object.switch("stream", true)?;
    if let Some(insecure) = object.take("insecure")
        && insecure.boolean()?
    {
        return insecure.wrong("can only be false: what is fetched is held against its hash, and comes over TLS where its address says so");
    }
    for name in ["username", "password"] {
        if let Some(account) = object.take(name)
            && !account.string()?.is_empty()
        {
            return account.wrong(
                "is not taken from a request; `token-file` in gemmad.toml names the hub's token",
            );
        }
    }
    object.finish()?;
    let ask = PullAsk {
        model,
        ..PullAsk::default()
    };
    Ok(Asked { ask, stream })
}

/// Fetches a model: answers with lines, or when it is there. Who leaves stops nothing.
pub async fn pull(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: Request,
) -> Result<Response, OllamaError> {
    let received = body::read(&api, &caller, http).await?;
    let Asked { ask, stream } = read(&received.bytes)?;
    drop(received);
    let by = puller(&api, &caller, &ask).await?;
    let local = api.backends.local();
    let mut watched = local.pull(&ask, &by).await?;
    let models = local.changes();
    if stream {
        let mut telling = Telling::default();
        let told = told(watched, models, move |status| telling.lines(status));
        return Ok(lines(Body::from_stream(told)));
    }
    // Its sender lives as long as it is told of.
    let _ = watched.wait_for(|status| status.state.is_over()).await;
    let last = watched.borrow().clone();
    listed(&last, models).await;
    match last.failure() {
        Some(text) => Err(OllamaError::from(Failure::Pull {
            fault: PullFault::Server,
            text,
        })),
        None => Ok(json(render(&Progress::of("success".into())))),
    }
}

#[derive(Serialize)]
struct Progress {
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
}

impl Progress {
    fn of(status: String) -> Self {
        Self {
            status,
            digest: None,
            total: None,
            completed: None,
        }
    }

    fn file(file: &PulledFile) -> Self {
        Self {
            status: format!("pulling {}", file.name),
            digest: file
                .sha256
                .as_ref()
                .map(|sha256| format!("sha256:{sha256}")),
            total: file.bytes,
            completed: Some(file.received),
        }
    }
}

/// What was told last.
#[derive(Default)]
struct Telling {
    said: Option<String>,
    /// Bytes of each file.
    received: Vec<u64>,
}

impl Telling {
    /// What has changed.
    fn lines(&mut self, status: &PullStatus) -> Vec<u8> {
        let mut buffer = vec![];
        if self.said.is_none() {
            self.say(&mut buffer, "pulling manifest".into());
        }
        self.received.resize(status.files.len(), 0);
        for (file, received) in status.files.iter().zip(&mut self.received) {
            if file.received != *received {
                *received = file.received;
                write_line(&mut buffer, &Progress::file(file));
            }
        }
        match &status.state {
            PullState::Downloading => {}
            PullState::Verifying => self.say(&mut buffer, "verifying sha256 digest".into()),
            PullState::Waiting { cause, seconds } => {
                self.say(&mut buffer, format!("trying again in {seconds} s: {cause}"));
            }
            PullState::Done => self.say(&mut buffer, "success".into()),
            PullState::Failed { .. } | PullState::Cancelled => {
                let text = status.failure().unwrap_or_default();
                let error = OllamaError::from(Failure::Pull {
                    fault: PullFault::Server,
                    text,
                });
                buffer.extend_from_slice(&error.line());
            }
        }
        buffer
    }

    /// Says something once.
    fn say(&mut self, buffer: &mut Vec<u8>, text: String) {
        if self.said.as_ref() != Some(&text) {
            write_line(buffer, &Progress::of(text.clone()));
            self.said = Some(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::assert_refused;
    use serde_json::{Value, json};

    #[test]
    fn requests_are_read_strictly() {
        let asked =
            read(br#"{"name":"gemma4:e2b","insecure":false,"username":"","password":""}"#).unwrap();
        assert_eq!(
            (asked.ask.model.as_str(), asked.stream),
            ("gemma4:e2b", true)
        );
        assert!(!read(br#"{"model":"a","stream":false}"#).unwrap().stream);
        assert_refused(
            read,
            &[
                ("{}", "model"),
                (r#"{"model":"a","insecure":true}"#, "insecure"),
                (r#"{"model":"a","password":"x"}"#, "password"),
                (r#"{"model":"a","tag":"x"}"#, "tag"),
            ],
        );
    }

    #[test]
    fn progress_is_told_once() {
        let file = |sha256: Option<&str>, received| PulledFile {
            role: "model",
            name: "a.gguf".into(),
            source: "x".into(),
            bytes: Some(9),
            sha256: sha256.map(Into::into),
            received,
            done: received == 9,
        };
        let status = |state, one, two| PullStatus {
            id: "p".into(),
            model: "a".into(),
            state,
            files: vec![file(Some("ab"), one), file(None, two)],
            rate: 0,
            owner: None,
        };
        let mut telling = Telling::default();
        let mut told = |status: &PullStatus| -> Vec<Value> {
            let lines = String::from_utf8(telling.lines(status)).unwrap();
            lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        let first = json!({"status": "pulling manifest"});
        let one = |completed: u64| json!({"status": "pulling a.gguf", "digest": "sha256:ab", "total": 9, "completed": completed});
        assert_eq!(told(&status(PullState::Downloading, 3, 0)), [first, one(3)]);
        assert_eq!(
            told(&status(PullState::Downloading, 3, 0)),
            [] as [Value; 0]
        );
        let waiting = PullState::Waiting {
            cause: "503".into(),
            seconds: 2,
        };
        assert_eq!(
            told(&status(waiting, 9, 0)),
            [one(9), json!({"status": "trying again in 2 s: 503"})]
        );
        let two = json!({"status": "pulling a.gguf", "total": 9, "completed": 9});
        assert_eq!(
            told(&status(PullState::Done, 9, 9)),
            [two, json!({"status": "success"})]
        );
        let failed = PullState::Failed {
            cause: "gone".into(),
            resumable: true,
        };
        assert_eq!(
            told(&status(failed, 9, 9)),
            [json!({"error": "gone; what came is kept: pull again to go on"})]
        );
    }
}
