//! `DELETE /v1/models/{id}`, `POST /models/prune` and `POST /models/import`, for those whom the policy allows.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::time::timeout;
use url::form_urlencoded;

use super::admin;
use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::parse::json::body as parse;
use crate::api::{Api, body, json, render};
use crate::backend::{
    Failure, Import, Imported, LISTED, LocalBackend, ModelInfo, Removed, Unused, UnusedKind,
};

/// How long the next bytes of a file may be in coming, and the disk in taking them.
const PIECE_TIME: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct RemovedOut {
    id: String,
    object: &'static str,
    deleted: bool,
    /// gemmad's own: the paths, and the bytes that were freed.
    files: Vec<String>,
    freed: u64,
}

/// Takes an installed model away, with what belongs to it alone.
pub async fn remove(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    admin::may_manage(&api, &caller)?;
    let Ok(Path(id)) = id else {
        return Err(wrong("the model's name is not UTF-8"));
    };
    let removed = take_away(api.backends.local(), &id).await?;
    Ok(json(removed_json(removed)))
}

/// Removes a model, and waits until it is no longer among those that are installed: whoever hears
/// that it is gone finds it so.
pub async fn take_away(local: &dyn LocalBackend, id: &str) -> Result<Removed, Failure> {
    let before = local.status().models;
    let removed = local.remove(id).await?;
    // Another file may have its name from then on.
    let Some(model) = before.iter().find(|model| model.id == removed.id) else {
        return Ok(removed);
    };
    let is_it = |one: &ModelInfo| (&one.id, one.created) == (&model.id, model.created);
    let mut models = local.changes();
    let is_gone = models.wait_for(|status| !status.models.iter().any(is_it));
    // A disk that does not answer keeps nobody from hearing that the file is gone.
    let _ = timeout(LISTED, is_gone).await;
    Ok(removed)
}

/// What both doors say of a model that was taken away.
pub fn removed_json(removed: Removed) -> String {
    render(&RemovedOut {
        id: removed.id,
        object: "model",
        deleted: true,
        files: removed.files,
        freed: removed.bytes,
    })
}

#[derive(Serialize)]
struct PrunedOut {
    object: &'static str,
    /// Whether it was only looked for.
    dry_run: bool,
    /// Bytes of all of it.
    freed: u64,
    data: Vec<UnusedOut>,
}

#[derive(Serialize)]
struct UnusedOut {
    /// `packed_weights` or `download`
    kind: &'static str,
    name: String,
    bytes: u64,
}

/// Takes away what serves no installed model, or with `{"dry_run": true}` says what that would be.
pub async fn prune(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    admin::may_manage(&api, &caller)?;
    let received = body::read(&api, &caller, request).await?;
    let mut object = parse(&received.bytes)?;
    let dry_run = object.switch("dry_run", false)?;
    object.finish()?;
    let found = api.backends.local().prune(!dry_run).await?;
    Ok(json(pruned_json(dry_run, found)))
}

/// What both doors say of what serves no installed model.
pub fn pruned_json(dry_run: bool, found: Vec<Unused>) -> String {
    let out = |unused: Unused| UnusedOut {
        kind: match unused.kind {
            UnusedKind::PackedWeights => "packed_weights",
            UnusedKind::Download => "download",
        },
        name: unused.name,
        bytes: unused.bytes,
    };
    render(&PrunedOut {
        object: "list",
        dry_run,
        freed: found.iter().map(|unused| unused.bytes).sum(),
        data: found.into_iter().map(out).collect(),
    })
}

#[derive(Serialize)]
struct ImportedOut {
    id: String,
    file: String,
    role: &'static str,
    bytes: u64,
    sha256: Option<String>,
}

/// Takes in the file that is the body, as `name`, in `folder` of the model directory if there is one.
pub async fn import(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    request: Request,
) -> Result<Response, ApiError> {
    admin::may_manage(&api, &caller)?;
    let (mut name, mut folder) = (None, None);
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            "name" => name = Some(value.into_owned()),
            "folder" => folder = Some(value.into_owned()),
            _ => return Err(wrong("the parameters are `name` and `folder`")),
        }
    }
    let name = name.ok_or_else(|| wrong("`name` is missing: what the file is to be called"))?;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let length: u64 = length.ok_or_else(|| {
        ApiError::invalid(
            StatusCode::LENGTH_REQUIRED,
            "length_required",
            "the body's length must be told (Content-Length)",
        )
    })?;
    let import = api
        .backends
        .local()
        .import(folder.as_deref(), &name, length)
        .await?;
    let imported = take(import, request.into_body()).await?;
    Ok(json(imported_json(imported)))
}

/// What both doors say of a file that was taken in.
pub fn imported_json(imported: Imported) -> String {
    render(&ImportedOut {
        id: imported.id,
        file: imported.file,
        role: imported.role,
        bytes: imported.bytes,
        sha256: imported.sha256,
    })
}

/// Hands the body on, as fast as the disk takes it.
async fn take(import: Import, mut body: Body) -> Result<Imported, ApiError> {
    let Import { pieces, outcome } = import;
    loop {
        let frame = timeout(PIECE_TIME, body.frame()).await;
        let frame = frame.map_err(|_| late())?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| wrong("the body broke off or is framed wrongly"))?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let sent = timeout(PIECE_TIME, pieces.send(data.to_vec())).await;
        if sent.map_err(|_| late())?.is_err() {
            // It is not wanted any more; why, the outcome says.
            break;
        }
    }
    drop(pieces);
    let outcome = outcome.await.unwrap_or(Err(Failure::ShuttingDown));
    Ok(outcome?)
}

fn late() -> ApiError {
    ApiError::invalid(
        StatusCode::REQUEST_TIMEOUT,
        "body_timeout",
        format!(
            "no bytes came, or could be written, for {} s",
            PIECE_TIME.as_secs()
        ),
    )
}

pub(super) fn wrong(message: &str) -> ApiError {
    ApiError::invalid(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}
