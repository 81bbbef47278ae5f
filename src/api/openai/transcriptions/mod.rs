//! `POST /v1/audio/transcriptions`: what is said becomes text. A sound that is longer than the model hears at
//! once is heard piece by piece.

pub mod request;
mod response;
mod segment;
mod transcriber;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, events, write_event};
use crate::api::{Api, body, json, render};
use request::Format;
use response::{Event, Transcription, Verbose};
use transcriber::{Step, Transcriber};

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let boundary = body::boundary(request.headers())?;
    let body::Received {
        bytes,
        share,
        prefer,
    } = body::read_form(&api, &caller, request).await?;
    let call = request::parse(&boundary, Bytes::from_owner(bytes)).await?;
    let format = call.wish.format;
    let transcriber = Transcriber::begin(api, caller.id(), call, share).await?;
    let meanwhile = match format {
        Format::Stream => Meanwhile::Comments(None),
        Format::Json | Format::Verbose => Meanwhile::of_whole(prefer),
        // Blanks would be a part of the text.
        Format::Text | Format::Srt | Format::Vtt => Meanwhile::Nothing,
    };
    let answering = async move {
        match format {
            Format::Stream => streamed(transcriber).await,
            _ => whole(transcriber).await,
        }
    };
    begun(meanwhile, answering, |error: ApiError| error.event()).await
}

/// The answer when all was heard.
async fn whole(mut transcriber: Transcriber) -> Result<Response, ApiError> {
    let mut segments = vec![];
    while let Some(step) = transcriber.step().await? {
        if let Step::Segment(segment) = step {
            segments.push(segment);
        }
    }
    let text = transcriber.text();
    Ok(match transcriber.wish().format {
        Format::Json | Format::Stream => json(render(&Transcription {
            text,
            usage: transcriber.usage().into(),
        })),
        Format::Verbose => json(render(&Verbose::of(&transcriber, &segments))),
        Format::Text => plain("text/plain; charset=utf-8", format!("{text}\n")),
        Format::Srt => plain(
            "application/x-subrip; charset=utf-8",
            segment::srt(&segments),
        ),
        Format::Vtt => plain("text/vtt; charset=utf-8", segment::vtt(&segments)),
    })
}

/// The answer as it comes. What is wrong before the first word has a status.
async fn streamed(mut transcriber: Transcriber) -> Result<Response, ApiError> {
    let first = transcriber.step().await?;
    let state = Some((transcriber, first));
    let pieces = stream::unfold(state, |state| async move {
        let (mut transcriber, step) = state?;
        let piece = event(&transcriber, step.as_ref());
        if step.is_none() {
            return Some((Ok::<_, Infallible>(piece), None));
        }
        match transcriber.step().await {
            Ok(next) => Some((Ok(piece), Some((transcriber, next)))),
            Err(error) => {
                let mut last = piece.to_vec();
                last.extend(error.event());
                Some((Ok(last.into()), None))
            }
        }
    });
    Ok(events(Body::from_stream(pieces)))
}

/// What a stream says of a step; of the end if there is none.
fn event(transcriber: &Transcriber, step: Option<&Step>) -> Bytes {
    let mut buffer = vec![];
    match step {
        Some(Step::Delta(delta)) => write_event(&mut buffer, None, &Event::Delta { delta }),
        Some(Step::Segment(_)) => {}
        None => {
            let (text, usage) = (transcriber.text(), transcriber.usage().into());
            write_event(&mut buffer, None, &Event::Done { text, usage });
        }
    }
    buffer.into()
}

fn plain(kind: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
