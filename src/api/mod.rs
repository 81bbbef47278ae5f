//! A front door: HTTP on a Unix socket.
//!
//! ```text
//!   serve (accept, limits) ─▶ one task for each connection ─▶ router ─▶ an endpoint: parse, one call, encode
//! ```
//!
//! Five APIs, a folder each, in which an endpoint has its request and its response beside it:
//!
//! - [`openai`] — chat, completions, responses, transcriptions, files, models
//! - [`anthropic`] — messages
//! - [`llama_cpp`] — tokens, prompts, completion, properties
//! - [`ollama`] — conversations, texts, models
//! - [`native`] — gemmad's own, on the state of the daemon and its models
//!
//! What they share lies here: [`parse`] reads JSON strictly, [`generation`] waits for an answer's
//! events and streams them, [`parts`] divides an answer, [`error`] is the one map to statuses.
//! Endpoints that generate know neither workers nor Gemma; those of [`native`] that show the memory
//! know what a worker reports of its own.

mod answered;
mod anthropic;
mod body;
mod choices;
pub mod conversation;
mod documents;
pub(crate) mod error;
pub mod fields;
mod foreign;
pub mod generation;
pub mod id;
mod identify;
mod ignored;
mod kept;
mod llama_cpp;
#[cfg(test)]
mod mutations;
pub mod native;
mod ollama;
pub mod openai;
mod openapi;
mod parse;
mod parts;
mod prefer;
pub mod progress;
#[cfg(any(test, fuzzing))]
pub mod readers;
mod sealed;
mod serve;
mod speculation;
mod store;
pub mod telling;
#[cfg(test)]
mod tests;
mod unsupported;

pub use parse::Invalid;
pub use serve::{Listener, serve};

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Serialize;

use crate::access::admission::Admission;
use crate::access::quota::Quota;
use crate::access::token::Scope;
use crate::access::{Caller, Principal};
use crate::attachments::Attachments;
use crate::backend::Backends;
use crate::config::Limits;
use anthropic::AnthropicError;
use error::ApiError;
use ollama::OllamaError;
use openai::files::StoredFile;
use openai::responses::stored::StoredResponse;
use store::{Bounds, Store};

/// Users who can keep as many responses, and as many files, as one may, at the same time.
const RESPONSES_USERS: u64 = 4;
const FILES_USERS: u64 = 2;
/// Files that a user may keep.
const MAX_FILES: usize = 256;

/// What the endpoints share.
pub struct Api {
    backends: Backends,
    attachments: Attachments,
    limits: Limits,
    admission: Arc<Admission>,
    connections: Arc<Quota>,
    /// Bytes of kept things that are being read.
    readers: Arc<Quota>,
    /// Those that are kept.
    responses: Arc<Store<StoredResponse>>,
    files: Arc<Store<StoredFile>>,
}

impl Api {
    pub fn new(
        backends: Backends,
        attachments: Attachments,
        limits: Limits,
        admission: Arc<Admission>,
    ) -> Self {
        let connections = Quota::new(
            limits.connections.into(),
            limits.connections_per_user.into(),
        );
        let responses = Store::new(Bounds {
            count: limits.stored_responses as usize,
            bytes: limits.stored_bytes,
            time: limits.stored_time,
            users: RESPONSES_USERS,
        });
        let files = Store::new(Bounds {
            count: MAX_FILES,
            bytes: limits.files_bytes,
            time: limits.files_time,
            users: FILES_USERS,
        });
        let readers = kept::quota(&limits);
        Self {
            backends,
            attachments,
            limits,
            admission,
            connections,
            readers,
            responses,
            files,
        }
    }

    /// Waits until a connection, or what is kept for one, has ended since the last time. For one
    /// who waits.
    pub async fn given_back(&self) {
        tokio::select! {
            () = self.connections.given_back() => {}
            () = self.readers.given_back() => {}
        }
    }

    /// Whether any program is connected.
    pub fn is_connected(&self) -> bool {
        self.connections.in_use() > 0
    }
}

/// One method of one path, and who answers.
struct Route {
    method: Method,
    path: &'static str,
    /// What a token must be for; `None`: whatever it is for. Users are kept from nothing by it.
    scope: Option<Scope>,
    serve: Box<dyn FnOnce(MethodFilter) -> MethodRouter<Arc<Api>>>,
}

