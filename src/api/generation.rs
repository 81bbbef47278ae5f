//! What all endpoints that generate have in common: reading the request, waiting for events,
//! streaming.
//!
//! A client that hangs up drops the future or the body that runs here, and with it the [`Answer`],
//! which stops the generation. A client that closes only its sending side counts as gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use tokio::time::timeout;

use crate::api::error::ApiError;
use crate::api::parse::Invalid;
use crate::api::prefer::{self, Prefer};
use crate::api::telling::{Teller, told};
use crate::attachments::aside;
use crate::backend::{Answer, Failure};
use crate::chat::{ChatEvent, TextAnswer};

/// Bodies above this are taken apart on another thread: they take long enough for others to notice.
pub const PARSE_ASIDE: usize = 256 << 10;

/// A stream whose request waits longer than this, for a slot or for its model, begins without an
/// event: its client would take silence for a dead server. What goes wrong after that is told by an
/// event, for there is no status any more.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);
/// How long a stream says nothing at most.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// A server-sent event that says nothing: clients pass comments over.
const COMMENT: Bytes = Bytes::from_static(COMMENT_TEXT);
const COMMENT_TEXT: &[u8] = b": waiting\n\n";
/// What JSON may have in front.
const BLANK: Bytes = Bytes::from_static(b" ");

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, axum::Error>> + Send>>;

/// Turns the events of one answer into what is sent for them.
pub trait Encoder: Send + 'static {
    /// Bytes for one event; none if it says nothing in this shape.
    fn event(&mut self, event: ChatEvent) -> Bytes;
    /// Bytes for an answer that breaks off.
    fn failure(&mut self, failure: Failure) -> Bytes;
}

/// Why a body is no request.
#[derive(Debug)]
pub enum Unread {
    Invalid(Invalid),
    /// There is no thread to read it on.
    Failure(Failure),
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Invalid(invalid) => invalid.into(),
            Unread::Failure(failure) => failure.into(),
        }
    }
}

/// Has a body taken apart where it disturbs nobody.
///
/// # Errors
///
/// What is wrong with it, or no thread to read a large one.
pub async fn parse<T: Send + 'static>(
    bytes: Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, Invalid> + Send + 'static,
) -> Result<T, Unread> {
    let parsed = if bytes.len() <= PARSE_ASIDE {
        parse(&bytes)
    } else {
        let parsed = aside(move || parse(&bytes)).await;
        parsed.map_err(Unread::Failure)?
    };
    parsed.map_err(Unread::Invalid)
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

/// The worker answered another question.
pub fn mistaken(answer: &TextAnswer) -> ApiError {
    let kind = match answer {
        TextAnswer::Tokens(_) => "tokens",
        TextAnswer::Bytes(_) => "a text",
        TextAnswer::Count(_) => "a number",
    };
    Failure::WorkerDied {
        cause: format!("it answered with {kind}, which was not asked for"),
    }
    .into()
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
    events(pieces(answer, first, encoder))
}

/// What is sent for the events of an answer, from the `first` on.
pub fn pieces(answer: Answer, first: ChatEvent, encoder: impl Encoder) -> Body {
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
    Body::from_stream(pieces)
}

/// What a client hears that waits for its answer to begin.
pub enum Meanwhile {
    /// Nothing: its answer is sent whole.
    Nothing,
    /// Comments, and how far it is if it asked for that: its answer is streamed.
    Comments(Option<Teller>),
    /// A blank now and then in front of a line: its answer is streamed as lines of JSON, which have
    /// no comments.
    Lines,
    /// A blank now and then in front of the JSON, at its own wish.
    Blanks(Duration),
}

impl Meanwhile {
    /// For an answer that is sent whole, as JSON.
    pub fn of_whole(prefer: Prefer) -> Self {
        prefer.pause().map_or(Self::Nothing, Self::Blanks)
    }
}

/// The response that `begin` waits for. If that takes long it begins without that, with what is
/// said `meanwhile`. `event`: the bytes by which a stream that has begun says what went wrong.
pub async fn begun<E: IntoResponse + Send + 'static>(
    meanwhile: Meanwhile,
    begin: impl Future<Output = Result<Response, E>> + Send + 'static,
    event: impl FnOnce(E) -> Bytes + Send + 'static,
) -> Result<Response, E> {
    let mut begin = Box::pin(begin);
    let soon = match &meanwhile {
        Meanwhile::Nothing => return begin.await,
        Meanwhile::Comments(_) | Meanwhile::Lines | Meanwhile::Blanks(_) => {
            timeout(LONGEST_SILENCE, &mut begin).await
        }
    };
    match (meanwhile, soon) {
        (Meanwhile::Comments(Some(teller)), Ok(response)) => {
            response.map(|response| response.map(|body| with_progress(body, teller)))
        }
        (_, Ok(response)) => response,
        (Meanwhile::Blanks(pause), Err(_)) => Ok(padded(begin, pause)),
        (Meanwhile::Comments(teller), Err(_)) => {
            let response = events(late(begin, event, COMMENT));
            Ok(match teller {
                Some(teller) => response.map(|body| with_progress(body, teller)),
                None => response,
            })
        }
        (Meanwhile::Lines, Err(_)) => Ok(lines(late(begin, event, BLANK))),
        (Meanwhile::Nothing, Err(_)) => begin.await,
    }
}

