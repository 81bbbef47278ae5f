//! A response that is made while nobody waits for it.
//!
//! ```text
//!   queued ─▶ in_progress ─▶ completed | incomplete | failed
//!      └──────────┴── cancel, or the response is deleted ─▶ cancelled
//! ```

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::access::quota::Share;
use crate::api::generation::next;
use crate::api::openai::responses::Ready;
use crate::api::openai::responses::draft::Draft;
use crate::api::openai::responses::event_log::EventLog;
use crate::api::openai::responses::recorder::Recorder;
use crate::api::openai::responses::response::{ErrorOut, ResponseOut, Status};
use crate::api::openai::responses::stored::Job;
use crate::api::openai::responses::stream::Events;
use crate::backend::{Answer, Backends, Failure};
use crate::chat::{ChatEvent, Done};

/// Bytes of events after which the response is weighed anew.
const WEIGHED: usize = 64 << 10;

/// What makes one response.
pub struct Work {
    pub backends: Backends,
    pub ready: Ready,
    pub draft: Draft,
    pub recorder: Recorder,
    /// The request's memory.
    pub share: Share,
    /// Whether the events are kept; with log-probabilities, if those were asked for.
    pub stream: bool,
    pub logprobs: bool,
}

/// The events of the response, and where they are kept.
struct Told {
    events: Events,
    log: Arc<EventLog>,
    /// Bytes that the response was weighed with.
    weighed: usize,
}

impl Told {
    /// Puts what was written into the log.
    fn keep(&mut self, over: bool) {
        self.log.add(self.events.each(), over);
    }
}

/// Keeps the response as it will stand from now on, and makes it. Returns its events, if they are
/// kept.
pub fn spawn(mut work: Work, answer: Answer) -> Option<Arc<EventLog>> {
    let log = work.stream.then(Arc::<EventLog>::default);
    let job = Arc::new(Job {
        cancel: Notify::new(),
        ended: watch::channel(false).0,
        events: log.clone(),
    });
    let mut told = log.clone().map(|log| Told {
        events: Events::new(work.logprobs, false),
        log,
        weighed: 0,
    });
    if let Some(told) = &mut told {
        told.events.queued(&work.draft);
        told.keep(false);
    }
    let Work {
        draft, recorder, ..
    } = &work;
    recorder.begin(draft, &draft.standing(Status::Queued), &job);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            () = job.cancel.notified() => None,
            outcome = work.make(answer, &mut told, &job) => Some(outcome),
        };
        work.end(outcome, told, &job);
        job.ended.send_replace(true);
    });
    log
}

impl Work {
    async fn make(
        &mut self,
        answer: Answer,
        told: &mut Option<Told>,
        job: &Arc<Job>,
    ) -> Result<Done, Failure> {
        let (mut answer, mut event) = self.ready.begin(&self.backends, answer).await?;
        self.draft.model = answer.model();
        self.update(job);
        loop {
            match told {
                None => self.draft.parts.event(&event, |_, _, _| {}),
                Some(told) => {
                    told.events.answer(&mut self.draft, &event);
                    // The last one is told when the response is kept as it tells.
                    if !matches!(event, ChatEvent::Done(_)) {
                        told.keep(false);
                    }
                    if told.log.bytes() > told.weighed + WEIGHED {
                        told.weighed = told.log.bytes();
                        self.update(job);
                    }
                }
            }
            if let ChatEvent::Done(done) = event {
                self.draft.model = answer.model();
                return Ok(done);
            }
            event = next(&mut answer).await?;
        }
    }

    /// Says that it is being made. What is too large to be kept, or was deleted, is given up.
    fn update(&self, job: &Arc<Job>) {
        let standing = self.draft.standing(Status::InProgress);
        if !self.recorder.update(&self.draft, &standing, job) {
            job.cancel.notify_one();
        }
    }

    /// Keeps the response as it came to its end. If it was deleted, nothing is kept.
    fn end(self, outcome: Option<Result<Done, Failure>>, told: Option<Told>, job: &Arc<Job>) {
        let Self {
            ready,
            draft,
            recorder,
            share,
            ..
        } = self;
        // To here the request was kept: it might have been answered anew.
        drop(share);
        let kept = match outcome {
            Some(Ok(done)) => keep(&recorder, &draft, &draft.finished(&done), told, job),
            Some(Err(failure)) => {
                let error = ready.refusal(failure);
                let shown = || ErrorOut {
                    code: error.code.unwrap_or("server_error"),
                    message: &error.message,
                };
                let told = broke_off(told, &draft, Status::Failed, shown());
                let broken = draft.broken(Status::Failed, Some(shown()));
                keep(&recorder, &draft, &broken, told, job)
            }
            None => {
                let error = ErrorOut {
                    code: "cancelled",
                    message: "the response was cancelled",
                };
                let told = broke_off(told, &draft, Status::Cancelled, error);
                let broken = draft.broken(Status::Cancelled, None);
                keep(&recorder, &draft, &broken, told, job)
            }
        };
        if let (false, Some(log)) = (kept, &job.events) {
            log.forget();
        }
    }
}

/// Keeps the response as it is from now on, and tells its last events. `false` if it was deleted.
fn keep(
    recorder: &Recorder,
    draft: &Draft,
    response: &ResponseOut,
    told: Option<Told>,
    job: &Arc<Job>,
) -> bool {
    let kept = recorder.update(draft, response, job);
    match told {
        Some(mut told) if kept => {
            told.keep(true);
            // With all of its events it is larger.
            recorder.update(draft, response, job)
        }
        _ => kept,
    }
}

/// Has the response's last event say that it broke off.
fn broke_off(
    mut told: Option<Told>,
    draft: &Draft,
    status: Status,
    error: ErrorOut,
) -> Option<Told> {
    if let Some(told) = &mut told {
        told.events.failed(draft, status, error);
    }
    told
}
