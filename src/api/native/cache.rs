//! `GET /cache` and `POST /cache/clear`: the packed weights that are kept on the disk.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::native::admin;
use crate::api::{Api, json, render};
use crate::backend::{CacheReport, CachedFile};

pub async fn list(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let report = api.backends.local().cache().await?;
    let (bytes, files) = files(&report);
    let directory = report
        .directory
        .map(|directory| directory.to_string_lossy().into_owned());
    let limit = directory.is_some().then_some(report.limit);
    Ok(json(render(&CacheOut {
        directory,
        limit,
        bytes,
        files,
    })))
}

/// Answers with what was taken away. A body is not looked at.
pub async fn clear(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    admin::allowed(&api, &caller)?;
    let (freed, files) = files(&api.backends.local().clear_cache().await?);
    Ok(json(render(&Cleared { freed, files })))
}

/// All files, and their bytes together.
fn files(report: &CacheReport) -> (u64, Vec<FileOut>) {
    let used = |file: &CachedFile| {
        file.used
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    };
    let out = |file: &CachedFile| FileOut {
        name: file.name.clone(),
        bytes: file.bytes,
        used: used(file),
        in_use: file.in_use,
    };
    (
        report.files.iter().map(|file| file.bytes).sum(),
        report.files.iter().map(out).collect(),
    )
}

#[derive(Serialize)]
struct CacheOut {
    /// Null when nothing is kept.
    directory: Option<String>,
    /// Bytes that the files may have together.
    limit: Option<u64>,
    /// Bytes that they have.
    bytes: u64,
    files: Vec<FileOut>,
}

#[derive(Serialize)]
struct Cleared {
    /// Bytes of the files. Those of a file in use are free once the model is unloaded.
    freed: u64,
    files: Vec<FileOut>,
}

#[derive(Serialize)]
struct FileOut {
    name: String,
    bytes: u64,
    /// When a worker was last given it: seconds since 1970.
    used: u64,
    /// Whether the worker has it now.
    in_use: bool,
}
