//! `POST /v1/audio/transcriptions`: what is said becomes text.

pub mod request;
mod response;
mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, next, streamed};
use crate::api::{Api, body, json, render};
use crate::chat::ChatEvent;
use request::{Format, TranscriptionCall};
use response::Transcription;
use stream::Pieces;

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let boundary = body::boundary(request.headers())?;
    let body::Received {
        bytes,
        mut share,
        prefer,
    } = body::read_form(&api, &caller, request).await?;
    let TranscriptionCall {
        model,
        mut request,
        format,
    } = request::parse(&boundary, Bytes::from_owner(bytes)).await?;
    let failed = |failure| ApiError::failure(failure, request::field);
    api.attachments
        .decode(&mut request, &model, &mut share)
        .await
        .map_err(|refused| ApiError::attachments(refused, request::field))?;
    request.whole = format != Format::Stream;
    let mut answer = api
        .backends
        .chat(caller.id(), &model, request)
        .await
        .map_err(failed)?;
    let answering = async move {
        let mut event = next(&mut answer).await.map_err(failed)?;
        if format == Format::Stream {
            // One that is answered whole is kept to the end: it may be answered anew.
            drop(share);
            return Ok(streamed(answer, event, Pieces::default()));
        }
        let mut text = String::new();
        loop {
            match event {
                ChatEvent::Text { text: piece, .. } => text.push_str(&piece),
                ChatEvent::Restarted => text.clear(),
                ChatEvent::Done(done) if format == Format::Json => {
                    return Ok(json(render(&Transcription {
                        text: text.trim(),
                        usage: done.usage.into(),
                    })));
                }
                ChatEvent::Done(_) => return Ok(plain(text.trim())),
                _ => {}
            }
            event = next(&mut answer).await?;
        }
    };
    let meanwhile = match format {
        Format::Stream => Meanwhile::Comments(None),
        Format::Json => Meanwhile::of_whole(prefer),
        // Blanks would be a part of the text.
        _ => Meanwhile::Nothing,
    };
    begun(meanwhile, answering, |error: ApiError| error.event()).await
}

/// The text alone, and the end of its line.
fn plain(text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
