//! `GET /cache`: the packed weights that are kept on the disk, and the prompts. `POST /cache/clear` removes
//! the first, `POST /cache/prompts/clear` the others.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::native::admin;
use crate::api::{Api, json, render};
use crate::backend::{CacheReport, CachedFile, KeptFor, KeptPrompt};

/// Everybody sees their own prompts, administrators all.
pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    let report = api.backends.local().cache().await?;
    let sees_all = api.admission.may_administer(&caller.principal);
    let owner = Some(caller.id()).filter(|_| !sees_all);
    let prompts = Prompts::of(&api.backends.local().prompts(owner));
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
        prompts,
    })))
}

/// Forgets the caller's prompts, with `?all=true` everybody's; answers with what was forgotten.
pub async fn clear_prompts(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let all = match uri.query() {
        None | Some("" | "all=false") => false,
        Some("all=true") => true,
        Some(_) => {
            return Err(ApiError::invalid(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "the only parameter is `all`, which is true or false",
            ));
        }
    };
    if all {
        admin::allowed(&api, &caller)?;
    }
    let owner = Some(caller.id()).filter(|_| !all);
    let cleared = api.backends.local().clear_prompts(owner);
    Ok(json(render(&Prompts::of(&cleared))))
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
    let out = |file: &CachedFile| FileOut {
        name: file.name.clone(),
        bytes: file.bytes,
        used: seconds(file.used),
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
    prompts: Prompts,
}

#[derive(Serialize)]
struct Prompts {
    /// Bytes of them all on the disk.
    bytes: u64,
    entries: Vec<PromptOut>,
}

#[derive(Serialize)]
struct PromptOut {
    model: String,
    /// Who asked: a user's number; `everyone` for a system prompt of the configuration's.
    owner: String,
    tokens: u32,
    bytes: u64,
    /// When it was kept, or gone on from, last: seconds since 1970.
    used: u64,
    /// How long it is kept at most: `in_memory` (until the daemon stops), `24h`, or `configured`.
    retention: &'static str,
}

impl Prompts {
    fn of(prompts: &[KeptPrompt]) -> Self {
        let entries = prompts.iter().map(|prompt| PromptOut {
            model: prompt.model.clone(),
            owner: prompt
                .owner
                .map_or("everyone".to_owned(), |owner| owner.to_string()),
            tokens: prompt.tokens,
            bytes: prompt.bytes,
            used: seconds(prompt.used),
            retention: match prompt.kept_for {
                KeptFor::DaemonsLife => "in_memory",
                KeptFor::Day => "24h",
                KeptFor::Configuration => "configured",
            },
        });
        Self {
            bytes: prompts.iter().map(|prompt| prompt.bytes).sum(),
            entries: entries.collect(),
        }
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
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
