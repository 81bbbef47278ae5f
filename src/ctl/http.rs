//! HTTP over the daemon's socket, one connection for each request.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use url::form_urlencoded;

use super::bar::Bar;
use super::client::{Client, Events, Reply};
use super::error::Error;
use super::socket::not_connected;
use super::sse::{SseError, SseReader};
use super::upload::Form;
use super::wire;

/// Bytes of a response that is not a stream, at most.
const MAX_BODY: usize = 16 << 20;

const CHAT_PATH: &str = "/v1/chat/completions";
const INPUT_PATH: &str = "/v1/chat/completions/input";
const PULL_PATH: &str = "/v1/models/pull";

/// The daemon, as reached over its socket.
pub struct Http {
    /// The first on which somebody listens is it.
    sockets: Vec<PathBuf>,
}

/// The connection's own work. It is done only while someone waits for something, and dropping it
/// hangs up at once: a task of its own would outlive an interrupted answer until the runtime ran
/// again.
pub(super) struct Link(Option<Pin<Box<dyn Future<Output = hyper::Result<()>>>>>);

impl Link {
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(connection) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // How it ended is told through `work` too.
                _ = connection => self.0 = None,
            }
        }
        work.await
    }
}

impl Http {
    /// `sockets`: where the daemon may listen, in the order in which they are tried.
    pub fn new(sockets: Vec<PathBuf>) -> Self {
        Self { sockets }
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let mut nobody = vec![];
        for socket in &self.sockets {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => match not_connected(socket, cause) {
                    Error::NotRunning { sockets } => nobody.extend(sockets),
                    error => return Err(error),
                },
            }
        }
        Err(Error::NotRunning { sockets: nobody })
    }

    async fn get(&self, path: &str) -> Result<Value, Error> {
        self.json(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.json(Method::POST, path, Some(body)).await
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let sent = self.send(method, path, body).await?;
        self.read(sent).await
    }

    /// The JSON of a response.
    pub(super) async fn read(&self, sent: (Response<Incoming>, Link)) -> Result<Value, Error> {
        serde_json::from_slice(&whole(sent).await?)
            .map_err(|error| Error::broken(format!("it sent no valid JSON: {error}")))
    }

    async fn events(&self, path: &str, request: &Value) -> Result<Box<dyn Events>, Error> {
        Ok(events_of(
            self.send(Method::POST, path, Some(request)).await?,
        ))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Link), Error> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
        self.send_body(method, path, "application/json", body.boxed())
            .await
    }

    pub(super) async fn send_body(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: BoxBody<Bytes, io::Error>,
    ) -> Result<(Response<Incoming>, Link), Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(USER_AGENT, concat!("gemmactl/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, kind)
            .body(body)
            .map_err(Error::broken)?;
        self.exchange(request).await
    }

    pub(super) async fn exchange(
        &self,
        request: Request<BoxBody<Bytes, io::Error>>,
    ) -> Result<(Response<Incoming>, Link), Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::broken)?;
        let mut link = Link(Some(Box::pin(connection)));
        let response = link
            .drive(sender.send_request(request))
            .await
            .map_err(Error::broken)?;
        if response.status().is_success() {
            return Ok((response, link));
        }
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        // An error without a readable body is still an error.
        let body = link
            .drive(collect(response.into_body()))
            .await
            .unwrap_or_default();
        let (message, field) = wire::error(&body);
        let message = message
            .unwrap_or_else(|| format!("the daemon answered with status {status} and no reason"));
        Err(refusal(status, retry_after, message, field))
    }
}

impl Client for Http {
    fn status(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/status"))
    }

    fn models(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/v1/models"))
    }

