//! The one map from everything that can go wrong to HTTP statuses and OpenAI's error object.

mod failure;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::access::quota::Full;
use crate::api::parse::Invalid;
use crate::chat::PrincipalId;

/// How long a client that met a full limit should wait: long enough for a short answer to end.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// A refusal or failure, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// OpenAI's `type`: the family of the error.
    pub kind: Kind,
    /// What programs react to.
    pub code: Option<&'static str>,
    /// The field that is to blame, as the client spelled it.
    pub param: Option<String>,
    pub message: String,
    pub retry_after: Option<Duration>,
}

/// The families of errors that OpenAI's clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    #[serde(rename = "invalid_request_error")]
    Invalid,
    #[serde(rename = "authentication_error")]
    Authentication,
    #[serde(rename = "permission_error")]
    Permission,
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    #[serde(rename = "server_error")]
    Server,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    message: &'a str,
    r#type: Kind,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl ApiError {
    /// The client asked for something that cannot be.
    pub fn invalid(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, Kind::Invalid, Some(code), message.into())
    }

    fn new(status: StatusCode, kind: Kind, code: Option<&'static str>, message: String) -> Self {
        Self {
            status,
            kind,
            code,
            param: None,
            message,
            retry_after: None,
        }
    }

    /// The same error about this field.
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// A server-sent event that ends a stream.
    pub fn event(&self) -> Bytes {
        format!("data: {}\n\n", self.json()).into()
    }

    /// `{"error":{…}}`
    pub fn json(&self) -> String {
        let detail = Detail {
            message: &self.message,
            r#type: self.kind,
            param: self.param.as_deref(),
            code: self.code,
        };
        // Strings and enums always serialise.
        serde_json::to_string(&Envelope { error: detail }).unwrap_or_default()
    }

    /// The value of `Retry-After`: whole seconds, at least one.
    pub fn retry_seconds(&self) -> Option<u64> {
        self.retry_after
            .map(|after| (after.as_millis().div_ceil(1000) as u64).max(1))
    }

    /// The caller may not do this.
    pub fn forbidden(uid: PrincipalId) -> Self {
        let who = match uid {
            PrincipalId::App(_) => uid.to_string(),
            _ => format!("user {uid}"),
        };
        let message = format!(
            "this is for administrators, and {who} is none; `admins` and `admin-groups` under [access] in gemmad.toml name them"
        );
        Self::not_permitted(message)
    }

    /// Nobody knows who asks.
    pub fn unauthenticated(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            Kind::Authentication,
            Some(code),
            message.into(),
        )
    }

    /// The caller is known, and may not do this however often it is asked.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            Kind::Permission,
            Some("not_permitted"),
            message.into(),
        )
    }

    /// Whoever asks has had their requests of this minute.
    pub fn paced(limit: u32, after: Duration) -> Self {
        let message = format!(
            "you may ask {limit} times a minute; try again in {} s",
            after.as_secs() + 1
        );
        Self::too_many("token_limit", message).retry_after(after)
    }

    /// There are too many tokens.
    pub fn tokens(limit: usize) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            Kind::RateLimit,
            Some("too_many_tokens"),
            format!(
                "{limit} tokens are good already, which is the limit; revoke some, or wait until some have expired"
            ),
        )
    }

    /// The daemon cannot do it, for a reason of its own.
    pub fn cannot(code: &'static str, message: impl Into<String>) -> Self {
        Self::internal(code, message.into())
    }

    /// Too many connections.
    pub fn connections(full: Full) -> Self {
        match full {
            Full::User { limit } => Self::too_many(
                "user_connections_full",
                format!(
                    "you have {limit} open connections, which is the limit; close some (`connections-per-user` in gemmad.toml)"
                ),
            ),
            Full::Total { limit } => Self::overloaded(
                "connections_full",
                format!(
                    "the daemon has {limit} open connections, which is the limit; try again (`connections` in gemmad.toml)"
                ),
            ),
        }
    }

    /// Too many bytes of requests wait at the same time.
    pub fn bodies(full: Full) -> Self {
        match full {
            Full::User { limit } => Self::too_many(
                "user_requests_too_large",
                format!(
                    "your requests that wait have more than {limit} bytes together; wait for some to be answered"
                ),
            ),
            Full::Total { limit } => Self::overloaded(
                "requests_too_large",
                format!(
                    "the requests that wait have more than {limit} bytes together; try again when some are answered"
                ),
            ),
        }
    }

    /// Too many bytes of kept things are being read at the same time.
    pub fn reading(full: Full) -> Self {
        match full {
            Full::User { limit } => Self::too_many(
                "user_answers_too_large",
                format!(
                    "you are reading kept responses and files of more than {limit} bytes together; read some of them to their end"
                ),
            ),
            Full::Total { limit } => Self::overloaded(
                "answers_too_large",
                format!(
                    "kept responses and files of more than {limit} bytes are being read; try again when some were"
                ),
            ),
        }
    }

    fn too_many(code: &'static str, message: String) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            Kind::RateLimit,
            Some(code),
            message,
        )
        .retry_after(RETRY_SOON)
    }

    fn overloaded(code: &'static str, message: String) -> Self {
        Self::unavailable(code, message).retry_after(RETRY_SOON)
    }

    /// That the engine has not answered within `limit`.
    pub fn engine_silent(limit: Duration) -> Self {
        let message = format!("the engine has not answered within {} s", limit.as_secs());
        Self::unavailable("engine_silent", message)
    }

    fn unavailable(code: &'static str, message: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Kind::Server,
            Some(code),
            message,
        )
    }

    fn internal(code: &'static str, message: String) -> Self {
        Self::server(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    }

    fn server(status: StatusCode, code: &'static str, message: String) -> Self {
        Self::new(status, Kind::Server, Some(code), message)
    }
}

impl From<Invalid> for ApiError {
    /// An empty field means the body as a whole.
    fn from(invalid: Invalid) -> Self {
        if invalid.field.is_empty() {
            return Self::invalid(StatusCode::BAD_REQUEST, "invalid_body", invalid.reason);
        }
        Self::invalid(
            StatusCode::BAD_REQUEST,
            "invalid_value",
            invalid.to_string(),
        )
        .param(invalid.field)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_seconds() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests;