fn route<H: Handler<T, Arc<Api>>, T: 'static>(
    method: Method,
    path: &'static str,
    handler: H,
) -> Route {
    Route {
        method,
        path,
        scope: Some(Scope::Inference),
        serve: Box::new(|method| on(method, handler)),
    }
}

impl Route {
    /// For tokens of another scope than inference.
    fn of(self, scope: Scope) -> Self {
        Self {
            scope: Some(scope),
            ..self
        }
    }

    /// For all tokens: what is there, and how it is.
    fn open(self) -> Self {
        Self {
            scope: None,
            ..self
        }
    }
}

/// All there is. `openapi.json` describes it.
fn routes() -> Vec<Route> {
    let mut routes = other_apis();
    routes.extend(ollamas());
    routes.extend(own());
    routes
}

/// The paths of other services' APIs.
fn other_apis() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    vec![
        route(POST, "/v1/chat/completions", openai::chat::complete),
        route(POST, "/v1/completions", openai::completions::complete),
        route(POST, "/v1/responses", openai::responses::create),
        route(
            POST,
            "/v1/responses/input_tokens",
            openai::responses::input_tokens,
        ),
        route(
            POST,
            "/v1/responses/compact",
            openai::responses::compact::compact,
        ),
        route(GET, "/v1/responses/{id}", openai::responses::retrieve::get),
        route(
            Method::DELETE,
            "/v1/responses/{id}",
            openai::responses::retrieve::delete,
        ),
        route(
            POST,
            "/v1/responses/{id}/cancel",
            openai::responses::retrieve::cancel,
        ),
        route(
            GET,
            "/v1/responses/{id}/input_items",
            openai::responses::retrieve::input_items,
        ),
        route(POST, "/v1/messages", anthropic::create),
        route(POST, "/v1/messages/count_tokens", anthropic::count_tokens),
        route(
            POST,
            "/v1/audio/transcriptions",
            openai::transcriptions::create,
        ),
        route(POST, "/v1/files", openai::files::create),
        route(GET, "/v1/files", openai::files::list),
        route(GET, "/v1/files/{id}", openai::files::get),
        route(Method::DELETE, "/v1/files/{id}", openai::files::delete),
        route(GET, "/v1/files/{id}/content", openai::files::content),
        route(GET, "/v1/models", openai::models::list).open(),
        route(GET, "/v1/models/{*id}", openai::models::get).open(),
        route(Method::DELETE, "/v1/models/{*id}", native::keep::remove).of(Scope::Models),
        route(POST, "/v1/models/pull", native::pull::pull).of(Scope::Models),
        route(GET, "/v1/models/pulls", native::pull::list).of(Scope::Models),
        route(POST, "/v1/models/pulls/{id}/cancel", native::pull::cancel).of(Scope::Models),
        route(
            POST,
            "/v1/chat/completions/input_tokens",
            llama_cpp::prompt::input_tokens,
        ),
        route(POST, "/apply-template", llama_cpp::prompt::apply_template),
        route(POST, "/completion", llama_cpp::completion::complete),
        route(GET, "/props", llama_cpp::server::props),
        route(GET, "/slots", llama_cpp::server::slots),
        route(POST, "/tokenize", llama_cpp::tokenize),
        route(POST, "/detokenize", llama_cpp::detokenize),
        route(GET, "/tokenizer_info", llama_cpp::tokenizer_info),
        route(GET, "/openapi.json", openapi::describe).open(),
    ]
}

/// The paths of Ollama's API.
fn ollamas() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    vec![
        route(GET, "/", ollama::running).open(),
        route(POST, "/api/chat", ollama::converse),
        route(POST, "/api/generate", ollama::go_on),
        route(GET, "/api/tags", ollama::models::tags).open(),
        route(GET, "/api/ps", ollama::models::ps).open(),
        route(POST, "/api/show", ollama::models::show).open(),
        route(GET, "/api/version", ollama::models::version).open(),
        route(POST, "/api/pull", ollama::pull::pull).of(Scope::Models),
        route(Method::DELETE, "/api/delete", ollama::models::delete).of(Scope::Models),
    ]
}

