//! Front door 1: HTTP on a Unix socket, with the APIs of OpenAI and Anthropic, llama.cpp's for
//! tokens, and gemmad's own.
//!
//! ```text
//!   serve (accept, limits) ─▶ one task for each connection ─▶ router ─▶ an endpoint: parse, one call, render
//!                                                               chat.rs  models.rs  health.rs  admin.rs  memory.rs …
//! ```
//!
//! [`wire`] knows OpenAI's shapes, [`error`] is the one map to statuses. Endpoints that generate
//! know neither workers nor Gemma; those that show what is in memory know the worker's numbers.

mod admin;
mod answer;
mod anthropic;
mod body;
mod cache;
mod chat;
mod chunks;
mod completions;
mod documents;
mod error;
mod files;
mod health;
mod id;
mod memory;
mod metrics;
mod models;
mod openapi;
mod parts;
mod patient;
mod plan;
mod responses;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod transcriptions;
mod unserved;
mod whole;
pub mod wire;

/// OpenAI's shapes, for the other front door.
pub mod openai {
    pub use super::answer::{Render, next, parse};
    pub use super::chunks::{Chunks, Framing};
    pub use super::health::describe;
    pub use super::plan::json as plan;
    pub use super::whole::Whole;
    pub use super::wire::request::{ChatCall, Delivery, parse as chat};
    pub use super::wire::response::Head;
}

pub use serve::serve;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Serialize;

use crate::access::admission::Admission;
use crate::access::quota::Quota;
use crate::config::Limits;
use crate::engine::Engine;
use error::ApiError;
use files::KeptFile;
use responses::store::Kept;
use store::{Bounds, Store};

/// Users who can keep as many responses, and as many files, as one may, at the same time.
const RESPONSES_USERS: u64 = 4;
const FILES_USERS: u64 = 2;
/// Files that a user may keep.
const MAX_FILES: usize = 256;

/// What the endpoints share.
pub struct Api {
    engine: Engine,
    limits: Limits,
    gate: Arc<Admission>,
    connections: Arc<Quota>,
    /// Those that are kept.
    responses: Arc<Store<Kept>>,
    files: Arc<Store<KeptFile>>,
}

impl Api {
    pub fn new(engine: Engine, limits: Limits, gate: Arc<Admission>) -> Self {
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
        Self {
            engine,
            limits,
            gate,
            connections,
            responses,
            files,
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
        serve: Box::new(|method| on(method, handler)),
    }
}

/// All there is. `openapi.json` describes it.
fn routes() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    vec![
        route(POST, "/v1/chat/completions", chat::complete),
        route(POST, "/v1/completions", completions::complete),
        route(POST, "/v1/responses", responses::create),
        route(POST, "/v1/responses/input_tokens", responses::input_tokens),
        route(GET, "/v1/responses/{id}", responses::kept::get),
        route(
            Method::DELETE,
            "/v1/responses/{id}",
            responses::kept::delete,
        ),
        route(POST, "/v1/responses/{id}/cancel", responses::kept::cancel),
        route(
            GET,
            "/v1/responses/{id}/input_items",
            responses::kept::input_items,
        ),
        route(POST, "/v1/messages", anthropic::create),
        route(POST, "/v1/messages/count_tokens", anthropic::count_tokens),
        route(POST, "/v1/audio/transcriptions", transcriptions::create),
        route(POST, "/v1/files", files::create),
        route(GET, "/v1/files", files::list),
        route(GET, "/v1/files/{id}", files::get),
        route(Method::DELETE, "/v1/files/{id}", files::delete),
        route(GET, "/v1/files/{id}/content", files::content),
        route(GET, "/v1/models", models::list),
        route(GET, "/v1/models/{*id}", models::get),
        route(POST, "/tokenize", tokens::tokenize),
        route(POST, "/detokenize", tokens::detokenize),
        route(GET, "/health", health::health),
        route(GET, "/status", health::status),
        route(GET, "/version", health::version),
        route(GET, "/memory", memory::memory),
        route(GET, "/memory/plan", plan::plan),
        route(GET, "/metrics", metrics::metrics),
        route(GET, "/cache", cache::list),
        route(POST, "/cache/clear", cache::clear),
        route(POST, "/models/load", admin::load),
        route(POST, "/models/unload", admin::unload),
        route(GET, "/openapi.json", openapi::describe),
    ]
}

fn router(api: Arc<Api>) -> Router {
    let add = |router: Router<_>,
               Route {
                   method,
                   path,
                   serve,
               }| match MethodFilter::try_from(method) {
        Ok(method) => router.route(path, serve(method)),
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

async fn unknown_path(uri: Uri) -> ApiError {
    if let Some(reason) = unserved::reason(uri.path()) {
        return ApiError::invalid(StatusCode::NOT_FOUND, "unsupported_endpoint", reason);
    }
    let message = format!(
        "there is nothing at {}; the API begins at /v1",
        wire::json::quote(uri.path())
    );
    ApiError::invalid(StatusCode::NOT_FOUND, "unknown_path", message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!(
        "{} does not take {}",
        wire::json::quote(uri.path()),
        wire::json::quote(method.as_str())
    );
    ApiError::invalid(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
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