/// The body of a stream that begins with a `sign` of life, before it is known what comes.
fn late<E: Send + 'static>(
    begin: impl Future<Output = Result<Response, E>> + Send + 'static,
    event: impl FnOnce(E) -> Bytes + Send + 'static,
    sign: Bytes,
) -> Body {
    let begun =
        begin.map(|begun| begun.map_or_else(|error| event(error).into(), Response::into_body));
    let sign = stream::once(async { Ok(sign) });
    Body::from_stream(sign.chain(later(begun)))
}

/// The pieces of a body that is not there yet.
fn later(body: impl Future<Output = Body> + Send + 'static) -> Pieces {
    let pieces = body.map(|body| Box::pin(body.into_data_stream()) as Pieces);
    Box::pin(stream::once(pieces).flatten())
}

/// A stream's body that tells how far the request is.
fn with_progress(body: Body, teller: Teller) -> Body {
    let pieces = Box::pin(body.into_data_stream()) as Pieces;
    Body::from_stream(told(pieces, teller, COMMENT_TEXT))
}

/// JSON behind as many blanks as it is waited for. The status is fixed before it is known how that
/// ends: an error is what the body says.
fn padded<E: IntoResponse + 'static>(
    begin: impl Future<Output = Result<Response, E>> + Send + 'static,
    pause: Duration,
) -> Response {
    let late = begin.map(|ended| ended.into_response().into_body());
    let blank = stream::once(async { Ok(BLANK) });
    let body = Body::from_stream(blank.chain(interrupted(later(late), pause, BLANK)));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(prefer::APPLIED, prefer::applied(pause));
    response
}

/// A response of server-sent events. Where nothing comes for a while it says so.
pub fn events(body: Body) -> Response {
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    let mut response = living(body, COMMENT, kind);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A response of lines of JSON. Where nothing comes for a while a blank does, which is passed over
/// in front of a line; an empty line would not be.
pub fn lines(body: Body) -> Response {
    living(
        body,
        BLANK,
        HeaderValue::from_static("application/x-ndjson"),
    )
}

/// A response of this type that gives a `sign` whenever nothing else comes for a while.
fn living(body: Body, sign: Bytes, kind: HeaderValue) -> Response {
    let pieces = Box::pin(body.into_data_stream()) as Pieces;
    let pieces = interrupted(pieces, SIGN_OF_LIFE, sign);
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// What is in `pieces`, and a `sign` whenever nothing comes for `silence`.
fn interrupted(
    pieces: Pieces,
    silence: Duration,
    sign: Bytes,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::unfold((pieces, sign), move |(mut pieces, sign)| async move {
        let piece = match timeout(silence, pieces.next()).await {
            Ok(piece) => piece?,
            Err(_) => Ok(sign.clone()),
        };
        Some((piece, (pieces, sign)))
    })
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

/// Appends one line of JSON.
pub fn write_line(buffer: &mut Vec<u8>, data: &impl Serialize) {
    // Writing plain structs into memory does not fail.
    let _ = serde_json::to_writer(&mut *buffer, data);
    buffer.push(b'\n');
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_silent_stream_says_that_it_lives() {
        let (send, receive) = mpsc::channel::<Bytes>(2);
        let pieces = stream::unfold(receive, |mut receive| async {
            let piece = receive.recv().await?;
            Some((Ok::<_, Infallible>(piece), receive))
        });
        let silence = Duration::from_millis(20);
        let pieces = Box::pin(Body::from_stream(pieces).into_data_stream());
        let mut said = Box::pin(interrupted(pieces, silence, COMMENT));
        let mut next = async || said.next().await.map(Result::unwrap);
        send.send("data: a\n\n".into()).await.unwrap();
        assert_eq!(next().await.unwrap(), "data: a\n\n");
        assert_eq!(next().await.unwrap(), COMMENT);
        assert_eq!(next().await.unwrap(), COMMENT);
        send.send("data: b\n\n".into()).await.unwrap();
        assert_eq!(next().await.unwrap(), "data: b\n\n");
        drop(send);
        assert_eq!(next().await, None);
    }
}
