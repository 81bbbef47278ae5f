//! `POST /models/load` and `POST /models/unload`, for those whom the policy allows.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::openai::models::Entry;
use crate::api::parse::json::body as parse;
use crate::api::{Api, body, json, render};

/// Loads `{"model": …}` (absent: the default) and answers with it when it is up.
pub async fn load(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    allowed(&api, &caller)?;
    let received = body::read(&api, &caller, request).await?;
    let mut object = parse(&received.bytes)?;
    let model = object.string("model")?.unwrap_or_else(|| "auto".into());
    object.finish()?;
    let loaded = api.backends.load(caller.id(), &model).await?;
    Ok(json(render(&Entry::new(
        &loaded,
        &api.backends.local().status(),
    ))))
}

/// Unloads what is loaded and answers when every byte is back. A body is not looked at.
pub async fn unload(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    allowed(&api, &caller)?;
    api.backends.local().unload().await?;
    Ok(json(r#"{"status":"unloaded"}"#.into()))
}

/// Refuses everyone else.
pub fn allowed(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    if api.admission.may_administer(&caller.principal) {
        Ok(())
    } else {
        Err(ApiError::forbidden(caller.id()))
    }
}

/// Refuses callers who may not bring, change or remove models, but for what catalogs allow them.
pub fn may_manage(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    if api.admission.may_manage_models(&caller.principal) {
        Ok(())
    } else {
        Err(ApiError::forbidden(caller.id()))
    }
}