    fn catalog(&self) -> Reply<'_, Value> {
        Box::pin(async {
            let mut models = self.get("/v1/models?catalog=1").await?;
            Ok(models["catalog"].take())
        })
    }

    fn model<'a>(&'a self, name: &'a str) -> Reply<'a, Value> {
        Box::pin(async move { self.get(&model_path(name)).await })
    }

    fn details<'a>(&'a self, name: &'a str) -> Reply<'a, Value> {
        Box::pin(async move {
            let path = format!("{}?details=1", model_path(name));
            self.get(&path).await
        })
    }

    fn plan(&self, context: Option<u32>, ram: Option<u64>) -> Reply<'_, Value> {
        Box::pin(async move {
            let parameters = [
                context.map(|context| ("context", context.to_string())),
                ram.map(|bytes| ("ram", bytes.to_string())),
            ];
            let path = "/memory/plan?".to_owned();
            let start = path.len();
            let mut query = form_urlencoded::Serializer::for_suffix(path, start);
            query.extend_pairs(parameters.into_iter().flatten());
            let path = query.finish();
            self.get(&path).await
        })
    }

    fn load<'a>(&'a self, model: &'a str) -> Reply<'a, String> {
        Box::pin(async move {
            let loaded = self
                .post("/models/load", &json!({ "model": model }))
                .await?;
            Ok(loaded["id"].as_str().unwrap_or(model).to_owned())
        })
    }

    fn unload(&self) -> Reply<'_, ()> {
        Box::pin(async { self.post("/models/unload", &json!({})).await.map(drop) })
    }

    fn chat<'a>(&'a self, request: &'a Value) -> Reply<'a, Value> {
        Box::pin(self.post(CHAT_PATH, request))
    }

    fn input<'a>(&'a self, request: &'a Value) -> Reply<'a, Value> {
        Box::pin(self.post(INPUT_PATH, request))
    }

    fn stream<'a>(&'a self, request: &'a Value) -> Reply<'a, Box<dyn Events>> {
        Box::pin(self.events(CHAT_PATH, request))
    }

    fn completion<'a>(&'a self, request: &'a Value) -> Reply<'a, Box<dyn Events>> {
        Box::pin(self.events("/completion", request))
    }

    fn tokenize<'a>(&'a self, request: &'a Value) -> Reply<'a, Value> {
        Box::pin(self.post("/tokenize", request))
    }

    fn transcribe(&self, form: Form) -> Reply<'_, Box<dyn Events>> {
        Box::pin(async { Ok(events_of(self.send_form(form).await?)) })
    }

    fn transcript(&self, form: Form) -> Reply<'_, String> {
        Box::pin(async {
            let text = whole(self.send_form(form).await?).await?;
            String::from_utf8(text.into())
                .map_err(|_| Error::broken("it sent a transcript that is not UTF-8"))
        })
    }

    fn pull_plan<'a>(&'a self, request: &'a Value) -> Reply<'a, Value> {
        Box::pin(self.post(PULL_PATH, request))
    }

    fn pull_events<'a>(&'a self, request: &'a Value) -> Reply<'a, Box<dyn Events>> {
        Box::pin(self.events(PULL_PATH, request))
    }

    fn pulls(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/v1/models/pulls"))
    }

    fn cancel_pull<'a>(&'a self, id: &'a str) -> Reply<'a, Value> {
        Box::pin(async move {
            let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
            let path = format!("/v1/models/pulls/{}/cancel", id.replace('+', "%20"));
            self.post(&path, &json!({})).await
        })
    }

    fn remove<'a>(&'a self, id: &'a str) -> Reply<'a, Value> {
        Box::pin(async move { self.json(Method::DELETE, &model_path(id), None).await })
    }

    fn verify<'a>(&'a self, model: &'a str) -> Reply<'a, Box<dyn Events>> {
        Box::pin(async move {
            let body = json!({ "model": model, "stream": true });
            self.events("/models/verify", &body).await
        })
    }

    fn prune(&self, dry_run: bool) -> Reply<'_, Value> {
        Box::pin(async move {
            let body = json!({ "dry_run": dry_run });
            self.post("/models/prune", &body).await
        })
    }

    fn import<'a>(
        &'a self,
        folder: Option<&'a str>,
        name: &'a str,
        file: &'a Path,
        bar: &'a Bar,
    ) -> Reply<'a, Value> {
        Box::pin(self.upload(folder, name, file, bar))
    }

    fn memory(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/memory"))
    }

    fn issue_token<'a>(&'a self, order: &'a Value) -> Reply<'a, Value> {
        Box::pin(self.post("/tokens", order))
    }

    fn tokens(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/tokens"))
    }

    fn usage(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/usage"))
    }

    fn revoke_tokens<'a>(&'a self, which: &'a Value) -> Reply<'a, Value> {
        Box::pin(self.post("/tokens/revoke", which))
    }

    fn rotate_tokens(&self) -> Reply<'_, Value> {
        Box::pin(async { self.post("/tokens/rotate", &json!({})).await })
    }

    fn devices(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/devices"))
    }

    fn packed_weights(&self) -> Reply<'_, Value> {
        Box::pin(self.get("/cache"))
    }

    fn clear_packed_weights(&self) -> Reply<'_, Value> {
        Box::pin(async { self.post("/cache/clear", &json!({})).await })
    }

    fn clear_prompts(&self, all: bool) -> Reply<'_, Value> {
        let path = match all {
            true => "/cache/prompts/clear?all=true",
            false => "/cache/prompts/clear",
        };
        Box::pin(async { self.post(path, &json!({})).await })
    }
}

