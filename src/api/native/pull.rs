//! `POST /v1/models/pull`, `GET /v1/models/pulls` and `POST /v1/models/pulls/{id}/cancel`, for those whom the policy allows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::admin;
use crate::access::{Caller, Principal};
use crate::api::error::ApiError;
use crate::api::generation::{events, write_event};
use crate::api::parse::json::{Json, Object, body as parse};
use crate::api::{Api, Invalid, body, json, render};
use crate::backend::{
    LocalBackend, PullAsk, PullPlan, PullRights, PullState, PullStatus, PullWatch, PulledFile,
    Puller, Status, listed,
};
use crate::chat::PrincipalId;

/// Events of one stream are no closer than this.
const PAUSE: Duration = Duration::from_millis(200);
/// What [`joined`] takes.
pub const WITH: &str = "must be a list of \"vision\", \"audio\" and \"drafter\"";

/// What is asked for, and how it is answered.
pub struct Asked {
    ask: PullAsk,
    stream: bool,
    /// Only what would be fetched is told.
    plan: bool,
}

/// Fetches a model: answers with events, or when it is there.
pub async fn pull(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = body::read(&api, &caller, request).await?;
    let asked = read(parse(&received.bytes)?)?;
    drop(received);
    let by = puller(&api, &caller, &asked.ask).await?;
    let local = api.backends.local();
    if asked.plan {
        let plan = local.plan_pull(&asked.ask, &by).await?;
        return Ok(json(plan_json(plan)));
    }
    let mut watched = local.pull(&asked.ask, &by).await?;
    let models = local.changes();
    if asked.stream {
        let event = |status: &PullStatus| {
            let mut buffer = vec![];
            write_event(&mut buffer, None, &StatusOut::from(status));
            buffer
        };
        return Ok(events(Body::from_stream(told(watched, models, event))));
    }
    // Its sender lives as long as it is told of.
    let _ = watched.wait_for(|status| status.state.is_over()).await;
    let last = watched.borrow().clone();
    listed(&last, models).await;
    Ok(json(render(&StatusOut::from(&last))))
}

/// Refuses everyone but administrators, and those whom a catalog lets fetch from all places that are meant.
pub async fn puller(api: &Api, caller: &Caller, ask: &PullAsk) -> Result<Puller, ApiError> {
    let refusal = match admin::may_manage(api, caller) {
        Ok(()) => return Ok(Puller::Administrator),
        Err(refusal) => refusal,
    };
    let puller = by_catalogs(api.backends.local(), &caller.principal, ask).await;
    puller.ok_or(refusal)
}

/// Somebody whom catalogs let fetch from all places that are meant.
pub async fn by_catalogs(
    local: &dyn LocalBackend,
    who: &Principal,
    ask: &PullAsk,
) -> Option<Puller> {
    // What there is is no secret, but why something is not is not told to those who may not have it.
    let rights = local.pull_rights(ask).await.ok()?;
    lets_fetch(who, &rights).then(|| Puller::User {
        who: who.id(),
        rights,
    })
}

/// Whether these rights, of all places that are meant, let somebody fetch.
pub fn lets_fetch(who: &Principal, rights: &[PullRights]) -> bool {
    let may = |rights: &PullRights| who.is_among(&rights.users, &rights.groups);
    !rights.is_empty() && rights.iter().all(may)
}

/// Those downloads that somebody began and nobody else waits for.
pub fn own(pulls: Vec<PullStatus>, who: PrincipalId) -> Vec<PullStatus> {
    let account = Some(who.account());
    pulls
        .into_iter()
        .filter(|pull| pull.owner == account)
        .collect()
}

/// What is fetched, and what was since the daemon started: administrators see all of it, others what they began.
pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    let all = api.backends.local().pulls();
    let shown = match admin::may_manage(&api, &caller) {
        Ok(()) => all,
        Err(refusal) => match own(all, caller.id()) {
            none if none.is_empty() => return Err(refusal),
            own => own,
        },
    };
    Ok(json(list_json(&shown)))
}

/// The list as both doors give it.
pub fn list_json(pulls: &[PullStatus]) -> String {
    render(&List {
        object: "list",
        data: pulls.iter().map(StatusOut::from).collect(),
    })
}

/// The plan as both doors give it.
pub fn plan_json(plan: PullPlan) -> String {
    render(&PlanOut::from(plan))
}

/// Stops a download, or forgets what is kept of one that failed, and answers when that is done: for administrators, and for
/// who began it. A body is not looked at.
pub async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid(
            StatusCode::NOT_FOUND,
            "pull_not_found",
            "the download's id is not UTF-8",
        ));
    };
    let local = api.backends.local();
    let account = match admin::may_manage(&api, &caller) {
        Ok(()) => None,
        Err(_) if has(local, caller.id(), &id) => Some(caller.id().account()),
        Err(refusal) => return Err(refusal),
    };
    let stopped = local.cancel_pull(&id, account).await?;
    Ok(json(render(&StatusOut::from(&stopped))))
}

/// Whether a download is one that somebody began and nobody else waits for.
pub fn has(local: &dyn LocalBackend, who: PrincipalId, id: &str) -> bool {
    own(local.pulls(), who).iter().any(|pull| pull.id == id)
}

