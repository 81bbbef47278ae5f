//! `POST /models/verify`, for those whom the policy allows.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::admin;
use super::keep::wrong;
use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{events, write_event};
use crate::api::parse::json::body as parse;
use crate::api::{Api, body, json, render};
use crate::backend::{Hashed, Verdict, VerifiedFile};
use crate::chat::Modalities;

/// Events of one stream are no closer than this.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct VerifiedOut {
    model: String,
    /// Whether no file differs from what it should be.
    ok: bool,
    files: Vec<FileOut>,
}

#[derive(Serialize)]
struct FileOut {
    role: &'static str,
    file: String,
    bytes: u64,
    sha256: String,
    /// `matches`, `differs` or `unknown`
    verdict: &'static str,
    /// What it was held against.
    against: Option<String>,
    expected: Option<String>,
}

impl From<VerifiedFile> for FileOut {
    fn from(file: VerifiedFile) -> Self {
        let (verdict, against, expected) = match file.verdict {
            Verdict::Matches { what } => ("matches", Some(what), None),
            Verdict::Differs { expected, what } => ("differs", Some(what), Some(expected)),
            Verdict::Unknown => ("unknown", None, None),
        };
        Self {
            role: file.role,
            file: file.file,
            bytes: file.bytes,
            sha256: file.sha256,
            verdict,
            against,
            expected,
        }
    }
}

#[derive(Serialize)]
struct ProgressOut<'a> {
    object: &'static str,
    model: &'a str,
    /// The file that is read.
    file: &'a str,
    /// Bytes of all files that were read, and that there are.
    read: u64,
    bytes: u64,
}

/// Hashes the files of `{"model": …}` again; answers when they are read, or with events that tell how far that is. Stops
/// when its client leaves.
pub async fn verify(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    admin::may_manage(&api, &caller)?;
    let received = body::read(&api, &caller, request).await?;
    let mut object = parse(&received.bytes)?;
    let model = object.string("model")?;
    let is_streamed = object.switch("stream", false)?;
    object.finish()?;
    drop(received);
    let model = model.ok_or_else(|| wrong("`model` is missing: the id of an installed model"))?;
    if is_streamed {
        // What there is not has a status, and no event.
        api.backends
            .local()
            .find(&model, Modalities::default())
            .await?;
        return Ok(streamed(api, model));
    }
    let (told, _watched) = watch::channel(Hashed::default());
    let (model, files) = api.backends.local().verify(&model, told).await?;
    Ok(json(verified_json(model, files)))
}

/// Events: how far it is, and last what came of it, or an error.
fn streamed(api: Arc<Api>, model: String) -> Response {
    let (told, watched) = watch::channel(Hashed::default());
    let verified = async move {
        let verified = api.backends.local().verify(&model, told).await;
        verified.map_or_else(
            |failure| ApiError::from(failure).event(),
            |(model, files)| event(&out(model, files)),
        )
    };
    let begin = Some((Box::pin(verified), watched));
    let pieces = stream::unfold(begin, |state| async move {
        let (mut verified, mut watched) = state?;
        let changed = async {
            sleep(PAUSE).await;
            // What has no sender any more is about to end.
            if watched.changed().await.is_err() {
                pending::<()>().await;
            }
        };
        let (piece, next) = tokio::select! {
            biased;
            last = &mut verified => (last, None),
            () = changed => {
                let piece = progress(&watched.borrow_and_update());
                (piece, Some((verified, watched)))
            }
        };
        Some((Ok::<_, Infallible>(piece), next))
    });
    events(Body::from_stream(pieces))
}

fn progress(hashed: &Hashed) -> Bytes {
    event(&ProgressOut {
        object: "verify.progress",
        model: &hashed.model,
        file: &hashed.file,
        read: hashed.read,
        bytes: hashed.bytes,
    })
}

fn event(data: &impl Serialize) -> Bytes {
    let mut buffer = vec![];
    write_event(&mut buffer, None, data);
    buffer.into()
}

/// What both doors say of a model whose files were hashed again.
pub fn verified_json(model: String, files: Vec<VerifiedFile>) -> String {
    render(&out(model, files))
}

fn out(model: String, files: Vec<VerifiedFile>) -> VerifiedOut {
    VerifiedOut {
        model,
        ok: !files
            .iter()
            .any(|file| matches!(file.verdict, Verdict::Differs { .. })),
        files: files.into_iter().map(FileOut::from).collect(),
    }
}
