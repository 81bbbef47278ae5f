//! `POST /v1/chat/completions`: a [`request`] with [`messages`], answered whole ([`completion`]) or
//! in pieces ([`stream`]), both in the shapes of [`response`].

pub mod completion;
pub mod fields;
mod messages;
pub mod request;
pub mod response;
pub mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{next, parse, streamed};
use crate::api::{Api, body, documents, json, relaxed};
use crate::backend::Answer;
use crate::chat::ChatEvent;
use completion::CompletionBuilder;
use request::{ChatCall, Delivery};
use response::Head;
use stream::Chunks;

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let body::Received { bytes, mut share } = body::read(&api, &caller, request).await?;
    let ChatCall {
        model,
        mut request,
        delivery,
    } = parse(bytes, request::parse).await?;
    let files = documents::read(&api, caller.id(), &mut request, &mut share)
        .await
        .map_err(|refused| ApiError::attachments(refused, fields::field))?;
    let logprobs = request.logprobs.is_some();
    request.whole = delivery == Delivery::Complete;
    let mut answer = api.backends.chat(caller.id(), &model, request).await?;
    // What fails before the first event fails with a status of its own.
    let first = next(&mut answer).await?;
    let head = Head::new(&answer.model());
    let relaxed = answer.relaxed.clone();
    let response = match delivery {
        // The request is kept to the end: it may be answered anew.
        Delivery::Complete => collected(answer, first, &head, logprobs).await?,
        Delivery::Stream { usage } => {
            // From here on the request's memory is the worker's business.
            drop(share);
            streamed(answer, first, Chunks::new(head, usage, logprobs))
        }
    };
    let response = relaxed::with_header(response, &relaxed);
    Ok(documents::with_files_header(response, &files))
}

async fn collected(
    mut answer: Answer,
    first: ChatEvent,
    head: &Head,
    logprobs: bool,
) -> Result<Response, ApiError> {
    let mut completion = CompletionBuilder::default();
    let mut event = first;
    loop {
        if let Some(done) = completion.event(event) {
            return Ok(json(completion.json(head, &done, logprobs)));
        }
        event = next(&mut answer).await?;
    }
}
