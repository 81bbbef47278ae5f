//! `POST /v1/completions`: a text is gone on with, without turns.

pub mod request;
mod response;
mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{next, now, parse, streamed};
use crate::api::openai::chat::request::Delivery;
use crate::api::openai::chat::response::{FINGERPRINT, Head};
use crate::api::{Api, body, id, json, relaxed, render};
use crate::backend::{Answer, Failure};
use crate::chat::ChatEvent;
use request::CompletionCall;
use response::{Choice, Completion, Logprobs, OBJECT};
use stream::Pieces;

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let body::Received { bytes, share } = body::read(&api, &caller, request).await?;
    let CompletionCall {
        model,
        mut request,
        delivery,
        echo,
    } = parse(bytes, request::parse).await?;
    let logprobs = request.logprobs.is_some();
    let echo = request.prompt.clone().filter(|_| echo);
    let failed = |failure| ApiError::failure(failure, request::field);
    request.whole = delivery == Delivery::Complete;
    let mut answer = api
        .backends
        .chat(caller.id(), &model, request)
        .await
        .map_err(failed)?;
    let first = next(&mut answer).await.map_err(failed)?;
    let relaxed = answer.relaxed.clone();
    let head = Head {
        id: id::random("cmpl-"),
        created: now(),
        model: answer.model(),
        system_fingerprint: FINGERPRINT,
    };
    let text = echo.unwrap_or_default();
    if let Delivery::Stream { usage } = delivery {
        // One that is answered whole is kept to the end: it may be answered anew.
        drop(share);
        let pieces = Pieces {
            head,
            echo: Some(text),
            usage,
            logprobs,
            offset: 0,
            buffer: vec![],
        };
        return Ok(relaxed::with_header(
            streamed(answer, first, pieces),
            &relaxed,
        ));
    }
    let response = collected(answer, first, &head, text, logprobs).await;
    response
        .map(|response| relaxed::with_header(response, &relaxed))
        .map_err(failed)
}

/// Waits for the end and answers in one piece, which begins with `text`.
async fn collected(
    mut answer: Answer,
    first: ChatEvent,
    head: &Head,
    mut text: String,
    logprobs: bool,
) -> Result<Response, Failure> {
    let (mut tokens, mut event, echo) = (vec![], first, text.len());
    loop {
        match event {
            ChatEvent::Text {
                text: piece,
                logprobs,
            } => {
                text.push_str(&piece);
                tokens.extend(logprobs);
            }
            ChatEvent::Restarted => {
                text.truncate(echo);
                tokens.clear();
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
                let completion = Completion {
                    head,
                    object: OBJECT,
                    choices: &choices,
                    usage,
                    timings: Some((&done).into()),
                };
                return Ok(json(render(&completion)));
            }
            // A text has no thoughts and no calls.
            _ => {}
        }
        event = next(&mut answer).await?;
    }
}
