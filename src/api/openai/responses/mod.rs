//! OpenAI's Responses API.
//!
//! ```text
//!   POST /v1/responses ─▶ what came before (store) ─▶ backends ─▶ whole | stream | job in the background ─▶ store, if asked
//!   POST /v1/responses/compact ─▶ a summary of what came before
//!   GET, DELETE /v1/responses/{id}, …/input_items, …/cancel ─▶ store (retrieve.rs)
//! ```
//!
//! Nothing is kept unless a request says `store` or `background`.

mod background;
pub mod compact;
mod draft;
mod event_log;
mod items;
mod places;
mod recorder;
pub mod request;
mod response;
pub mod retrieve;
pub mod stored;
mod stream;
mod tools;
mod truncation;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::answered::Answered;
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, next, parse, streamed};
use crate::api::ignored::Ignored;
use crate::api::openai::common::counted;
use crate::api::parse::Invalid;
use crate::api::prefer::Prefer;
use crate::api::progress::Wish;
use crate::api::{Api, body, conversation, documents, json, render};
use crate::attachments::{ReadFile, Refused};
use crate::backend::{Answer, Backends, Failure};
use crate::chat::{ChatError, ChatEvent, ChatRequest, Done, Message, PrincipalId, Role, TextTask};
use background::Work;
use draft::Draft;
use items::Item;
use places::Places;
use recorder::Recorder;
use request::{Delivery, ResponsesCall};
use response::Status;
use stored::StoredResponse;
use stream::{Events, Stream};

/// Times that turns are left out before a conversation is given up as too long.
const TRUNCATIONS: usize = 6;
/// Part of the context that a conversation may have left when turns were left out.
const LEAVE: f64 = 0.75;

/// A request that the backends can take, and what else must be known of it.
struct Ready {
    owner: PrincipalId,
    model: String,
    /// Left here only for another try, without its oldest turns.
    request: ChatRequest,
    /// Messages in front that are instructions, and not kept.
    instructions: usize,
    truncates: bool,
    places: Places,
}

pub async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let answered = created(&api, &caller, request, &mut files).await;
    documents::said(answered, &files)
}

async fn created(
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
    let (delivery, progress) = (call.delivery, call.progress);
    let (mut ready, input, shown, ignored) = ready(api, caller.id(), call, &mut share)?;
    let model = ready.model.clone();
    let request = &mut ready.request;
    documents::read(api, caller.id(), &model, request, &mut share, files)
        .await
        .map_err(|refused| ready.unread(refused))?;
    let keep = delivery.stores();
    if keep && !api.responses.stores() {
        return Err(storing_is_off(matches!(
            delivery,
            Delivery::Background { .. }
        )));
    }
    let recorder = match keep {
        true => Some(ready.recorder(api, caller.id(), input, &mut share)?),
        false => {
            drop(input);
            None
        }
    };
    // What is kept has the media as they were sent.
    api.attachments
        .decode(&mut ready.request, &ready.model, &mut share)
        .await
        .map_err(|refused| ready.unread(refused))?;
    let sending = Sending {
        delivery,
        progress,
        prefer,
    };
    let response = answered(api, ready, sending, shown, recorder, share).await?;
    Ok(ignored.said_on(response))
}

/// How an answer is sent, and what its client hears before.
struct Sending {
    delivery: Delivery,
    progress: Wish,
    prefer: Prefer,
}

