//! A streamed transcription, as server-sent events.

use axum::body::Bytes;

use super::request;
use super::response::Event;
use crate::api::error::ApiError;
use crate::api::generation::{Encoder, take, write_event};
use crate::backend::Failure;
use crate::chat::ChatEvent;

/// A streamed transcription.
#[derive(Default)]
pub struct Pieces {
    /// All of it so far: the last event repeats it.
    text: String,
    buffer: Vec<u8>,
}

impl Encoder for Pieces {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        match event {
            ChatEvent::Text { text, .. } => {
                self.text.push_str(&text);
                write_event(&mut self.buffer, None, &Event::Delta { delta: &text });
            }
            ChatEvent::Done(done) => {
                write_event(
                    &mut self.buffer,
                    None,
                    &Event::Done {
                        text: self.text.trim(),
                        usage: done.usage.into(),
                    },
                );
            }
            _ => {}
        }
        take(&mut self.buffer)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        ApiError::failure(failure, request::field).event()
    }
}
