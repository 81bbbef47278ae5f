//! Anthropic's Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

mod blocks;
mod error;
pub mod request;
mod response;
mod stream;
mod tools;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{next, parse, streamed};
use crate::api::llama_cpp::mistaken;
use crate::api::parts::Parts;
use crate::api::{Api, body, documents, id, json, relaxed, render};
use crate::chat::{ChatEvent, TextAnswer, TextTask};
use error::AnthropicError;
use request::MessagesCall;
use response::{BlockOut, Edits, MessageOut};
use stream::Stream;

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, AnthropicError> {
    let body::Received { bytes, mut share } = body::read(&api, &caller, request).await?;
    let MessagesCall {
        model,
        mut request,
        stream,
        places,
        show,
        ignored,
    } = parse(bytes, request::parse).await?;
    let refusal = |failure| ApiError::failure(failure, |place| places.field(place));
    let unread = |refused| ApiError::attachments(refused, |place| places.field(place));
    let files = documents::resolve(&api, caller.id(), &model, &mut request, &mut share)
        .await
        .map_err(unread)?;
    let stops = request.output.stop.clone();
    request.whole = !stream;
    let mut answer = api
        .backends
        .chat(caller.id(), &model, request)
        .await
        .map_err(refusal)?;
    // What fails before the first event fails with a status of its own.
    let mut event = next(&mut answer).await.map_err(refusal)?;
    let relaxed = answer.relaxed.clone();
    let id = id::random("msg_");
    if stream {
        // From here on the request's memory is the worker's business. One that is answered whole is
        // kept to the end: it may be answered anew.
        drop(share);
        let model = answer.model();
        let response = streamed(answer, event, Stream::new(id, model, stops, show));
        let response = relaxed::with_header(response, &relaxed);
        return Ok(ignored.said_on(documents::with_files_header(response, &files)));
    }
    let mut parts = Parts::default();
    loop {
        parts.event(&event, |_, _, _| {});
        if let ChatEvent::Done(done) = &event {
            let (stop_reason, stop_sequence) = response::stop(done, &stops);
            let message = MessageOut {
                id: &id,
                r#type: "message",
                role: "assistant",
                model: &answer.model(),
                content: parts
                    .list()
                    .iter()
                    .filter_map(|part| BlockOut::of(part, show))
                    .collect(),
                stop_reason: Some(stop_reason),
                stop_sequence,
                usage: done.usage.into(),
                container: (),
                context_management: Edits::of(show),
                timings: Some(done.into()),
            };
            let response = relaxed::with_header(json(render(&message)), &relaxed);
            let response = documents::with_files_header(response, &files);
            return Ok(ignored.said_on(response));
        }
        event = next(&mut answer).await?;
    }
}

#[derive(Serialize)]
struct Count {
    input_tokens: u32,
}

pub async fn count_tokens(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, AnthropicError> {
    let body::Received { bytes, mut share } = body::read(&api, &caller, request).await?;
    let MessagesCall {
        model,
        mut request,
        places,
        ignored,
        ..
    } = parse(bytes, request::parse_count).await?;
    let refusal = |failure| ApiError::failure(failure, |place| places.field(place));
    let unread = |refused| ApiError::attachments(refused, |place| places.field(place));
    documents::resolve(&api, caller.id(), &model, &mut request, &mut share)
        .await
        .map_err(unread)?;
    match api
        .backends
        .text(caller.id(), &model, TextTask::Count(Box::new(request)))
        .await
        .map_err(refusal)?
    {
        TextAnswer::Count(input_tokens) => {
            Ok(ignored.said_on(json(render(&Count { input_tokens }))))
        }
        other => Err(mistaken(&other).into()),
    }
}
