//! What all endpoints that generate have in common: reading the request, waiting for events,
//! streaming.
//!
//! A client that hangs up drops the future or the body that runs here, and with it the [`Answer`],
//! which stops the generation. A client that closes only its sending side counts as gone.

use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;

use crate::api::parse::Invalid;
use crate::backend::{Answer, Failure};
use crate::chat::ChatEvent;

/// Bodies above this are taken apart on another thread: they take long enough for others to notice.
pub const PARSE_ASIDE: usize = 256 << 10;

/// Turns the events of one answer into what is sent for them.
pub trait Encoder: Send + 'static {
    /// Bytes for one event; none if it says nothing in this shape.
    fn event(&mut self, event: ChatEvent) -> Bytes;
    /// Bytes for an answer that breaks off.
    fn failure(&mut self, failure: Failure) -> Bytes;
}

/// Has a body taken apart where it disturbs nobody.
pub async fn parse<T: Send + 'static>(
    bytes: Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, Invalid> + Send + 'static,
) -> Result<T, Invalid> {
    if bytes.len() <= PARSE_ASIDE {
        return parse(&bytes);
    }
    match tokio::task::spawn_blocking(move || parse(&bytes)).await {
        Ok(parsed) => parsed,
        Err(_) => Err(Invalid::new("", "the body could not be read")),
    }
}

/// The next event. There is one until `Done` was seen.
pub async fn next(answer: &mut Answer) -> Result<ChatEvent, Failure> {
    match answer.next().await {
        Some(event) => event,
        None => Err(Failure::WorkerDied {
            cause: "the answer broke off".into(),
        }),
    }
}

/// Where a streamed answer stands.
enum Stage {
    /// An event is at hand.
    At(ChatEvent),
    Waiting,
    Over,
}

/// The answer as server-sent events.
pub fn streamed(answer: Answer, first: ChatEvent, encoder: impl Encoder) -> Response {
    let pieces = stream::unfold(
        (answer, encoder, Stage::At(first)),
        |(mut answer, mut encoder, stage)| async move {
            let event = match stage {
                Stage::At(event) => Ok(event),
                Stage::Waiting => next(&mut answer).await,
                Stage::Over => return None,
            };
            let (piece, stage) = match event {
                Ok(end @ ChatEvent::Done(_)) => (encoder.event(end), Stage::Over),
                Ok(event) => (encoder.event(event), Stage::Waiting),
                Err(failure) => (encoder.failure(failure), Stage::Over),
            };
            Some((Ok::<Bytes, Infallible>(piece), (answer, encoder, stage)))
        },
    );
    events(Body::from_stream(pieces))
}

/// A response of server-sent events.
pub fn events(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Appends one server-sent event. `name` is for shapes whose events have one.
pub fn write_event(buffer: &mut Vec<u8>, name: Option<&str>, data: &impl Serialize) {
    if let Some(name) = name {
        buffer.extend_from_slice(b"event: ");
        buffer.extend_from_slice(name.as_bytes());
        buffer.push(b'\n');
    }
    buffer.extend_from_slice(b"data: ");
    // Writing plain structs into memory does not fail.
    let _ = serde_json::to_writer(&mut *buffer, data);
    buffer.extend_from_slice(b"\n\n");
}

/// Takes what was written and leaves the buffer's memory for the next event.
pub fn take(buffer: &mut Vec<u8>) -> Bytes {
    let bytes = Bytes::copy_from_slice(buffer);
    buffer.clear();
    bytes
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
