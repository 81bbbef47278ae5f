//! Ollama's own API: conversations ([`chat`]), texts ([`generate`]), models ([`models`], [`pull`]). What else
//! it has is refused by name ([`crate::api::unsupported`]).
//!
//! Answers are streamed as lines of JSON unless a request says otherwise.

mod answer;
pub mod chat;
mod error;
pub mod generate;
pub mod models;
pub mod pull;
mod request;

pub use error::OllamaError;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::answered::Answered;
use crate::api::error::ApiError;
use crate::api::generation::{Meanwhile, begun, lines, next, parse, pieces};
use crate::api::native::admin;
use crate::api::parse::Invalid;
use crate::api::{Api, body, conversation, documents, json};
use crate::chat::{ChatRequest, Modalities};
use answer::{Clock, Telling};
use request::{Call, Endpoint, Wish};

/// Whether a path is of this API, and its errors have this shape.
pub fn has(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// `GET /`, by which clients know the server.
pub async fn running() -> &'static str {
    "Ollama is running"
}

/// `POST /api/chat`
pub async fn converse(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: Request,
) -> Result<Response, OllamaError> {
    serve(api, caller, http, chat::parse).await
}

/// `POST /api/generate`
pub async fn go_on(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: Request,
) -> Result<Response, OllamaError> {
    serve(api, caller, http, generate::parse).await
}

/// Reads a request and does what it wishes.
async fn serve(
    api: Arc<Api>,
    caller: Caller,
    http: Request,
    read: fn(&[u8]) -> Result<Call, Invalid>,
) -> Result<Response, OllamaError> {
    let clock = Clock::start();
    let body::Received {
        bytes,
        share,
        prefer,
    } = body::read(&api, &caller, http).await?;
    let Call {
        model,
        wish,
        stream,
        endpoint,
        ignored,
    } = parse(bytes, read).await?;
    let asked = Asked {
        model,
        endpoint,
        clock,
        meanwhile: match stream {
            true => Meanwhile::Lines,
            false => Meanwhile::of_whole(prefer),
        },
    };
    let response = match wish {
        Wish::Answer(mut request) => {
            request.whole = !stream;
            answer(&api, &caller, asked, request, share).await?
        }
        Wish::Load => load(api, caller, asked).await?,
        Wish::Unload => unload(&api, &caller, asked).await?,
    };
    Ok(ignored.said_on(response))
}

/// What is known of a request beside what it asks.
struct Asked {
    model: String,
    endpoint: Endpoint,
    clock: Clock,
    meanwhile: Meanwhile,
}

/// Has a model answer.
async fn answer(
    api: &Api,
    caller: &Caller,
    asked: Asked,
    mut request: Box<ChatRequest>,
    mut share: Share,
) -> Result<Response, OllamaError> {
    let Asked {
        model,
        endpoint,
        clock,
        meanwhile,
    } = asked;
    let failed = move |failure| ApiError::failure(failure, |place| endpoint.field(place));
    // Its requests bring no files.
    let files = &mut vec![];
    documents::resolve(api, caller.id(), &model, &mut request, &mut share, files)
        .await
        .map_err(|refused| ApiError::attachments(refused, |place| endpoint.field(place)))?;
    conversation::settle(&mut request);
    let is_whole = request.whole;
    let asked = api.backends.chat(caller.id(), &model, *request).await;
    let mut answer = asked.map_err(failed)?;
    let answering = async move {
        // What fails before the first event fails with a status of its own.
        let mut event = next(&mut answer).await.map_err(failed)?;
        let answered = Answered::of(&answer);
        let mut telling = Telling::new(endpoint, &answer.model(), clock);
        if !is_whole {
            // From here on the request's memory is the worker's business. One that is answered
            // whole is kept to the end: it may be answered anew.
            drop(share);
            let response = lines(pieces(answer, event, telling));
            return Ok(answered.said_on(response));
        }
        let done = loop {
            if let Some(done) = telling.hear(event) {
                break done;
            }
            event = next(&mut answer).await.map_err(failed)?;
        };
        let response = json(telling.whole(&answer.model(), &done));
        Ok(answered.said_on(response))
    };
    begun(meanwhile, answering, |error: OllamaError| error.line()).await
}

/// Loads a model, as a question would, and answers when it is up.
async fn load(api: Arc<Api>, caller: Caller, asked: Asked) -> Result<Response, OllamaError> {
    let Asked {
        model,
        endpoint,
        clock,
        meanwhile,
    } = asked;
    let loading = async move {
        let loaded = api.backends.load(caller.id(), &model).await?;
        let telling = Telling::new(endpoint, &loaded.id, clock);
        Ok(json(telling.idle("load")))
    };
    begun(meanwhile, loading, |error: OllamaError| error.line()).await
}

/// Unloads a model if it is in memory, for those who may: others may be using it.
async fn unload(api: &Api, caller: &Caller, asked: Asked) -> Result<Response, OllamaError> {
    let Asked {
        model,
        endpoint,
        clock,
        ..
    } = asked;
    let found = api
        .backends
        .find(&model, Modalities::default())
        .await?
        .model;
    let local = api.backends.local();
    if local.status().loaded() == Some(&found.id) {
        admin::allowed(api, caller)?;
        local.unload().await?;
    }
    let telling = Telling::new(endpoint, &found.id, clock);
    Ok(json(telling.idle("unload")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_paths_are_known() {
        assert!(has("/api") && has("/api/chat") && has("/api/blobs/sha256:0"));
        assert!(!has("/apis") && !has("/v1/api"));
    }
}