fn model_path(name: &str) -> String {
    let segment: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    // In a path a plus sign is itself.
    format!("/v1/models/{}", segment.replace('+', "%20"))
}

/// All of a response.
pub(super) async fn whole(sent: (Response<Incoming>, Link)) -> Result<Bytes, Error> {
    let (response, mut link) = sent;
    link.drive(collect(response.into_body())).await
}

/// A response's events as they come.
pub(super) fn events_of(sent: (Response<Incoming>, Link)) -> Box<dyn Events> {
    let (response, link) = sent;
    Box::new(HttpEvents {
        body: response.into_body(),
        link,
        reader: SseReader::default(),
        ready: VecDeque::new(),
    })
}

/// The events of an answer on their way. Dropping it hangs up.
struct HttpEvents {
    body: Incoming,
    link: Link,
    reader: SseReader,
    ready: VecDeque<String>,
}

impl Events for HttpEvents {
    fn next(&mut self) -> Reply<'_, Option<String>> {
        Box::pin(async move {
            loop {
                if let Some(data) = self.ready.pop_front() {
                    return Ok(Some(data));
                }
                let frame = match self.link.drive(self.body.frame()).await {
                    None => return Ok(None),
                    Some(frame) => frame.map_err(Error::broken)?,
                };
                if let Ok(bytes) = frame.into_data() {
                    self.ready
                        .extend(self.reader.push(&bytes).map_err(|error| match error {
                            SseError::TooLong => Error::broken("it sent an event that is too long"),
                            SseError::NotUtf8 => {
                                Error::broken("it sent an event that is not UTF-8")
                            }
                        })?);
                }
            }
        })
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                Error::broken(format!("its answer is longer than {MAX_BODY} bytes"))
            } else {
                Error::broken(error)
            }
        })?;
    Ok(body.to_bytes())
}

/// 503 without a time to come back is a failure, not a queue.
fn refusal(status: u16, retry_after: Option<u64>, message: String, field: Option<String>) -> Error {
    match (status, retry_after) {
        (429, _) | (503, Some(_)) => Error::Busy {
            message,
            retry_after: retry_after.map(Duration::from_secs),
        },
        (403, _) => Error::NotAllowed { message },
        _ => Error::Refused { message, field },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_and_not_allowed_are_told_from_refused() {
        let code = |status, retry| refusal(status, retry, String::new(), None).code();
        assert_eq!(
            (code(429, None), code(429, Some(1)), code(503, Some(1))),
            (75, 75, 75)
        );
        assert_eq!(
            (
                code(503, None),
                code(400, None),
                code(500, Some(1)),
                code(403, None)
            ),
            (1, 1, 1, 77)
        );
    }
}
