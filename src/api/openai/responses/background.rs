//! A response that is made while nobody waits for it.
//!
//! ```text
//!   queued ─▶ in_progress ─▶ completed | incomplete | failed
//!      └──────────┴── cancel, or the response is deleted ─▶ cancelled
//! ```

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::access::quota::Share;
use crate::api::error::ApiError;
use crate::api::openai::responses::draft::Draft;
use crate::api::openai::responses::recorder::Recorder;
use crate::api::openai::responses::response::{ErrorOut, Status};
use crate::api::openai::responses::stored::Job;
use crate::api::openai::responses::{Ready, collected};
use crate::backend::{Answer, Backends, Failure};
use crate::chat::Done;

/// Keeps the response as it will stand from now on, and makes it. `share` is the request's memory.
pub fn spawn(
    backends: Backends,
    mut ready: Ready,
    answer: Answer,
    mut draft: Draft,
    recorder: Recorder,
    share: Share,
) {
    let job = Arc::new(Job {
        cancel: Notify::new(),
        ended: watch::channel(false).0,
    });
    recorder.begin(&draft, &draft.standing(Status::Queued), &job);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            () = job.cancel.notified() => None,
            outcome = make(&backends, &mut ready, answer, &mut draft, &recorder, &job, share) => Some(outcome),
        };
        // If the response was deleted, nothing is updated.
        let _ = match outcome {
            Some(Ok(done)) => recorder.update(&draft, &draft.finished(&done), &job),
            Some(Err(failure)) => {
                let error = ready.refusal(failure);
                let shown = ErrorOut {
                    code: code(&error),
                    message: &error.message,
                };
                recorder.update(&draft, &draft.broken(Status::Failed, Some(shown)), &job)
            }
            None => recorder.update(&draft, &draft.broken(Status::Cancelled, None), &job),
        };
        job.ended.send_replace(true);
    });
}

/// What programs react to.
fn code(error: &ApiError) -> &'static str {
    error.code.unwrap_or("server_error")
}

async fn make(
    backends: &Backends,
    ready: &mut Ready,
    answer: Answer,
    draft: &mut Draft,
    recorder: &Recorder,
    job: &Arc<Job>,
    share: Share,
) -> Result<Done, Failure> {
    let (answer, event) = ready.begin(backends, answer).await?;
    draft.model = answer.model();
    recorder.update(draft, &draft.standing(Status::InProgress), job);
    let done = collected(answer, event, draft).await;
    // To here the request was kept: it might have been answered anew.
    drop(share);
    done
}
