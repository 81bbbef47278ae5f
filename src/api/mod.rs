//! Front door 1: OpenAI's HTTP API on a Unix socket.
//!
//! ```text
//!   serve (accept, limits) ─▶ one task for each connection ─▶ router ─▶ an endpoint: parse, one call, render
//!                                                               chat.rs  models.rs  health.rs  admin.rs  memory.rs …
//! ```
//!
//! [`wire`] knows OpenAI's shapes, [`error`] is the one map to statuses. Nothing here knows workers or Gemma.

mod admin;
mod body;
mod cache;
mod chat;
mod chunks;
mod error;
mod health;
mod id;
mod memory;
mod metrics;
mod models;
mod patient;
mod quota;
mod serve;
#[cfg(test)]
mod tests;
mod whole;
pub mod wire;

pub use serve::serve;

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use crate::access::{Caller, Policy};
use crate::config::Limits;
use crate::engine::Engine;
use error::ApiError;
use quota::Quota;

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
}

impl Api {
    pub fn new(engine: Engine, limits: Limits, access: Policy) -> Self {
        let connections = Quota::new(limits.connections.into(), limits.connections_per_user.into());
        let bodies_per_user = limits.body_bytes.saturating_add(BODIES_BESIDE);
        let bodies = Quota::new(bodies_per_user.saturating_mul(BODIES_USERS), bodies_per_user);
        Self { engine, limits, access: RwLock::new(access), connections, bodies }
    }

    /// Goes by another policy from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn may_administer(&self, caller: &Caller) -> bool {
        self.access.read().unwrap_or_else(PoisonError::into_inner).may_administer(caller)
    }
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get))
        .route("/health", get(health::health))
        .route("/status", get(health::status))
        .route("/version", get(health::version))
        .route("/memory", get(memory::memory))
        .route("/metrics", get(metrics::metrics))
        .route("/cache", get(cache::list))
        .route("/cache/clear", post(cache::clear))
        .route("/models/load", post(admin::load))
        .route("/models/unload", post(admin::unload))
        .fallback(unknown_path)
        // axum adds `Allow`.
        .method_not_allowed_fallback(wrong_method)
        .with_state(api)
}

async fn unknown_path(uri: Uri) -> ApiError {
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
