//! `POST /apply-template` and `POST /chat/completions/input_tokens`: what a chat's prompt is, and how
//! long, without an answer. Both take what a chat does.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::mistaken;
use crate::api::openai::chat::input::{Ready, ready};
use crate::api::openai::common::counted;
use crate::api::{Api, documents, json, render};
use crate::attachments::ReadFile;
use crate::chat::{TextAnswer, TextTask};

#[derive(Serialize)]
struct Prompt {
    prompt: String,
}

pub async fn apply_template(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let rendered = rendered(&api, &caller, request, &mut files).await;
    documents::said(rendered, &files)
}

async fn rendered(
    api: &Api,
    caller: &Caller,
    http: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    // The text is of the request's size, which the share still counts.
    let Ready {
        model,
        request,
        share: _share,
    } = ready(api, caller, http, files).await?;
    let task = TextTask::Render(Box::new(request));
    match api.backends.text(caller.id(), &model, task).await? {
        TextAnswer::Bytes(bytes) => Ok(json(render(&Prompt {
            prompt: String::from_utf8_lossy(&bytes).into_owned(),
        }))),
        other => Err(mistaken(&other)),
    }
}

pub async fn input_tokens(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let counted = tokens(&api, &caller, request, &mut files).await;
    documents::said(counted, &files)
}

async fn tokens(
    api: &Api,
    caller: &Caller,
    http: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    let Ready {
        model,
        request,
        share: _share,
    } = ready(api, caller, http, files).await?;
    let task = TextTask::Count(Box::new(request));
    let answer = api.backends.text(caller.id(), &model, task).await?;
    counted(&answer)
}