/// Takes a request apart.
///
/// # Errors
/// What is wrong with it.
pub fn read(mut object: Object<'_>) -> Result<Asked, Invalid> {
    let model = object.need("model")?.string()?;
    let with = object.take("with").map(|with| words(&with)).transpose()?;
    let quantization = object.string("quant")?;
    let stream = object.switch("stream", false)?;
    let plan = object.switch("plan", false)?;
    let force = object.switch("force", false)?;
    object.finish()?;
    Ok(Asked {
        ask: PullAsk {
            model,
            with,
            quantization,
            force,
        },
        stream,
        plan,
    })
}

/// A list of texts, as one text; an empty list is none of them.
fn words(with: &Json<'_>) -> Result<String, Invalid> {
    let words: Result<Vec<_>, _> = with.array()?.iter().map(Json::string).collect();
    joined(&words?).map_or_else(|| with.wrong(WITH), Ok)
}

/// What goes with a model, as one text. `None` where a word is none that could mean something.
pub fn joined(words: &[String]) -> Option<String> {
    if words.iter().any(|word| word.contains(',')) {
        return None;
    }
    Some(match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(","),
    })
}

/// The `event` of how it stands now, one for each change, but not too many, and one for the end.
pub fn told(
    watched: PullWatch,
    models: watch::Receiver<Status>,
    event: impl FnMut(&PullStatus) -> Vec<u8> + Send,
) -> impl stream::Stream<Item = Result<Vec<u8>, Infallible>> + Send {
    let begin = Some((watched, models, event, true));
    stream::unfold(begin, |state| async move {
        let (mut watched, models, mut event, first) = state?;
        if !first {
            sleep(PAUSE).await;
            // The job is gone with the daemon.
            watched.changed().await.ok()?;
        }
        let status = watched.borrow_and_update().clone();
        listed(&status, models.clone()).await;
        let piece = event(&status);
        let next = match status.state.is_over() {
            true => None,
            false => Some((watched, models, event, false)),
        };
        Some((Ok(piece), next))
    })
}

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<StatusOut>,
}

#[derive(Serialize)]
struct StatusOut {
    id: String,
    object: &'static str,
    model: String,
    /// `downloading`, `waiting`, `verifying`, `done`, `failed` or `cancelled`
    state: &'static str,
    /// Why it waits or has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Seconds until the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Whether asking again goes on with what came.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumable: Option<bool>,
    /// Bytes of all files; null where a server does not say.
    bytes: Option<u64>,
    /// Bytes that are here, and hashed.
    received: u64,
    /// Bytes a second.
    rate: u64,
    files: Vec<FileOut>,
}

#[derive(Serialize)]
struct FileOut {
    role: &'static str,
    name: String,
    source: String,
    bytes: Option<u64>,
    sha256: Option<String>,
    received: u64,
    done: bool,
}

impl From<&PulledFile> for FileOut {
    fn from(file: &PulledFile) -> Self {
        Self {
            role: file.role,
            name: file.name.clone(),
            source: file.source.clone(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
            received: file.received,
            done: file.done,
        }
    }
}

impl From<&PullStatus> for StatusOut {
    fn from(status: &PullStatus) -> Self {
        let (mut reason, mut retry_after, mut kept) = (None, None, None);
        match &status.state {
            PullState::Waiting { cause, seconds } => {
                (reason, retry_after) = (Some(cause.clone()), Some(*seconds));
            }
            PullState::Failed { cause, resumable } => {
                (reason, kept) = (Some(cause.clone()), Some(*resumable));
            }
            _ => {}
        }
        Self {
            id: status.id.clone(),
            object: "pull",
            model: status.model.clone(),
            state: status.state.name(),
            reason,
            retry_after,
            resumable: kept,
            bytes: status.bytes(),
            received: status.received(),
            rate: status.rate,
            files: status.files.iter().map(FileOut::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct PlanOut {
    object: &'static str,
    model: String,
    directory: String,
    files: Vec<FileOut>,
    /// Bytes that have to come still; null where a server does not say.
    download: Option<u64>,
    /// Bytes that the disk has free.
    disk: u64,
    left_out: Vec<&'static str>,
    /// Null where no catalog knows.
    memory: Option<MemoryOut>,
}

#[derive(Serialize)]
struct MemoryOut {
    fits: bool,
    needs: u64,
    budget: u64,
    automatic: Option<String>,
}

impl From<PullPlan> for PlanOut {
    fn from(plan: PullPlan) -> Self {
        Self {
            object: "pull.plan",
            model: plan.model,
            directory: plan.directory,
            files: plan.files.iter().map(FileOut::from).collect(),
            download: plan.download,
            disk: plan.disk,
            left_out: plan.left_out,
            memory: plan.memory.map(|memory| MemoryOut {
                fits: memory.fits,
                needs: memory.needs,
                budget: memory.budget,
                automatic: memory.automatic,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let asked = read(parse(br#"{"model": "e2b", "with": ["vision", "drafter"], "quant": "Q4_0", "stream": true, "force": true}"#).unwrap()).unwrap();
        assert_eq!(asked.ask.with.as_deref(), Some("vision,drafter"));
        assert!(asked.stream && asked.ask.force && !asked.plan);
        let none = read(parse(br#"{"model": "e2b", "with": []}"#).unwrap()).unwrap();
        assert_eq!(none.ask.with.as_deref(), Some("none"));
        for bad in [
            "{}",
            r#"{"model": 1}"#,
            r#"{"model": "x", "with": "vision"}"#,
            r#"{"model": "x", "with": ["a,b"]}"#,
            r#"{"model": "x", "insecure": true}"#,
        ] {
            assert!(read(parse(bad.as_bytes()).unwrap()).is_err(), "{bad}");
        }
    }
}
