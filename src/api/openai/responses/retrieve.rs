//! Responses that are kept: `GET` and `DELETE /v1/responses/{id}`, `…/cancel` and `…/input_items`.
//! Another user's response is not there.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use url::form_urlencoded;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::openai::deleted;
use crate::api::openai::responses::items::Item;
use crate::api::openai::responses::stored::StoredResponse;
use crate::api::parse::json::quote;
use crate::api::{Api, kept, render};
use crate::chat::PrincipalId;

/// Items of a page, as OpenAI has it.
const PAGE: usize = 20;
const LARGEST_PAGE: usize = 100;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

type Id = Result<Path<String>, PathRejection>;

pub fn find(api: &Api, owner: PrincipalId, id: &str) -> Result<StoredResponse, ApiError> {
    api.responses.get(owner, id).ok_or_else(|| missing(id))
}

/// The response that another one goes on from.
pub fn previous(api: &Api, owner: PrincipalId, id: &str) -> Result<StoredResponse, ApiError> {
    let stored = api.responses.get(owner, id);
    stored.ok_or_else(|| {
        // OpenAI's status and code, by which clients know to send the conversation again.
        let mut error = missing(id).param("previous_response_id");
        error.status = StatusCode::BAD_REQUEST;
        error.code = Some("previous_response_not_found");
        error
    })
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
        return events(&stored, &uri);
    }
    if query(&uri, "starting_after").is_some() {
        return Err(wrong("starting_after", "needs `stream` to be true"));
    }
    kept::sent(&api, &caller, vec![stored.json], JSON)
}

/// The events of a response, as they come; those up to `starting_after` are left out.
fn events(stored: &StoredResponse, uri: &Uri) -> Result<Response, ApiError> {
    let Some(events) = stored.events() else {
        let reason = "cannot be true here: only a response that was made with `background` and `stream` has events";
        return Err(wrong("stream", reason));
    };
    let after = query(uri, "starting_after").map(|number| number.parse::<u32>());
    match after {
        None => Ok(events.streamed(0)),
        Some(Ok(number)) => Ok(events.streamed(number as usize + 1)),
        Some(Err(_)) => Err(wrong(
            "starting_after",
            "must be the sequence number of an event",
        )),
    }
}

fn wrong(name: &str, reason: &str) -> ApiError {
    let message = format!("`{name}` {reason}");
    ApiError::invalid(StatusCode::BAD_REQUEST, "invalid_value", message).param(name)
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
    let stored = find(&api, caller.id(), &id)?;
    kept::sent(&api, &caller, vec![stored.json], JSON)
}

/// What was sent for a response, newest first unless `order` is `asc`.
pub async fn input_items(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    uri: Uri,
) -> Result<Response, ApiError> {
    let stored = find(&api, caller.id(), &named(id)?)?;
    let limit = match query(&uri, "limit").map(|limit| limit.parse::<usize>()) {
        None => PAGE,
        Some(Ok(limit)) if (1..=LARGEST_PAGE).contains(&limit) => limit,
        Some(_) => {
            let reason = format!("must be a whole number between 1 and {LARGEST_PAGE}");
            return Err(wrong("limit", &reason));
        }
    };
    let mut items: Vec<_> = stored.input.iter().collect();
    match query(&uri, "order").as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(_) => return Err(wrong("order", "must be `asc` or `desc`")),
    }
    if let Some(after) = query(&uri, "after") {
        match items.iter().position(|item| item.id == after) {
            Some(place) => drop(items.drain(..=place)),
            None => return Err(wrong("after", "is no item of this response")),
        }
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    kept::sent(&api, &caller, page(&items, has_more), JSON)
}

/// A page of items, in pieces: the items themselves are not copied.
fn page(items: &[&Item], has_more: bool) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 * items.len() + 2);
    pieces.push(Bytes::from_static(br#"{"object":"list","data":["#));
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(item.json.clone());
    }
    let (first, last) = (items.first(), items.last());
    let id = |item: Option<&&Item>| render(&item.map(|item| &item.id));
    let end = format!(
        r#"],"first_id":{},"last_id":{},"has_more":{has_more}}}"#,
        id(first),
        id(last)
    );
    pieces.push(end.into());
    pieces
}

/// The first value of the query that has this name.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_json_made_of_shared_items() {
        let item = |id: &str| Item {
            id: id.into(),
            json: format!(r#"{{"id":"{id}"}}"#).into(),
        };
        let (a, b) = (item("a"), item("b"));
        for items in [&[&a, &b][..], &[&a], &[]] {
            let pieces = page(items, true);
            let shared = |item: &&&Item| pieces.iter().any(|p| p.as_ptr() == item.json.as_ptr());
            assert_eq!(items.iter().filter(shared).count(), items.len());
            let page: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
            let ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
            assert_eq!(
                page,
                serde_json::json!({"object": "list", "first_id": ids.first(), "last_id": ids.last(),
                    "data": ids.iter().map(|id| serde_json::json!({"id": id})).collect::<Vec<_>>(), "has_more": true})
            );
        }
    }
}
