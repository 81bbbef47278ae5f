//! Front door 1: OpenAI's HTTP API on a Unix socket.
//!
//! ```text
//!   serve (accept, limits) ─▶ one task for each connection ─▶ router ─▶ an endpoint: parse, one call, render
//!                                                               chat.rs  models.rs  health.rs  admin.rs  memory.rs …
//! ```
//!
//! [`wire`] knows OpenAI's shapes, [`error`] is the one map to statuses. Nothing here knows workers or Gemma.

mod admin;
mod answer;
mod anthropic;
mod body;
mod cache;
mod chat;
mod chunks;
mod completions;
mod error;
mod health;
mod id;
mod memory;
mod metrics;
mod models;
mod openapi;
mod parts;
mod patient;
mod plan;
mod quota;
mod responses;
mod serve;
#[cfg(test)]
mod tests;
mod tokens;
mod transcriptions;
mod unserved;
mod whole;
pub mod wire;

pub use serve::serve;

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Serialize;

use crate::access::{Caller, Policy};
use crate::config::Limits;
use crate::engine::Engine;
use error::ApiError;
use quota::Quota;
use responses::store::{Bounds, Store};

/// Bytes that a user's requests may hold beyond one of the largest size, until they are answered.
const BODIES_BESIDE: u64 = 8 << 20;
/// Users who can hold their full share of those bytes at the same time.
const BODIES_USERS: u64 = 2;

/// What the endpoints share.
pub struct Api {
    engine: Engine,
    limits: Limits,
    /// Replaced when the configuration is read again.
    access: RwLock<Policy>,
    connections: Arc<Quota>,
    /// Bytes of requests that were received and not begun to be answered.
    bodies: Arc<Quota>,
    /// Those that are kept.
    responses: Arc<Store>,
}

impl Api {
    pub fn new(engine: Engine, limits: Limits, access: Policy) -> Self {
        let connections = Quota::new(limits.connections.into(), limits.connections_per_user.into());
        let bodies_per_user = limits.body_bytes.saturating_add(BODIES_BESIDE);
        let bodies = Quota::new(bodies_per_user.saturating_mul(BODIES_USERS), bodies_per_user);
        let bounds = Bounds { responses: limits.stored_responses as usize, bytes: limits.stored_bytes, time: limits.stored_time };
        let responses = Store::new(bounds);
        Self { engine, limits, access: RwLock::new(access), connections, bodies, responses }
    }

    /// Goes by another policy from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Whether any program is connected.
    pub fn is_connected(&self) -> bool {
        self.connections.in_use() > 0
    }

    fn may_administer(&self, caller: &Caller) -> bool {
        self.access.read().unwrap_or_else(PoisonError::into_inner).may_administer(caller)
    }
}

/// One method of one path, and who answers.
struct Route {
    method: Method,
    path: &'static str,
    serve: Box<dyn FnOnce(MethodFilter) -> MethodRouter<Arc<Api>>>,
}

fn route<H: Handler<T, Arc<Api>>, T: 'static>(method: Method, path: &'static str, handler: H) -> Route {
    Route { method, path, serve: Box::new(|method| on(method, handler)) }
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
        route(Method::DELETE, "/v1/responses/{id}", responses::kept::delete),
        route(POST, "/v1/responses/{id}/cancel", responses::kept::cancel),
        route(GET, "/v1/responses/{id}/input_items", responses::kept::input_items),
        route(POST, "/v1/messages", anthropic::create),
        route(POST, "/v1/messages/count_tokens", anthropic::count_tokens),
        route(POST, "/v1/audio/transcriptions", transcriptions::create),
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
    let add = |router: Router<_>, Route { method, path, serve }| match MethodFilter::try_from(method) {
        Ok(method) => router.route(path, serve(method)),
        // None of the table's.
        Err(_) => router,
    };
    // axum adds `Allow`.
    routes().into_iter().fold(Router::new(), add).fallback(unknown_path).method_not_allowed_fallback(wrong_method).with_state(api)
}

async fn unknown_path(uri: Uri) -> ApiError {
    if let Some(reason) = unserved::reason(uri.path()) {
        return ApiError::invalid(StatusCode::NOT_FOUND, "unsupported_endpoint", reason);
    }
    let message = format!("there is nothing at {}; the API begins at /v1", wire::json::quote(uri.path()));
    ApiError::invalid(StatusCode::NOT_FOUND, "unknown_path", message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {}", wire::json::quote(uri.path()), wire::json::quote(method.as_str()));
    ApiError::invalid(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// A 200 with a JSON text.
fn json(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// JSON of a plain struct, which always serialises.
fn render(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