/// Has the request answered, and sends the answer as it was asked for.
async fn answered(
    api: &Api,
    mut ready: Ready,
    sending: Sending,
    shown: request::Shown,
    recorder: Option<Recorder>,
    share: Share,
) -> Result<Response, ApiError> {
    let logprobs = ready.request.logprobs.is_some();
    let delivery = sending.delivery;
    let in_background = matches!(delivery, Delivery::Background { .. });
    let stream = delivery.streams();
    ready.request.whole = !stream;
    let answer = ready
        .ask(&api.backends)
        .await
        .map_err(|failure| ready.refusal(failure))?;
    let mut draft = Draft::new(answer.model(), in_background, delivery.stores(), shown);
    if let (true, Some(recorder)) = (in_background, &recorder) {
        let queued = render(&draft.standing(Status::Queued));
        let work = Work {
            backends: api.backends.clone(),
            ready,
            draft,
            recorder: recorder.clone(),
            share,
            stream,
            logprobs,
        };
        return Ok(match background::spawn(work, answer) {
            Some(events) => events.streamed(0),
            None => json(queued),
        });
    }
    let backends = api.backends.clone();
    let wish = sending.progress;
    let meanwhile = match stream {
        true => Meanwhile::Comments(stream::teller(wish, answer.waiting.clone(), &draft)),
        false => Meanwhile::of_whole(sending.prefer),
    };
    let answering = async move {
        let (answer, event) = ready
            .begin(&backends, answer)
            .await
            .map_err(|failure| ready.refusal(failure))?;
        draft.model = answer.model();
        let answered = Answered::of(&answer);
        if stream {
            // From here on the request's memory is the worker's business. One that is answered whole
            // is kept to the end: it may be answered anew.
            drop(share);
            let events = Events::new(logprobs, wish.is_any());
            let encoder = Stream::new(draft, recorder, events);
            let response = streamed(answer, event, encoder);
            return Ok(answered.said_on(response));
        }
        let done = collected(answer, event, &mut draft).await?;
        let response = draft.finished(&done);
        if let Some(recorder) = recorder {
            recorder.store(&draft, &response);
        }
        Ok(answered.said_on(json(render(&response))))
    };
    begun(meanwhile, answering, |error| stream::error_event(&error)).await
}

/// Reads an answer to its end.
async fn collected(
    mut answer: Answer,
    mut event: ChatEvent,
    draft: &mut Draft,
) -> Result<Done, Failure> {
    loop {
        draft.parts.event(&event, |_, _, _| {});
        if let ChatEvent::Done(done) = event {
            draft.model = answer.model();
            return Ok(done);
        }
        event = next(&mut answer).await?;
    }
}

/// A response is to be kept, because it is made in the background or by itself.
fn storing_is_off(background: bool) -> ApiError {
    let param = if background { "background" } else { "store" };
    let message = "`store` cannot be true: this daemon keeps no responses (`stored-responses` in gemmad.toml is 0)";
    ApiError::invalid(StatusCode::BAD_REQUEST, "invalid_value", message).param(param)
}

/// How many tokens a request would have the model read.
pub async fn input_tokens(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let answered = input_counted(&api, &caller, request, &mut files).await;
    documents::said(answered, &files)
}

async fn input_counted(
    api: &Api,
    caller: &Caller,
    request: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    let body::Received {
        bytes, mut share, ..
    } = body::read(api, caller, request).await?;
    let call = parse(bytes, request::parse).await?;
    let (mut ready, ..) = ready(api, caller.id(), call, &mut share)?;
    let model = ready.model.clone();
    let request = &mut ready.request;
    documents::resolve(api, caller.id(), &model, request, &mut share, files)
        .await
        .map_err(|refused| ready.unread(refused))?;
    let task = TextTask::Count(Box::new(ready.take()));
    let answer = api
        .backends
        .text(caller.id(), &ready.model, task)
        .await
        .map_err(|failure| ready.refusal(failure))?;
    counted(&answer)
}

