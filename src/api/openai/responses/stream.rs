//! A streamed response, as OpenAI's typed events.
//!
//! ```text
//!   Started ─▶ response.created, unless whoever tells how far it is tells of it; response.in_progress
//!   a part  ─▶ output_item.added [, content_part.added], …delta…, …done [, content_part.done], output_item.done
//!   Done    ─▶ response.completed | response.incomplete        failure ─▶ response.failed
//! ```
//!
//! A thought comes twice if a summary was asked for: as what it is, and as its own summary.

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::api::error::ApiError;
use crate::api::generation::{Encoder, take, write_event};
use crate::api::openai::chat::response::TokenOut;
use crate::api::openai::responses::draft::Draft;
use crate::api::openai::responses::recorder::Recorder;
use crate::api::openai::responses::response::{self, At, Body, ErrorOut, Event, Look, Status};
use crate::api::parts::{Change, Kind, Part};
use crate::api::progress::Wish;
use crate::api::telling::{self, Teller};
use crate::backend::Failure;
use crate::chat::{ChatEvent, TokenLogprob, Waiting};

pub struct Stream {
    draft: Draft,
    /// Where the response goes when it is complete, if it is to be kept.
    recorder: Option<Recorder>,
    events: Events,
}

/// The events of one response, in the making.
#[derive(Default)]
pub struct Events {
    /// Of the next event.
    number: u64,
    buffer: Vec<u8>,
    /// Where each event in the buffer ends.
    ends: Vec<usize>,
    logprobs: bool,
}

/// By which a response is told of first.
const CREATED: &str = "response.created";

/// Tells how far the request is, if that is wished: behind the event that tells of the response,
/// which packages expect to be the first and which the teller sends in this case.
pub fn teller(
    wish: Wish,
    waiting: watch::Receiver<Option<Waiting>>,
    draft: &Draft,
) -> Option<Teller> {
    let teller = telling::by_events(wish, waiting)?;
    let mut events = Events::default();
    let response = draft.standing(Status::Queued);
    events.event(CREATED, Body::Response { response });
    Some(teller.behind(events.take()))
}

/// The `error` event, by which a stream says that there will be no response. `error` in it is what
/// OpenAI's SDKs raise.
pub fn error_event(error: &ApiError) -> Bytes {
    #[derive(Serialize)]
    struct Out<'a> {
        r#type: &'static str,
        sequence_number: u64,
        code: Option<&'a str>,
        message: &'a str,
        param: Option<&'a str>,
        error: ErrorOut<'a>,
    }
    let (code, message) = (error.code, &*error.message);
    let mut buffer = vec![];
    write_event(
        &mut buffer,
        Some("error"),
        &Out {
            r#type: "error",
            sequence_number: 0,
            code,
            message,
            param: error.param.as_deref(),
            error: ErrorOut {
                code: code.unwrap_or("server_error"),
                message,
            },
        },
    );
    buffer.into()
}

impl Events {
    /// `logprobs`: texts come with their log-probabilities. `created`: [`teller`] tells of the
    /// response as created.
    pub fn new(logprobs: bool, created: bool) -> Self {
        Self {
            logprobs,
            number: u64::from(created),
            ..Self::default()
        }
    }

    /// Everything that was written, as one piece.
    fn take(&mut self) -> Bytes {
        self.ends.clear();
        take(&mut self.buffer)
    }

    /// Everything that was written, each event by itself.
    pub fn each(&mut self) -> Vec<Bytes> {
        let mut at = 0;
        let pieces = self.ends.drain(..).map(|end| {
            let piece = Bytes::copy_from_slice(&self.buffer[at..end]);
            at = end;
            piece
        });
        let pieces = pieces.collect();
        self.buffer.clear();
        pieces
    }

    fn event(&mut self, kind: &'static str, body: Body) {
        write_event(
            &mut self.buffer,
            Some(kind),
            &Event {
                r#type: kind,
                sequence_number: self.number,
                body,
            },
        );
        self.ends.push(self.buffer.len());
        self.number += 1;
    }

    /// The response waits for its turn.
    pub fn queued(&mut self, draft: &Draft) {
        for kind in [CREATED, "response.queued"] {
            let response = draft.standing(Status::Queued);
            self.event(kind, Body::Response { response });
        }
    }

    /// What an event of the answer tells. The response is told of as created unless it was before.
    pub fn answer(&mut self, draft: &mut Draft, event: &ChatEvent) {
        if matches!(event, ChatEvent::Started { .. }) {
            let created = (self.number == 0).then_some(CREATED);
            for kind in created.into_iter().chain(["response.in_progress"]) {
                let response = draft.standing(Status::InProgress);
                self.event(kind, Body::Response { response });
            }
        }
        let look = &draft.shown.look;
        draft.parts.event(event, |place, part, change| {
            self.change(place, part, change, look)
        });
        if let ChatEvent::Done(done) = event {
            let response = draft.finished(done);
            let kind = if response.status == Status::Completed {
                "response.completed"
            } else {
                "response.incomplete"
            };
            self.event(kind, Body::Response { response });
        }
    }

    /// The response broke off.
    pub fn failed(&mut self, draft: &Draft, status: Status, error: ErrorOut) {
        let response = draft.broken(status, Some(error));
        self.event("response.failed", Body::Response { response });
    }

