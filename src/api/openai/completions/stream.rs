//! A streamed text, as server-sent events.

use axum::body::Bytes;

use super::request;
use super::response::{Choice, Completion, Logprobs, OBJECT};
use crate::api::error::ApiError;
use crate::api::generation::{Encoder, take, write_event};
use crate::api::openai::chat::response::Head;
use crate::backend::Failure;
use crate::chat::{ChatEvent, TokenLogprob};

/// A streamed text.
pub struct Pieces {
    pub head: Head,
    /// Sent before the answer.
    pub echo: Option<String>,
    /// Whether a last chunk tells the usage.
    pub usage: bool,
    pub logprobs: bool,
    /// Characters of the answer whose tokens were reported.
    pub offset: usize,
    pub buffer: Vec<u8>,
}

impl Pieces {
    fn text(&mut self, text: &str, tokens: &[TokenLogprob]) {
        let logprobs =
            (self.logprobs && !tokens.is_empty()).then(|| Logprobs::new(tokens, &mut self.offset));
        self.write(&[Choice {
            index: 0,
            text,
            logprobs,
            finish_reason: None,
        }]);
    }

    fn write(&mut self, choices: &[Choice]) {
        let usage = self.usage.then_some(None);
        let chunk = Completion {
            head: &self.head,
            object: OBJECT,
            choices,
            usage,
            timings: None,
        };
        write_event(&mut self.buffer, None, &chunk);
    }
}

impl Encoder for Pieces {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        match event {
            ChatEvent::Started { .. } => {
                let echo = self.echo.take().unwrap_or_default();
                self.text(&echo, &[]);
            }
            ChatEvent::Text { text, logprobs } => self.text(&text, &logprobs),
            ChatEvent::Done(done) => {
                let choices = [Choice {
                    index: 0,
                    text: "",
                    logprobs: None,
                    finish_reason: Some(done.finish.into()),
                }];
                let usage = self.usage.then_some(None);
                let timings = Some((&done).into());
                let last = Completion {
                    head: &self.head,
                    object: OBJECT,
                    choices: &choices,
                    usage,
                    timings,
                };
                write_event(&mut self.buffer, None, &last);
                if self.usage {
                    let usage = Some(Some(done.usage.into()));
                    let chunk = Completion {
                        head: &self.head,
                        object: OBJECT,
                        choices: &[],
                        usage,
                        timings: None,
                    };
                    write_event(&mut self.buffer, None, &chunk);
                }
                self.buffer.extend_from_slice(b"data: [DONE]\n\n");
            }
            _ => {}
        }
        take(&mut self.buffer)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        ApiError::failure(failure, request::field).event()
    }
}