/// Puts what came before in front of what was sent, and checks the whole. What is copied is charged
/// to `share` before. With it comes what was sent, as it is shown.
fn ready(
    api: &Api,
    owner: PrincipalId,
    call: ResponsesCall,
    share: &mut Share,
) -> Result<(Ready, Vec<Item>, request::Shown, Ignored), ApiError> {
    let ResponsesCall {
        model,
        mut request,
        input,
        instructions,
        previous,
        truncates,
        shown,
        tools,
        ignored,
        ..
    } = call;
    let before = match &previous {
        Some(id) => Some(retrieve::previous(api, owner, id)?),
        None => None,
    };
    let before = || before.iter().flat_map(StoredResponse::conversation);
    // One that may have to be cut is there twice: here, and where it waits.
    let copies = 1 + usize::from(truncates);
    let copied = before().map(Message::copied_bytes).sum::<usize>();
    share
        .grow((copied * copies) as u64)
        .map_err(ApiError::bodies)?;
    let instructions: Vec<Message> = instructions
        .filter(|text| !text.is_empty())
        .map(|text| Message::text(Role::System, text))
        .into_iter()
        .collect();
    let mut places = Places {
        messages: vec![None; instructions.len() + before().count()],
        tools,
    };
    places.messages.extend(&input.places);
    let ahead = instructions.len();
    request.messages = instructions
        .into_iter()
        .chain(before().cloned())
        .chain(input.messages)
        .collect();
    conversation::mend(&mut request.messages, &mut places.messages)
        .and_then(|()| request.check())
        .map_err(|invalid| Invalid::at(invalid, |place| places.field(place)))?;
    Ok((
        Ready {
            owner,
            model,
            request,
            instructions: ahead,
            truncates,
            places,
        },
        input.items,
        shown,
        ignored,
    ))
}

impl Ready {
    /// What will keep the response. The copies that it keeps are charged to `share`.
    fn recorder(
        &self,
        api: &Api,
        owner: PrincipalId,
        input: Vec<Item>,
        share: &mut Share,
    ) -> Result<Recorder, ApiError> {
        let conversation = &self.request.messages[self.instructions..];
        let items = input.iter().map(|item| item.json.len() + item.id.len());
        let copied = conversation.iter().map(Message::copied_bytes);
        let bytes = items.sum::<usize>() + copied.sum::<usize>();
        share.grow(bytes as u64).map_err(ApiError::bodies)?;
        Ok(Recorder {
            store: api.responses.clone(),
            owner,
            input: input.into(),
            conversation: conversation.into(),
        })
    }

    async fn ask(&mut self, backends: &Backends) -> Result<Answer, Failure> {
        let request = match self.truncates {
            true => self.request.clone(),
            false => self.take(),
        };
        backends.chat(self.owner, &self.model, request).await
    }

    /// The request, which is asked once.
    fn take(&mut self) -> ChatRequest {
        std::mem::replace(&mut self.request, ChatRequest::new(vec![]))
    }

    /// Waits for the answer to begin; if the conversation is too long and may be cut, asks again
    /// without its oldest turns.
    async fn begin(
        &mut self,
        backends: &Backends,
        mut answer: Answer,
    ) -> Result<(Answer, ChatEvent), Failure> {
        for _ in 0..TRUNCATIONS {
            match next(&mut answer).await {
                Err(Failure::Chat(ChatError::PromptTooLong {
                    prompt_tokens,
                    context_tokens,
                    ceiling,
                    sound_tokens,
                })) if self.truncates => {
                    let share =
                        1.0 - LEAVE * f64::from(context_tokens) / f64::from(prompt_tokens.max(1));
                    if !truncation::drop_oldest(&mut self.request.messages, share) {
                        return Err(Failure::Chat(ChatError::PromptTooLong {
                            prompt_tokens,
                            context_tokens,
                            ceiling,
                            sound_tokens,
                        }));
                    }
                    answer = self.ask(backends).await?;
                }
                event => return event.map(|event| (answer, event)),
            }
        }
        let event = next(&mut answer).await?;
        Ok((answer, event))
    }

    /// The failure in the words of this API.
    fn refusal(&self, failure: Failure) -> ApiError {
        ApiError::failure(failure, |place| self.places.field(place))
    }

    fn unread(&self, refused: Refused) -> ApiError {
        ApiError::attachments(refused, |place| self.places.field(place))
    }
}
