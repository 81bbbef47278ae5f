//! `/v1/files`: files that are sent once and used by their ids. Another user's file is not there.

mod upload;

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::now;
use crate::api::openai::deleted;
use crate::api::parse::json::quote;
use crate::api::store::Storable;
use crate::api::{Api, body, documents, id, json, kept, render};
use crate::attachments::ReadFile;
use crate::chat::{BUDGETS, Detail, Document, Part, Source};
use upload::Upload;

/// How closely pages are looked at of which it is only told that they are shown.
const SMALLEST: Detail = Detail::Tokens(BUDGETS[0]);
/// What stands for a page that is shown.
const SHOWN: &[u8] = b"[shown: this page as a picture]\n";

/// A file that is kept.
#[derive(Clone, Debug)]
pub struct StoredFile {
    id: String,
    pub name: String,
    pub bytes: Arc<[u8]>,
    purpose: String,
    /// Unix seconds.
    created: u64,
    expires: u64,
}

impl Storable for StoredFile {
    fn id(&self) -> &str {
        &self.id
    }

    fn bytes(&self) -> u64 {
        (self.bytes.len() + self.name.len() + size_of::<Self>()) as u64
    }
}

#[derive(Serialize)]
struct FileOut<'a> {
    id: &'a str,
    object: &'static str,
    bytes: usize,
    created_at: u64,
    expires_at: u64,
    filename: &'a str,
    purpose: &'a str,
    status: &'static str,
}

impl<'a> From<&'a StoredFile> for FileOut<'a> {
    fn from(file: &'a StoredFile) -> Self {
        let StoredFile {
            id,
            name,
            bytes,
            purpose,
            created,
            expires,
        } = file;
        Self {
            id,
            object: "file",
            bytes: bytes.len(),
            created_at: *created,
            expires_at: *expires,
            filename: name,
            purpose,
            status: "processed",
        }
    }
}

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let boundary = body::boundary(request.headers())?;
    let body::Received {
        bytes,
        share: _share,
        ..
    } = body::read_form(&api, &caller, request).await?;
    let Upload {
        name,
        purpose,
        bytes,
    } = upload::parse(&boundary, Bytes::from_owner(bytes)).await?;
    let created = now();
    let expires = created + api.limits.files_time.as_secs();
    let file = StoredFile {
        id: id::random("file-"),
        name,
        bytes: bytes.into(),
        purpose,
        created,
        expires,
    };
    let shown = render(&FileOut::from(&file));
    let limit = api.limits.files_bytes;
    if file.bytes() > limit {
        let message = format!(
            "the file is larger than the {limit} bytes that are kept of a user's files (`files-size` in gemmad.toml)"
        );
        return Err(
            ApiError::invalid(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", message)
                .param("file"),
        );
    }
    api.files.put(caller.id(), file);
    Ok(json(shown))
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<FileOut<'a>>,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
    has_more: bool,
}

/// Newest first.
pub async fn list(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>) -> Response {
    let files = api.files.list(caller.id());
    let data: Vec<FileOut> = files.iter().rev().map(FileOut::from).collect();
    let (first_id, last_id) = (
        data.first().map(|file| file.id),
        data.last().map(|file| file.id),
    );
    json(render(&List {
        object: "list",
        first_id,
        last_id,
        has_more: false,
        data,
    }))
}

type Id = Result<Path<String>, PathRejection>;

fn find(api: &Api, caller: &Caller, id: Id) -> Result<StoredFile, ApiError> {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    api.files.get(caller.id(), &id).ok_or_else(|| missing(&id))
}

fn missing(id: &str) -> ApiError {
    let message = format!(
        "there is no file `{}`; files are kept for a time (`files-time` in gemmad.toml)",
        quote(id)
    );
    ApiError::invalid(StatusCode::NOT_FOUND, "file_not_found", message)
}

pub async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Response, ApiError> {
    Ok(json(render(&FileOut::from(&find(&api, &caller, id)?))))
}

pub async fn content(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Response, ApiError> {
    let file = find(&api, &caller, id)?;
    let kind = HeaderValue::from_static("application/octet-stream");
    kept::sent(&api, &caller, vec![Bytes::from_owner(file.bytes)], kind)
}

/// What is read of it: its text, and where its pages are shown.
pub async fn text(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Response {
    let mut files = vec![];
    let answered = text_of(&api, &caller, id, &mut files).await;
    documents::said(answered, &files)
}

async fn text_of(
    api: &Api,
    caller: &Caller,
    id: Id,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    let StoredFile { name, bytes, .. } = find(api, caller, id)?;
    let mut share = api.admission.share_of_bodies(&caller.principal);
    let file = Document {
        name,
        source: Source::File(bytes),
        detail: SMALLEST,
    };
    let read = api.attachments.look_into(file, &mut share, files).await;
    let parts = read.map_err(|refused| ApiError::attachments(refused, |_| "id".to_owned()))?;
    let pieces = parts.into_iter().map(|part| match part {
        Part::Text(text) => Bytes::from(text),
        _ => Bytes::from_static(SHOWN),
    });
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(kept::streamed(pieces, share, kind))
}

pub async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Response, ApiError> {
    let file = find(&api, &caller, id)?;
    match api.files.delete(caller.id(), &file.id) {
        true => Ok(deleted(&file.id, "file")),
        false => Err(missing(&file.id)),
    }
}
