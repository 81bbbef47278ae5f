//! `POST /v1/chat/completions`: a [`request`] with [`messages`], answered whole ([`completion`]) or
//! in pieces ([`stream`]), both in the shapes of [`response`].

pub mod completion;
pub mod fields;
mod form;
pub mod input;
pub mod messages;
pub mod request;
pub mod response;
pub mod stream;
mod thinking;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::choices::{Choices, Total, of_choice, streamed};
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, parse};
use crate::api::{Api, body, conversation, documents, json};
use crate::attachments::ReadFile;
use crate::backend::Failure;
use crate::chat::{ChatEvent, ChatRequest, Done, Message};
use completion::CompletionBuilder;
use request::{ChatCall, Delivery};
use response::Head;
use stream::{Chunks, Framing, ProgressChunks};

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let answered = answered(&api, &caller, request, &mut files).await;
    documents::said(answered, &files)
}

async fn answered(
    api: &Api,
    caller: &Caller,
    request: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    let body::Received {
        bytes,
        mut share,
        prefer,
    } = body::read(api, caller, request).await?;
    let call = parse(bytes, request::parse).await?;
    let ChatCall {
        model,
        mut request,
        choices,
        delivery,
        hides_thoughts,
    } = call;
    documents::resolve(api, caller.id(), &model, &mut request, &mut share, files)
        .await
        .map_err(|refused| ApiError::attachments(refused, fields::field))?;
    conversation::settle(&mut request);
    let logprobs = request.logprobs.is_some();
    request.whole = delivery == Delivery::Complete;
    let requests = copies(&request, choices, &mut share)?;
    drop(request);
    let mut answers = Choices::ask(&api.backends, caller.id(), &model, requests).await?;
    let mut head = Head::new(&answers.model());
    let meanwhile = match delivery {
        Delivery::Complete => Meanwhile::of_whole(prefer),
        Delivery::Stream { progress, .. } => {
            let chunks = ProgressChunks {
                head: head.clone(),
                wish: progress,
                framing: Framing::Events,
            };
            Meanwhile::Comments(answers.waiting().and_then(|waiting| chunks.teller(waiting)))
        }
    };
    let answering = async move {
        // What fails before the first event fails with a status of its own.
        let (choice, first) = next(&mut answers).await?;
        let answered = answers.answered();
        let response = match delivery {
            // The request is kept to the end: it may be answered anew.
            Delivery::Complete => {
                let new = || CompletionBuilder::hiding_thoughts(hides_thoughts);
                let builders = (0..choices).map(|_| (new(), None)).collect();
                let whole = collected(&mut answers, (choice, first), builders).await?;
                head.model = answers.model();
                json(whole.json(&head, logprobs))
            }
            Delivery::Stream { usage, .. } => {
                // From here on the request's memory is the worker's business.
                drop(share);
                head.model = answers.model();
                let chunks = Chunks::new(head, usage, logprobs)
                    .of(choices)
                    .hiding_thoughts(hides_thoughts);
                streamed(answers, (choice, first), chunks)
            }
        };
        Ok(answered.said_on(response))
    };
    begun(meanwhile, answering, |error: ApiError| error.event()).await
}

/// A request for each answer, all but the first charged; files are shared.
fn copies(
    request: &ChatRequest,
    choices: u32,
    share: &mut Share,
) -> Result<Vec<ChatRequest>, ApiError> {
    let bytes: usize = request.messages.iter().map(Message::copied_bytes).sum();
    share
        .grow(bytes as u64 * u64::from(choices - 1))
        .map_err(ApiError::bodies)?;
    Ok((0..choices).map(|i| of_choice(request, i)).collect())
}

/// Answers that have ended, each with its end.
struct Whole(Vec<(CompletionBuilder, Option<Done>)>);

impl Whole {
    fn json(&self, head: &Head, logprobs: bool) -> String {
        let mut total = Total::default();
        let ended = self.0.iter().enumerate();
        let ended = ended.filter_map(|(i, (builder, done))| Some((i, builder, done.as_ref()?)));
        let choices = ended.map(|(i, builder, done)| {
            total.add(done, i > 0);
            builder.choice(i, done, logprobs)
        });
        let choices = choices.collect();
        completion::completion(head, choices, &total)
    }
}

async fn next(answers: &mut Choices) -> Result<(usize, ChatEvent), Failure> {
    match answers.next().await {
        Some((choice, event)) => Ok((choice, event?)),
        None => Err(Failure::ShuttingDown),
    }
}

async fn collected(
    answers: &mut Choices,
    first: (usize, ChatEvent),
    builders: Vec<(CompletionBuilder, Option<Done>)>,
) -> Result<Whole, ApiError> {
    let mut whole = Whole(builders);
    let mut at = Some((first.0, Ok(first.1)));
    while let Some((choice, event)) = at {
        let (builder, done) = &mut whole.0[choice];
        *done = builder.event(event?);
        at = answers.next().await;
    }
    Ok(whole)
}
