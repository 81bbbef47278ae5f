//! What a chat is before the model is asked.

use axum::extract::Request;

use super::{fields, request};
use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::error::ApiError;
use crate::api::generation::parse;
use crate::api::{Api, body, conversation, documents};
use crate::attachments::ReadFile;
use crate::chat::ChatRequest;

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