/// gemmad's own paths.
fn own() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    vec![
        route(
            POST,
            "/v1/chat/completions/input",
            openai::chat::input::show,
        ),
        route(GET, "/v1/files/{id}/text", openai::files::text),
        route(GET, "/health", native::status::health).open(),
        route(GET, "/status", native::status::status).open(),
        route(GET, "/version", native::status::version).open(),
        route(GET, "/memory", native::memory::memory).open(),
        route(GET, "/memory/plan", native::plan::plan).open(),
        route(GET, "/metrics", native::metrics::metrics).of(Scope::Admin),
        route(GET, "/devices", native::devices::list).open(),
        route(GET, "/cache", native::cache::list).open(),
        route(POST, "/cache/clear", native::cache::clear).of(Scope::Admin),
        route(POST, "/cache/prompts/clear", native::cache::clear_prompts),
        route(POST, "/models/load", native::admin::load).of(Scope::Admin),
        route(POST, "/models/unload", native::admin::unload).of(Scope::Admin),
        route(POST, "/models/import", native::keep::import).of(Scope::Models),
        route(POST, "/models/verify", native::verify::verify).of(Scope::Models),
        route(POST, "/models/prune", native::keep::prune).of(Scope::Models),
        route(GET, "/usage", native::usage::usage).open(),
        // For no token at all: each refuses them.
        route(POST, "/tokens", native::tokens::issue),
        route(GET, "/tokens", native::tokens::list),
        route(POST, "/tokens/revoke", native::tokens::revoke),
        route(POST, "/tokens/rotate", native::tokens::rotate),
    ]
}

/// Where clients look for a path whose base address has no `/v1`.
fn alias(path: &str) -> Option<String> {
    Some(format!("/{}", path.strip_prefix("/v1/")?))
}

fn router(api: Arc<Api>) -> Router {
    let add = |router: Router<_>,
               Route {
                   method,
                   path,
                   scope,
                   serve,
               }| match MethodFilter::try_from(method) {
        Ok(method) => {
            let serve = serve(method);
            let serve = match scope {
                Some(scope) => serve.route_layer(middleware::from_fn(move |request, next| {
                    in_scope(scope, request, next)
                })),
                None => serve,
            };
            match alias(path) {
                Some(alias) => router.route(path, serve.clone()).route(&alias, serve),
                None => router.route(path, serve),
            }
        }
        // None of the table's.
        Err(_) => router,
    };
    // axum adds `Allow`.
    routes()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
}

/// Lets users through, and tokens and apps that are for this.
async fn in_scope(scope: Scope, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    if caller.is_some_and(|caller| caller.principal.has(scope)) {
        return next.run(request).await;
    }
    let word = scope.word();
    let message = match caller.map(|caller| &caller.principal) {
        Some(Principal::App(app)) => format!(
            "the app `{}` may not do that: it needs the scope `{word}` (in its [[app]], `scopes` in gemmad.toml)",
            app.name
        ),
        _ => format!(
            "this token is not for it: it needs the scope `{word}` (`gemmactl token issue --scope {word}`)"
        ),
    };
    in_its_shape(ApiError::not_permitted(message), request.uri())
}

async fn unknown_path(uri: Uri) -> Response {
    let (code, message) = match unsupported::reason(uri.path()) {
        Some(reason) => ("unsupported_endpoint", reason),
        None => (
            "unknown_path",
            format!(
                "there is nothing at {}; the API begins at /v1",
                parse::json::quote(uri.path())
            ),
        ),
    };
    let error = ApiError::invalid(StatusCode::NOT_FOUND, code, message);
    in_its_shape(error, &uri)
}

/// An error as the API has it that the path is of.
fn in_its_shape(error: ApiError, uri: &Uri) -> Response {
    match uri.path() {
        path if ollama::has(path) => OllamaError(error).into_response(),
        path if anthropic::has(path) => AnthropicError(error).into_response(),
        _ => error.into_response(),
    }
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!(
        "{} does not take {}",
        parse::json::quote(uri.path()),
        parse::json::quote(method.as_str())
    );
    let error = ApiError::invalid(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    );
    in_its_shape(error, &uri)
}

/// A 200 with a JSON text.
fn json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// JSON of a plain struct, which always serialises.
fn render(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
