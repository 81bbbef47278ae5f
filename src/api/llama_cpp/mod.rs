//! What llama.cpp's server has beside OpenAI's API: tokens and prompts, which the model's own worker
//! knows, so a model may have to be loaded first; its way to go on with a text; and how the model is
//! run.

pub mod completion;
pub mod prompt;
pub mod server;
pub mod tokens;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{mistaken, parse};
use crate::api::{Api, body, json, kept, render};
use crate::backend::Failure;
use crate::chat::{TextAnswer, TextTask};
use tokens::{TokenList, TokenizeCall};

/// Bytes that the answer may take for each byte of the text while it waits for its reader: at worst
/// each is a token.
const ANSWER_WEIGHT: u64 = 16;

/// A text, by the names of both servers whose clients ask for it.
#[derive(Serialize)]
struct Content<'a> {
    content: &'a str,
    prompt: &'a str,
}

pub async fn tokenize(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let body::Received {
        bytes, mut share, ..
    } = body::read(&api, &caller, request).await?;
    let TokenizeCall {
        model,
        text,
        begin,
        control,
        pieces,
    } = parse(bytes, tokens::tokenize).await?;
    share
        .grow(text.len() as u64 * ANSWER_WEIGHT)
        .map_err(ApiError::bodies)?;
    match api
        .backends
        .text(
            caller.id(),
            &model,
            TextTask::Tokenize {
                text,
                begin,
                control,
            },
        )
        .await?
    {
        TextAnswer::Tokens(tokens) => {
            let kind = HeaderValue::from_static("application/json");
            let list = TokenList::new(tokens, pieces);
            Ok(kept::streamed(list.json(), share, kind))
        }
        other => Err(mistaken(&other)),
    }
}

pub async fn detokenize(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = body::read(&api, &caller, request).await?;
    let (model, tokens) = parse(received.bytes, tokens::detokenize).await?;
    let failed = |failure: Failure| match failure {
        Failure::Chat(_) => ApiError::from(failure).param("tokens"),
        _ => failure.into(),
    };
    match api
        .backends
        .text(caller.id(), &model, TextTask::Detokenize { tokens })
        .await
        .map_err(failed)?
    {
        TextAnswer::Bytes(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let (content, prompt) = (&*text, &*text);
            Ok(json(render(&Content { content, prompt })))
        }
        other => Err(mistaken(&other)),
    }
}

pub async fn tokenizer_info() -> Response {
    json(render(&tokens::INFO))
}
