//! Responses that are kept: `GET` and `DELETE /v1/responses/{id}`, `…/cancel` and `…/input_items`.
//! Another user's response is not there.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::openai::deleted;
use crate::api::openai::responses::stored::StoredResponse;
use crate::api::parse::json::quote;
use crate::api::{Api, json, render};
use crate::chat::PrincipalId;

/// Items of a page, as OpenAI has it.
const PAGE: usize = 20;
const LARGEST_PAGE: usize = 100;

type Id = Result<Path<String>, PathRejection>;

pub fn find(api: &Api, owner: PrincipalId, id: &str) -> Result<StoredResponse, ApiError> {
    api.responses.get(owner, id).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> ApiError {
    let message = format!(
        "there is no response `{}`; responses are kept if asked to by `store`, and for a time",
        quote(id)
    );
    ApiError::invalid(StatusCode::NOT_FOUND, "response_not_found", message)
}

fn named(id: Id) -> Result<String, ApiError> {
    id.map(|Path(id)| id).map_err(|_| missing(""))
}

pub async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    uri: Uri,
) -> Result<Response, ApiError> {
    let stored = find(&api, caller.id(), &named(id)?)?;
    if query(&uri, "stream").is_some_and(|stream| stream != "false") {
        let message = "`stream` cannot be true here: a kept response comes as a whole";
        return Err(
            ApiError::invalid(StatusCode::BAD_REQUEST, "invalid_value", message).param("stream"),
        );
    }
    Ok(json(stored.json))
}

pub async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Response, ApiError> {
    let id = named(id)?;
    match api.responses.delete(caller.id(), &id) {
        true => Ok(deleted(&id, "response.deleted")),
        false => Err(missing(&id)),
    }
}

/// Answers with the response when it has come to its end, which may be another than this one.
pub async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Response, ApiError> {
    let id = named(id)?;
    let Some(job) = find(&api, caller.id(), &id)?.job else {
        let message = "only a response that is made in the background can be cancelled; hang up to end any other";
        return Err(ApiError::invalid(
            StatusCode::BAD_REQUEST,
            "not_in_background",
            message,
        ));
    };
    job.cancel.notify_one();
    // Its sender is in the job that is held here.
    let _ = job.ended.subscribe().wait_for(|ended| *ended).await;
    Ok(json(find(&api, caller.id(), &id)?.json))
}

#[derive(Serialize)]
struct Page<'a> {
    object: &'static str,
    data: Vec<&'a RawValue>,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
    has_more: bool,
}

/// What was sent for a response, newest first unless `order` is `asc`.
pub async fn input_items(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    uri: Uri,
) -> Result<Response, ApiError> {
    let stored = find(&api, caller.id(), &named(id)?)?;
    let wrong = |name: &str, reason: String| {
        Err(ApiError::invalid(
            StatusCode::BAD_REQUEST,
            "invalid_value",
            format!("`{name}` {reason}"),
        )
        .param(name))
    };
    let limit = match query(&uri, "limit").map(|limit| limit.parse::<usize>()) {
        None => PAGE,
        Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => {
            return wrong(
                "limit",
                format!("must be a whole number between 1 and {LARGEST_PAGE}"),
            );
        }
    };
    let mut items: Vec<_> = stored.input.iter().collect();
    match query(&uri, "order").as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(_) => return wrong("order", "must be `asc` or `desc`".into()),
    }
    if let Some(after) = query(&uri, "after") {
        match items.iter().position(|item| item.id == after) {
            Some(place) => drop(items.drain(..=place)),
            None => return wrong("after", "is no item of this response".into()),
        }
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let page = Page {
        object: "list",
        // They were made here, and are JSON.
        data: items
            .iter()
            .filter_map(|item| serde_json::from_str(&item.json).ok())
            .collect(),
        first_id: items.first().map(|item| item.id.as_str()),
        last_id: items.last().map(|item| item.id.as_str()),
        has_more,
    };
    Ok(json(render(&page)))
}

/// The first value of the query that has this name.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}
