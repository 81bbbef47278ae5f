//! `POST /v1/completions`: texts are gone on with, without turns.

pub mod request;
mod response;
mod stream;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::choices::{Choices, Total, streamed};
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, now, parse};
use crate::api::openai::chat::request::Delivery;
use crate::api::openai::chat::response::{FINGERPRINT, FinishDetails, Head};
use crate::api::{Api, body, id, json, render};
use crate::backend::Failure;
use crate::chat::{
    ChatEvent, ChatRequest, Done, PromptToken, RawPrompt, TextAnswer, TextTask, TokenLogprob,
};
use request::CompletionCall;
use response::{Choice, Completion, Logprobs, OBJECT};
use stream::Pieces;

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let body::Received {
        bytes,
        mut share,
        prefer,
    } = body::read(&api, &caller, request).await?;
    let mut call = parse(bytes, request::parse).await?;
    let failed = |failure| ApiError::failure(failure, request::field);
    call.request.whole = call.delivery == Delivery::Complete;
    let (logprobs, delivery) = (call.request.logprobs.is_some(), call.delivery);
    let echoes = echoes(&api, &caller, &call).await.map_err(failed)?;
    let requests = requests(&call, &mut share)?;
    let (model, per_prompt) = (call.model.clone(), call.choices as usize);
    drop(call);
    let mut answers = Choices::ask(&api.backends, caller.id(), &model, requests)
        .await
        .map_err(failed)?;
    let mut head = Head {
        id: id::random("cmpl-"),
        created: now(),
        model: answers.model(),
        system_fingerprint: FINGERPRINT,
    };
    let meanwhile = match delivery {
        Delivery::Complete => Meanwhile::of_whole(prefer),
        Delivery::Stream { progress, .. } => Meanwhile::Comments(
            answers
                .waiting()
                .and_then(|waiting| stream::teller(head.clone(), progress, waiting)),
        ),
    };
    let answering = async move {
        // What fails before the first event fails with a status of its own.
        let first = next(&mut answers).await.map_err(failed)?;
        let answered = answers.answered();
        if let Delivery::Stream { usage, .. } = delivery {
            // One that is answered whole is kept to the end: it may be answered anew.
            drop(share);
            head.model = answers.model();
            let pieces = Pieces::new(head, echoes, per_prompt, usage, logprobs);
            let response = streamed(answers, first, pieces);
            return Ok(answered.said_on(response));
        }
        let texts = collected(&mut answers, first, echoes)
            .await
            .map_err(failed)?;
        head.model = answers.model();
        let response = json(whole(&head, &texts, per_prompt, logprobs));
        Ok(answered.said_on(response))
    };
    begun(meanwhile, answering, |error: ApiError| error.event()).await
}

/// A request for each answer, all but the first charged.
fn requests(call: &CompletionCall, share: &mut Share) -> Result<Vec<ChatRequest>, ApiError> {
    let bytes: usize = call.prompts.iter().map(RawPrompt::bytes).sum();
    share
        .grow(bytes as u64 * u64::from(call.choices))
        .map_err(ApiError::bodies)?;
    Ok(call.requests())
}

/// What each answer begins with.
async fn echoes(api: &Api, caller: &Caller, call: &CompletionCall) -> Result<Vec<String>, Failure> {
    let mut echoes = vec![];
    for prompt in &call.prompts {
        let echo = match prompt {
            _ if !call.echo => String::new(),
            RawPrompt::Text(text) => text.clone(),
            RawPrompt::Tokens(tokens) => {
                let task = TextTask::Detokenize {
                    tokens: tokens.clone(),
                };
                match api.backends.text(caller.id(), &call.model, task).await? {
                    TextAnswer::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    // Not what was asked for; the worker is at fault, and this is no more than an echo.
                    _ => String::new(),
                }
            }
        };
        echoes.extend(std::iter::repeat_n(echo, call.choices as usize));
    }
    Ok(echoes)
}

async fn next(answers: &mut Choices) -> Result<(usize, ChatEvent), Failure> {
    match answers.next().await {
        Some((choice, event)) => Ok((choice, event?)),
        None => Err(Failure::ShuttingDown),
    }
}

/// A text on its way.
struct Text {
    /// Begins with the echo.
    text: String,
    echo: usize,
    prompt: Vec<PromptToken>,
    drawn: Vec<TokenLogprob>,
    done: Option<Done>,
}

/// Waits for the ends; each text begins with its echo.
async fn collected(
    answers: &mut Choices,
    first: (usize, ChatEvent),
    echoes: Vec<String>,
) -> Result<Vec<Text>, Failure> {
    let begin = |echo: String| Text {
        echo: echo.len(),
        text: echo,
        prompt: vec![],
        drawn: vec![],
        done: None,
    };
    let mut texts: Vec<_> = echoes.into_iter().map(begin).collect();
    let mut at = Some((first.0, Ok(first.1)));
    while let Some((choice, event)) = at {
        let text = &mut texts[choice];
        match event? {
            ChatEvent::Prompt { tokens } => text.prompt.extend(tokens),
            ChatEvent::Text {
                text: piece,
                logprobs,
            } => {
                text.text.push_str(&piece);
                text.drawn.extend(logprobs);
            }
            ChatEvent::Restarted => {
                text.text.truncate(text.echo);
                text.prompt.clear();
                text.drawn.clear();
            }
            ChatEvent::Done(done) => text.done = Some(done),
            // A text has no thoughts and no calls.
            _ => {}
        }
        at = answers.next().await;
    }
    Ok(texts)
}

/// All texts in one piece.
fn whole(head: &Head, texts: &[Text], per_prompt: usize, logprobs: bool) -> String {
    let mut total = Total::default();
    let ended = texts.iter().enumerate();
    let ended = ended.filter_map(|(i, text)| Some((i, text, text.done.as_ref()?)));
    let choices: Vec<_> = ended
        .map(|(i, text, done)| {
            total.add(done, i % per_prompt > 0);
            let rated = Logprobs::new(&text.prompt, &text.drawn, &mut 0);
            Choice {
                index: i as u32,
                text: &text.text,
                logprobs: logprobs.then_some(rated),
                finish_reason: Some(done.finish.into()),
                finish_details: FinishDetails::of(done.finish),
            }
        })
        .collect();
    render(&Completion {
        head,
        object: OBJECT,
        choices: &choices,
        usage: Some(Some(total.usage.into())),
        timings: Some((&total).into()),
    })
}
