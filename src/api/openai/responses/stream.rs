//! A streamed response, as OpenAI's typed events.
//!
//! ```text
//!   Started ─▶ response.created, response.in_progress
//!   a part  ─▶ output_item.added [, content_part.added], …delta…, …done [, content_part.done], output_item.done
//!   Done    ─▶ response.completed | response.incomplete        failure ─▶ response.failed
//! ```

use axum::body::Bytes;

use crate::api::error::ApiError;
use crate::api::generation::{Encoder, take, write_event};
use crate::api::openai::chat::response::TokenOut;
use crate::api::openai::responses::draft::Draft;
use crate::api::openai::responses::recorder::Recorder;
use crate::api::openai::responses::response::{self, At, Body, ErrorOut, Event, Status};
use crate::api::parts::{Change, Kind, Part};
use crate::backend::Failure;
use crate::chat::{ChatEvent, TokenLogprob};

pub struct Stream {
    draft: Draft,
    /// Where the response goes when it is complete, if it is to be kept.
    recorder: Option<Recorder>,
    out: Out,
    logprobs: bool,
}

/// The events' way out.
#[derive(Default)]
struct Out {
    /// Of the next event.
    number: u64,
    buffer: Vec<u8>,
}

impl Out {
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
        self.number += 1;
    }

    /// What became of the part at this place.
    fn change(&mut self, output_index: usize, part: &Part, change: Change, with_logprobs: bool) {
        let (delta_kind, _) = kinds(part);
        match change {
            Change::Opened => {
                self.event(
                    "response.output_item.added",
                    Body::Item {
                        output_index,
                        item: response::item(part, Status::InProgress),
                    },
                );
                if let Some(content) = response::content(part) {
                    self.event(
                        "response.content_part.added",
                        Body::Content {
                            at: at(part, output_index),
                            part: content,
                        },
                    );
                }
            }
            Change::Grew { delta, logprobs } => self.event(
                delta_kind,
                Body::Delta {
                    at: at(part, output_index),
                    delta,
                    logprobs: list(part, logprobs, with_logprobs),
                },
            ),
            Change::Closed => self.closed(output_index, part, with_logprobs),
        }
    }

    /// The end of the part at this place.
    fn closed(&mut self, output_index: usize, part: &Part, with_logprobs: bool) {
        let (_, done) = kinds(part);
        match &part.kind {
            Kind::Call { name } => self.event(
                done,
                Body::Arguments {
                    at: at(part, output_index),
                    name,
                    arguments: &part.text,
                },
            ),
            _ => self.event(
                done,
                Body::Text {
                    at: at(part, output_index),
                    text: &part.text,
                    logprobs: list(part, &part.logprobs, with_logprobs),
                },
            ),
        }
        if let Some(content) = response::content(part) {
            self.event(
                "response.content_part.done",
                Body::Content {
                    at: at(part, output_index),
                    part: content,
                },
            );
        }
        self.event(
            "response.output_item.done",
            Body::Item {
                output_index,
                item: response::ended(part),
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

fn at(part: &Part, output_index: usize) -> At {
    At {
        item_id: response::item_id(part),
        output_index,
        content_index: (!matches!(part.kind, Kind::Call { .. })).then_some(0),
    }
}

/// Only texts have log-probabilities, and clients expect the list even if it is empty.
fn list<'a>(part: &Part, tokens: &'a [TokenLogprob], wanted: bool) -> Option<Vec<TokenOut<'a>>> {
    (part.kind == Kind::Text).then(|| response::logprobs(if wanted { tokens } else { &[] }))
}

impl Stream {
    pub fn new(draft: Draft, recorder: Option<Recorder>, logprobs: bool) -> Self {
        Self {
            draft,
            recorder,
            out: Out::default(),
            logprobs,
        }
    }
}

impl Encoder for Stream {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        let Self {
            draft,
            out,
            logprobs,
            ..
        } = self;
        if matches!(event, ChatEvent::Started { .. }) {
            out.event(
                "response.created",
                Body::Response {
                    response: draft.standing(Status::InProgress),
                },
            );
            out.event(
                "response.in_progress",
                Body::Response {
                    response: draft.standing(Status::InProgress),
                },
            );
        }
        draft.parts.event(&event, |place, part, change| {
            out.change(place, part, change, *logprobs)
        });
        if let ChatEvent::Done(done) = &event {
            let response = draft.finished(done);
            let kind = if response.status == Status::Completed {
                "response.completed"
            } else {
                "response.incomplete"
            };
            out.event(kind, Body::Response { response });
            if let Some(recorder) = self.recorder.take() {
                recorder.store(draft, &draft.finished(done));
            }
        }
        take(&mut out.buffer)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        let error = ApiError::from(failure);
        let error = ErrorOut {
            code: error.code.unwrap_or("server_error"),
            message: &error.message,
        };
        self.out.event(
            "response.failed",
            Body::Response {
                response: self.draft.broken(Status::Failed, Some(error)),
            },
        );
        take(&mut self.out.buffer)
    }
}
