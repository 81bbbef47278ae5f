//! `POST /apply-template` and `POST /chat/completions/input_tokens`: what a chat's prompt is, and how
//! long, without an answer. Both take what a chat does.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::error::ApiError;
use crate::api::generation::{mistaken, parse};
use crate::api::openai::chat::{fields, request};
use crate::api::openai::common::counted;
use crate::api::{Api, body, conversation, documents, json, render};
use crate::chat::{ChatRequest, TextAnswer, TextTask};

#[derive(Serialize)]
struct Prompt {
    prompt: String,
}

pub async fn apply_template(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let render_it = |request| TextTask::Render(Box::new(request));
    match ask(&api, &caller, request, render_it).await? {
        // The text is of the request's size, which the share still counts.
        (TextAnswer::Bytes(bytes), _share) => Ok(json(render(&Prompt {
            prompt: String::from_utf8_lossy(&bytes).into_owned(),
        }))),
        (other, _) => Err(mistaken(&other)),
    }
}

pub async fn input_tokens(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let count = |request| TextTask::Count(Box::new(request));
    let (answer, _) = ask(&api, &caller, request, count).await?;
    counted(&answer)
}

async fn ask(
    api: &Api,
    caller: &Caller,
    http: Request,
    task: impl FnOnce(ChatRequest) -> TextTask,
) -> Result<(TextAnswer, Share), ApiError> {
    let body::Received {
        bytes, mut share, ..
    } = body::read(api, caller, http).await?;
    let request::ChatCall {
        model, mut request, ..
    } = parse(bytes, request::parse).await?;
    documents::resolve(api, caller.id(), &model, &mut request, &mut share)
        .await
        .map_err(|refused| ApiError::attachments(refused, fields::field))?;
    conversation::settle(&mut request);
    let answer = api
        .backends
        .text(caller.id(), &model, task(request))
        .await?;
    Ok((answer, share))
}
