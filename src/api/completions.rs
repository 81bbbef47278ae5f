//! `POST /v1/completions`: a text is gone on with, without turns.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;

use super::answer::{Render, next, now, parse, streamed, take, write_event};
use super::error::ApiError;
use super::wire::completions::{self, Choice, Completion, CompletionCall, Logprobs};
use super::wire::request::Delivery;
use super::wire::response::{FINGERPRINT, Head};
use super::{Api, body, id, json, render};
use crate::access::Caller;
use crate::chat::{ChatEvent, TokenLogprob};
use crate::engine::Failure;

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let body::Received { bytes, share } = body::read(&api, &caller, request).await?;
    let CompletionCall {
        model,
        request,
        delivery,
        echo,
    } = parse(bytes, completions::parse).await?;
    let logprobs = request.logprobs.is_some();
    let echo = request.prompt.clone().filter(|_| echo);
    let failed = |failure: Failure| {
        ApiError::from(failure).relocated(|field| field.replace("messages", "prompt"))
    };
    let mut answer = api
        .engine
        .chat(caller.id(), &model, request)
        .await
        .map_err(failed)?;
    let first = next(&mut answer).await.map_err(failed)?;
    drop(share);
    let head = Head {
        id: id::random("cmpl-"),
        created: now(),
        model: answer.model(),
        system_fingerprint: FINGERPRINT,
    };
    let text = echo.unwrap_or_default();
    if let Delivery::Stream { usage } = delivery {
        return Ok(streamed(
            answer,
            first,
            Pieces {
                head,
                echo: Some(text),
                usage,
                logprobs,
                offset: 0,
                buffer: vec![],
            },
        ));
    }
    let (mut text, mut tokens, mut event) = (text, vec![], first);
    loop {
        match event {
            ChatEvent::Text {
                text: piece,
                logprobs,
            } => {
                text.push_str(&piece);
                tokens.extend(logprobs);
            }
            ChatEvent::Done(done) => {
                let logprobs = logprobs.then(|| Logprobs::new(&tokens, &mut 0));
                let choices = [Choice {
                    index: 0,
                    text: &text,
                    logprobs,
                    finish_reason: Some(done.finish.into()),
                }];
                let usage = Some(Some(done.usage.into()));
                let whole = Completion {
                    head: &head,
                    object: completions::OBJECT,
                    choices: &choices,
                    usage,
                    timings: Some((&done).into()),
                };
                return Ok(json(render(&whole)));
            }
            // A text has no thoughts and no calls.
            _ => {}
        }
        event = next(&mut answer).await?;
    }
}

/// A streamed text.
struct Pieces {
    head: Head,
    /// Sent before the answer.
    echo: Option<String>,
    /// Whether a last chunk tells the usage.
    usage: bool,
    logprobs: bool,
    /// Characters of the answer whose tokens were reported.
    offset: usize,
    buffer: Vec<u8>,
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
            object: completions::OBJECT,
            choices,
            usage,
            timings: None,
        };
        write_event(&mut self.buffer, None, &chunk);
    }
}

impl Render for Pieces {
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
                    object: completions::OBJECT,
                    choices: &choices,
                    usage,
                    timings,
                };
                write_event(&mut self.buffer, None, &last);
                if self.usage {
                    let usage = Some(Some(done.usage.into()));
                    let chunk = Completion {
                        head: &self.head,
                        object: completions::OBJECT,
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
        ApiError::from(failure).event()
    }
}