    /// What became of the part at this place.
    fn change(&mut self, output_index: usize, part: &Part, change: Change, look: &Look) {
        match change {
            Change::Opened => self.opened(output_index, part, look),
            Change::Grew { delta, logprobs } => {
                if look.is_custom(part) {
                    // Its text is known when the arguments around it are complete.
                    return;
                }
                let (kind, _) = kinds(part);
                let logprobs = list(part, logprobs, self.logprobs);
                let at = at(part, output_index, look);
                self.event(
                    kind,
                    Body::Delta {
                        at,
                        delta,
                        logprobs,
                    },
                );
                if response::summary(part, look).is_some() {
                    let at = summary_at(part, output_index, look);
                    self.event(
                        "response.reasoning_summary_text.delta",
                        Body::Delta {
                            at,
                            delta,
                            logprobs: None,
                        },
                    );
                }
            }
            Change::Closed => self.closed(output_index, part, look),
        }
    }

    fn opened(&mut self, output_index: usize, part: &Part, look: &Look) {
        let item = response::item(part, look, Status::InProgress);
        self.event(
            "response.output_item.added",
            Body::Item { output_index, item },
        );
        if let Some(part_out) = response::summary(part, look) {
            let at = summary_at(part, output_index, look);
            self.event(
                "response.reasoning_summary_part.added",
                Body::Content { at, part: part_out },
            );
        }
        if let Some(content) = response::content(part) {
            let at = at(part, output_index, look);
            self.event(
                "response.content_part.added",
                Body::Content { at, part: content },
            );
        }
    }

    /// The end of the part at this place.
    fn closed(&mut self, output_index: usize, part: &Part, look: &Look) {
        let (_, done) = kinds(part);
        let at = || at(part, output_index, look);
        match &part.kind {
            Kind::Call { .. } if look.is_custom(part) => self.custom(at, part),
            Kind::Call { name } => {
                let name = look
                    .names
                    .of(name)
                    .map_or(name.as_str(), |named| &named.name);
                self.event(
                    done,
                    Body::Arguments {
                        at: at(),
                        name,
                        arguments: &part.text,
                    },
                );
            }
            _ => {
                let logprobs = list(part, &part.logprobs, self.logprobs);
                self.event(
                    done,
                    Body::Text {
                        at: at(),
                        text: &part.text,
                        logprobs,
                    },
                );
            }
        }
        if let Some(content) = response::content(part) {
            self.event(
                "response.content_part.done",
                Body::Content {
                    at: at(),
                    part: content,
                },
            );
        }
        self.summed_up(output_index, part, look);
        let item = response::ended(part, look);
        self.event(
            "response.output_item.done",
            Body::Item { output_index, item },
        );
    }

    /// The text that a tool is called with which takes one.
    fn custom(&mut self, at: impl Fn() -> At, part: &Part) {
        let input = response::input(part);
        self.event(
            "response.custom_tool_call_input.delta",
            Body::Delta {
                at: at(),
                delta: &input,
                logprobs: None,
            },
        );
        self.event(
            "response.custom_tool_call_input.done",
            Body::Input {
                at: at(),
                input: &input,
            },
        );
    }

    /// The end of a thought's summary, if it has one.
    fn summed_up(&mut self, output_index: usize, part: &Part, look: &Look) {
        let Some(summary) = response::summary(part, look) else {
            return;
        };
        self.event(
            "response.reasoning_summary_text.done",
            Body::Text {
                at: summary_at(part, output_index, look),
                text: &part.text,
                logprobs: None,
            },
        );
        self.event(
            "response.reasoning_summary_part.done",
            Body::Content {
                at: summary_at(part, output_index, look),
                part: summary,
            },
        );
    }
}

/// What the events of a part's growth and of its end are called.
fn kinds(part: &Part) -> (&'static str, &'static str) {
    match part.kind {
        Kind::Thought => (
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
        ),
        Kind::Text => ("response.output_text.delta", "response.output_text.done"),
        Kind::Call { .. } => (
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
        ),
    }
}

fn at(part: &Part, output_index: usize, look: &Look) -> At {
    At {
        item_id: response::item_id(part, look),
        output_index,
        content_index: (!matches!(part.kind, Kind::Call { .. })).then_some(0),
        summary_index: None,
    }
}

fn summary_at(part: &Part, output_index: usize, look: &Look) -> At {
    At {
        content_index: None,
        summary_index: Some(0),
        ..at(part, output_index, look)
    }
}

/// Only texts have log-probabilities, and clients expect the list even if it is empty.
fn list<'a>(part: &Part, tokens: &'a [TokenLogprob], wanted: bool) -> Option<Vec<TokenOut<'a>>> {
    (part.kind == Kind::Text).then(|| response::logprobs(if wanted { tokens } else { &[] }))
}

impl Stream {
    pub fn new(draft: Draft, recorder: Option<Recorder>, events: Events) -> Self {
        Self {
            draft,
            recorder,
            events,
        }
    }
}

impl Encoder for Stream {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        self.events.answer(&mut self.draft, &event);
        if let ChatEvent::Done(done) = &event
            && let Some(recorder) = self.recorder.take()
        {
            recorder.store(&self.draft, &self.draft.finished(done));
        }
        self.events.take()
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        let error = ApiError::from(failure);
        let error = ErrorOut {
            code: error.code.unwrap_or("server_error"),
            message: &error.message,
        };
        self.events.failed(&self.draft, Status::Failed, error);
        self.events.take()
    }
}
