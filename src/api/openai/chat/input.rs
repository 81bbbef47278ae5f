//! What a chat is before the model is asked; `POST /v1/chat/completions/input` shows it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{fields, request};
use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::error::ApiError;
use crate::api::generation::{mistaken, parse};
use crate::api::{Api, body, conversation, documents};
use crate::attachments::ReadFile;
use crate::backend::{Failure, PictureSize, SOUND_RATE};
use crate::chat::{ChatError, ChatRequest, Message, Part, Pixels, TextAnswer, TextTask};

/// A request as its model gets it.
pub struct Ready {
    /// As the client named it.
    pub model: String,
    pub request: ChatRequest,
    /// Its bytes.
    pub share: Share,
}

/// Reads a chat's request, and what it brings along.
///
/// # Errors
///
/// What is wrong with it; `files` are those that were read until then.
pub async fn ready(
    api: &Api,
    caller: &Caller,
    http: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Ready, ApiError> {
    let body::Received {
        bytes, mut share, ..
    } = body::read(api, caller, http).await?;
    let request::ChatCall {
        model, mut request, ..
    } = parse(bytes, request::parse).await?;
    documents::resolve(api, caller.id(), &model, &mut request, &mut share, files)
        .await
        .map_err(|refused| ApiError::attachments(refused, fields::field))?;
    conversation::settle(&mut request);
    Ok(Ready {
        model,
        request,
        share,
    })
}

/// Shows what the model would get, and asks it nothing.
pub async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let shown = shown(&api, &caller, request, &mut files).await;
    documents::said(shown, &files)
}

async fn shown(
    api: &Api,
    caller: &Caller,
    http: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    let Ready {
        model,
        request,
        mut share,
    } = ready(api, caller, http, files).await?;
    let found = api.backends.find(&model, request.modalities()).await?;
    let media = media(&request);
    // The model's worker is asked twice.
    let copied: usize = request.messages.iter().map(Message::copied_bytes).sum();
    share.grow(copied as u64).map_err(ApiError::bodies)?;
    let ask = |task| api.backends.text(caller.id(), &model, task);
    let prompt = match ask(TextTask::Render(Box::new(request.clone()))).await? {
        TextAnswer::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => return Err(mistaken(&other)),
    };
    let tokens = match ask(TextTask::Count(Box::new(request))).await {
        Ok(TextAnswer::Count(tokens)) => tokens,
        Ok(other) => return Err(mistaken(&other)),
        // What does not fit is to be seen as well.
        Err(Failure::Chat(ChatError::PromptTooLong { prompt_tokens, .. })) => prompt_tokens,
        Err(failure) => return Err(failure.into()),
    };
    let files = files.iter().map(|file| {
        let mut said = documents::described(file);
        said["content"] = json!(documents::pages(file));
        said
    });
    let shown = json!({
        "object": "chat.completion.input",
        "model": found.model.id,
        "context_tokens": found.context,
        "prompt_tokens": tokens,
        "prompt": prompt,
        "media": media,
        "files": files.collect::<Vec<_>>(),
    });
    Ok(crate::api::json(shown.to_string()))
}

/// The pictures and sounds, in the order of their marks in the prompt.
fn media(request: &ChatRequest) -> Vec<Value> {
    let media = request.media();
    let media = media.filter_map(|(message, part, content)| {
        let message = request
            .origins
            .get(message)
            .map_or(message, |i| *i as usize);
        let (kind, medium) = match content {
            Part::Pixels(Pixels { width, height, .. }) => {
                let (width, height) = (*width, *height);
                let tokens = PictureSize { width, height }.tokens();
                let said = json!({"width": width, "height": height, "tokens": tokens});
                ("image", said)
            }
            Part::Samples(samples) => {
                let seconds = f64::from(samples.count) / f64::from(SOUND_RATE);
                (
                    "audio",
                    json!({"seconds": (seconds * 1000.0).round() / 1000.0}),
                )
            }
            _ => return None,
        };
        let mut said = json!({"type": kind, "message": message, "part": part});
        if let (Some(said), Value::Object(medium)) = (said.as_object_mut(), medium) {
            said.extend(medium);
        }
        Some(said)
    });
    media.collect()
}
