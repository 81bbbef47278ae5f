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
use crate::api::answered::Answered;
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, mistaken, next, parse, streamed};
use crate::api::openai::chat::response::FinishDetails;
use crate::api::parts::Parts;
use crate::api::{Api, body, documents, id, json, render, telling};
use crate::attachments::ReadFile;
use crate::backend::{Answer, Failure};
use crate::chat::{ChatEvent, TextAnswer, TextTask};
pub use error::AnthropicError;
use request::{MessagesCall, Show};
use response::{BlockOut, Edits, MessageOut};
use stream::Stream;

/// Whether a path is this API's.
pub fn has(path: &str) -> bool {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    path == "/messages" || path.starts_with("/messages/")
}

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let answered = answered(&api, &caller, request, &mut files).await;
    documents::said(answered, &files)
}

async fn answered(
    api: &Api,
    caller: &Caller,
    request: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, AnthropicError> {
    let body::Received {
        bytes,
        mut share,
        prefer,
    } = body::read(api, caller, request).await?;
    let MessagesCall {
        model,
        mut request,
        stream,
        progress,
        places,
        show,
        ignored,
    } = parse(bytes, request::parse).await?;
    let refusal = |failure| ApiError::failure(failure, |place| places.field(place));
    let unread = |refused| ApiError::attachments(refused, |place| places.field(place));
    documents::resolve(api, caller.id(), &model, &mut request, &mut share, files)
        .await
        .map_err(unread)?;
    let stops = request.output.stop.clone();
    request.whole = !stream;
    let mut answer = api
        .backends
        .chat(caller.id(), &model, request)
        .await
        .map_err(refusal)?;
    let meanwhile = match stream {
        true => Meanwhile::Comments(telling::by_events(progress, answer.waiting.clone())),
        false => Meanwhile::of_whole(prefer),
    };
    let answering = async move {
        // What fails before the first event fails with a status of its own.
        let first = next(&mut answer)
            .await
            .map_err(|failure| ApiError::failure(failure, |place| places.field(place)))?;
        let answered = Answered::of(&answer);
        let id = id::random("msg_");
        let response = if stream {
            // From here on the request's memory is the worker's business. One that is answered
            // whole is kept to the end: it may be answered anew.
            drop(share);
            let model = answer.model();
            streamed(answer, first, Stream::new(id, model, stops, show))
        } else {
            json(whole(&mut answer, first, &id, &stops, show).await?)
        };
        let response = answered.said_on(response);
        Ok(ignored.said_on(response))
    };
    begun(meanwhile, answering, |error: AnthropicError| error.event()).await
}

/// The message that an answer becomes, from its `first` event on.
async fn whole(
    answer: &mut Answer,
    first: ChatEvent,
    id: &str,
    stops: &[String],
    show: Show,
) -> Result<String, Failure> {
    let (mut parts, mut event) = (Parts::default(), first);
    loop {
        parts.event(&event, |_, _, _| {});
        if let ChatEvent::Done(done) = &event {
            let (stop_reason, stop_sequence) = response::stop(done, stops);
            return Ok(render(&MessageOut {
                id,
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
                finish_details: FinishDetails::of(done.finish),
                usage: done.usage.into(),
                container: (),
                context_management: Edits::of(show),
                timings: Some(done.into()),
            }));
        }
        event = next(answer).await?;
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
) -> Response {
    let mut files = vec![];
    let answered = counted(&api, &caller, request, &mut files).await;
    documents::said(answered, &files)
}

async fn counted(
    api: &Api,
    caller: &Caller,
    request: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, AnthropicError> {
    let body::Received {
        bytes, mut share, ..
    } = body::read(api, caller, request).await?;
    let MessagesCall {
        model,
        mut request,
        places,
        ignored,
        ..
    } = parse(bytes, request::parse_count).await?;
    let refusal = |failure| ApiError::failure(failure, |place| places.field(place));
    let unread = |refused| ApiError::attachments(refused, |place| places.field(place));
    documents::resolve(api, caller.id(), &model, &mut request, &mut share, files)
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
