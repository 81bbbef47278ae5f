//! `POST /v1/chat/completions`
//!
//! A client that hangs up drops the future or the body that runs here, and with it the [`Answer`], which stops the
//! generation. A client that closes only its sending side counts as gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;

use super::chunks::Chunks;
use super::error::ApiError;
use super::whole::Whole;
use super::wire::request::{self, ChatCall, Delivery};
use super::wire::response::{FINGERPRINT, Head};
use super::{Api, body, id, json};
use crate::access::Caller;
use crate::chat::{ChatEvent, Invalid};
use crate::engine::{Answer, Failure};

/// Bodies above this are taken apart on another thread: they take long enough for others to notice.
pub const PARSE_ASIDE: usize = 256 << 10;

pub async fn complete(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>, request: Request) -> Result<Response, ApiError> {
    let body::Received { bytes, share } = body::read(&api, &caller, request).await?;
    let ChatCall { model, request, delivery } = parse(bytes).await?;
    let logprobs = request.logprobs.is_some();
    let mut answer = api.engine.chat(caller.uid, &model, request).await?;
    // What fails before the first event fails with a status of its own.
    let first = next(&mut answer).await?;
    // From here on the request's memory is the worker's business.
    drop(share);
    let head = Head { id: id::random("chatcmpl-"), created: now(), model: answer.model.clone(), system_fingerprint: FINGERPRINT };
    match delivery {
        Delivery::Whole => whole(answer, first, &head, logprobs).await,
        Delivery::Stream { usage } => Ok(streamed(answer, first, Chunks::new(head, usage, logprobs))),
    }
}

async fn parse(bytes: Vec<u8>) -> Result<ChatCall, Invalid> {
    if bytes.len() <= PARSE_ASIDE {
        return request::parse(&bytes);
    }
    match tokio::task::spawn_blocking(move || request::parse(&bytes)).await {
        Ok(parsed) => parsed,
        Err(_) => Err(Invalid::new("", "the body could not be read")),
    }
}

/// The next event. There is one until `Done` was seen.
async fn next(answer: &mut Answer) -> Result<ChatEvent, Failure> {
    match answer.next().await {
        Some(event) => event,
        None => Err(Failure::WorkerDied { cause: "the answer broke off".into() }),
    }
}

async fn whole(mut answer: Answer, first: ChatEvent, head: &Head, logprobs: bool) -> Result<Response, ApiError> {
    let mut whole = Whole::default();
    let mut event = first;
    loop {
        if let Some(done) = whole.event(event) {
            return Ok(json(whole.json(head, &done, logprobs)));
        }
        event = next(&mut answer).await?;
    }
}

/// Where a streamed answer stands.
enum Stage {
    /// An event is at hand.
    At(ChatEvent),
    Waiting,
    Over,
}

fn streamed(answer: Answer, first: ChatEvent, chunks: Chunks) -> Response {
    let pieces = stream::unfold((answer, chunks, Stage::At(first)), |(mut answer, mut chunks, stage)| async move {
        let event = match stage {
            Stage::At(event) => Ok(event),
            Stage::Waiting => next(&mut answer).await,
            Stage::Over => return None,
        };
        let (piece, stage) = match event {
            Ok(end @ ChatEvent::Done(_)) => (chunks.event(end), Stage::Over),
            Ok(event) => (chunks.event(event), Stage::Waiting),
            Err(failure) => (chunks.failure(failure), Stage::Over),
        };
        Some((Ok::<Bytes, Infallible>(piece), (answer, chunks, stage)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
