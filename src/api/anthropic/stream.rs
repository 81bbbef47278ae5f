//! A streamed answer, as Anthropic's events.
//!
//! ```text
//!   Started ─▶ message_start     a part ─▶ content_block_start, …delta…, content_block_stop
//!                                a thought has a signature_delta at its end
//!   Done ─▶ message_delta (why, usage), message_stop             failure ─▶ error
//! ```

use axum::body::Bytes;

use crate::api::anthropic::error::AnthropicError;
use crate::api::anthropic::request::Show;
use crate::api::anthropic::response::{self, BlockOut, DeltaOut, Edits, End, Event, MessageOut};
use crate::api::generation::{Encoder, take, write_event};
use crate::api::openai::chat::response::FinishDetails;
use crate::api::parts::{Change, Kind, Part, Parts};
use crate::backend::Failure;
use crate::chat::{ChatEvent, Usage};

pub struct Stream {
    id: String,
    model: String,
    /// The request's stop sequences.
    stops: Vec<String>,
    show: Show,
    parts: Parts,
    buffer: Vec<u8>,
}

impl Stream {
    pub fn new(id: String, model: String, stops: Vec<String>, show: Show) -> Self {
        Self {
            id,
            model,
            stops,
            show,
            parts: Parts::default(),
            buffer: vec![],
        }
    }
}

impl AnthropicError {
    /// As the last event of a stream.
    pub fn event(&self) -> Bytes {
        let mut buffer = vec![];
        write(&mut buffer, &Event::Error { error: self.out() });
        buffer.into()
    }
}

fn write(buffer: &mut Vec<u8>, event: &Event) {
    write_event(buffer, Some(event.name()), event);
}

fn change(buffer: &mut Vec<u8>, index: usize, part: &Part, change: Change, show: Show) {
    let event = match change {
        Change::Opened => Event::ContentBlockStart {
            index,
            content_block: BlockOut::begun(part),
        },
        // It carries log-probabilities, which have no place here.
        Change::Grew { delta: "", .. } => return,
        Change::Grew { .. } if part.kind == Kind::Thought && show.omits_thoughts => return,
        Change::Grew { delta, .. } => {
            let delta = match part.kind {
                Kind::Thought => DeltaOut::Thinking { thinking: delta },
                Kind::Text => DeltaOut::Text { text: delta },
                Kind::Call { .. } => DeltaOut::InputJson {
                    partial_json: delta,
                },
            };
            Event::ContentBlockDelta { index, delta }
        }
        Change::Closed => {
            if part.kind == Kind::Thought {
                let signature = response::signature(part, show);
                let delta = DeltaOut::Signature { signature };
                write(buffer, &Event::ContentBlockDelta { index, delta });
            }
            Event::ContentBlockStop { index }
        }
    };
    write(buffer, &event);
}

impl Encoder for Stream {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        let Self {
            id,
            model,
            stops,
            show,
            parts,
            buffer,
        } = self;
        let show = *show;
        if let ChatEvent::Started {
            prompt_tokens,
            cached_tokens,
        } = event
        {
            let usage = Usage {
                prompt_tokens,
                cached_tokens,
                ..Usage::default()
            };
            let message = MessageOut {
                id,
                r#type: "message",
                role: "assistant",
                model,
                content: vec![],
                stop_reason: None,
                stop_sequence: None,
                finish_details: None,
                usage: usage.into(),
                container: (),
                context_management: None,
                timings: None,
            };
            write(buffer, &Event::MessageStart { message });
        }
        parts.event(&event, |index, part, what| {
            change(buffer, index, part, what, show)
        });
        if let ChatEvent::Done(done) = &event {
            let (stop_reason, stop_sequence) = response::stop(done, stops);
            write(
                buffer,
                &Event::MessageDelta {
                    delta: End {
                        stop_reason,
                        stop_sequence,
                        finish_details: FinishDetails::of(done.finish),
                    },
                    usage: done.usage.into(),
                    context_management: Edits::of(show),
                },
            );
            write(buffer, &Event::MessageStop {});
        }
        take(buffer)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        AnthropicError::from(failure).event()
    }
}
