//! Files and media in a request: found if they were sent before, fetched if they are elsewhere, read
//! and decoded.

use std::fmt::Write;

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use crate::access::quota::Share;
use crate::attachments::{ReadFile, Refused, Seen};
use crate::backend::Failure;
use crate::chat::{ChatError, ChatRequest, Part, PrincipalId, Source};

/// What was read of each file, on the answer to the request, be it an error: a JSON array, non-ASCII
/// characters escaped.
const FILES: HeaderName = HeaderName::from_static("x-gemmad-files");

/// Makes a request that can be asked of `model`: [`read`], and its media decoded. Whatever comes of
/// it, `files` are those that were read, and last one that could not be.
pub async fn resolve(
    api: &Api,
    owner: PrincipalId,
    model: &str,
    request: &mut ChatRequest,
    share: &mut Share,
    files: &mut Vec<ReadFile>,
) -> Result<(), Refused> {
    read(api, owner, model, request, share, files).await?;
    api.attachments.decode(request, model, share).await
}

/// Puts what stands in the request's files in their place, before it is asked. What it grows by
/// counts as its body does. Its media are to be decoded after this.
pub async fn read(
    api: &Api,
    owner: PrincipalId,
    model: &str,
    request: &mut ChatRequest,
    share: &mut Share,
    files: &mut Vec<ReadFile>,
) -> Result<(), Refused> {
    let before = request.bytes();
    find(api, owner, request).map_err(Refused::Failure)?;
    share
        .grow(request.bytes().saturating_sub(before) as u64)
        .map_err(Refused::Full)?;
    let most = api.limits.body_bytes;
    api.attachments
        .read(request, model, most, share, files)
        .await
}

/// Takes files that were sent before from where they are kept.
fn find(api: &Api, owner: PrincipalId, request: &mut ChatRequest) -> Result<(), Failure> {
    for (i, j, part) in request.parts_mut() {
        let Part::Document(document) = part else {
            continue;
        };
        let Source::Kept(id) = &document.source else {
            continue;
        };
        let Some(stored) = api.files.get(owner, id) else {
            let reason = format!(
                "names `{}`, but there is no such file; files are kept for a time",
                super::parse::json::quote(id)
            );
            return Err(Failure::Chat(ChatError::Document {
                message: i as u32,
                part: j as u32,
                reason,
            }));
        };
        if document.name.is_empty() {
            document.name.clone_from(&stored.name);
        }
        document.source = Source::File(stored.bytes.clone());
    }
    Ok(())
}

/// The answer, or why there is none, with what was read if the request had files.
pub fn said(answered: Result<Response, impl IntoResponse>, files: &[ReadFile]) -> Response {
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    if !files.is_empty()
        && let Ok(value) = HeaderValue::try_from(list(files))
    {
        response.headers_mut().insert(FILES, value);
    }
    response
}

/// How much of a file was read.
pub fn described(file: &ReadFile) -> Value {
    let extent = &file.extent;
    let mut said = json!({
        "name": file.name.chars().take(200).collect::<String>(),
        "pages": extent.pages,
        "read": extent.read,
        "shown": file.shown(),
        "unseen": file.unseen(),
        "whole": file.is_complete(),
    });
    if let Some(encoding) = &extent.encoding {
        said["encoding"] = json!(encoding);
    }
    said
}

/// What the model gets of each page that was read.
pub fn pages(file: &ReadFile) -> Vec<Value> {
    let pages = (1..).zip(&file.pages);
    let pages = pages.map(|(number, page): (u32, _)| {
        let picture = match page.seen {
            Seen::Told => "none",
            Seen::Shown(_) => "shown",
            Seen::Named | Seen::Unseen(..) => "skipped",
        };
        let mut said = json!({"page": number, "text_bytes": page.bytes, "picture": picture});
        if let Some(why) = page.seen.why() {
            said["why"] = json!(format!("the page {why}"));
        }
        if let Some(because) = page.seen.because() {
            said["skipped_because"] = json!(because);
        }
        said
    });
    pages.collect()
}

fn list(files: &[ReadFile]) -> String {
    let list: Vec<_> = files.iter().map(described).collect();
    let mut ascii = String::new();
    for unit in Value::from(list).to_string().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() && !byte.is_ascii_control() => ascii.push(byte.into()),
            // Writing into a string does not fail.
            _ => drop(write!(ascii, "\\u{unit:04x}")),
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::error::ApiError;
    use axum::body::Body;
    use axum::http::StatusCode;

    #[test]
    fn what_was_read_is_said() {
        let answered = || Ok::<_, ApiError>(Response::new(Body::empty()));
        let mut file = ReadFile::unread("größe 😀.pdf");
        (file.extent.pages, file.extent.read) = (9, 4);
        assert!(said(answered(), &[]).headers().is_empty());
        let response = said(answered(), &[file.clone()]);
        let header = response.headers()[FILES].to_str().unwrap();
        let told: Value = serde_json::from_str(header).unwrap();
        assert_eq!(
            told,
            serde_json::json!([{"name": "größe 😀.pdf", "pages": 9, "read": 4, "shown": 0, "unseen": 0, "whole": false}])
        );
        let error = ApiError::invalid(StatusCode::BAD_REQUEST, "code", "no");
        let refused = said(Err(error), &[file]);
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(refused.headers()[FILES], response.headers()[FILES]);
    }
}
