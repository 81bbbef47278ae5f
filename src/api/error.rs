//! The one map from everything that can go wrong to HTTP statuses and OpenAI's error object.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::access::quota::Full;
use crate::attachments::Refused;
use crate::backend::Failure;
use crate::chat::{ChatError, Constraint, Invalid, Modality, PrincipalId};

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

    /// The same error of an endpoint that calls the fields otherwise.
    pub fn relocated(mut self, place: impl Fn(&str) -> String) -> Self {
        if let Some(param) = &mut self.param {
            let renamed = place(param);
            self.message = self
                .message
                .replacen(&format!("`{param}`"), &format!("`{renamed}`"), 1);
            *param = renamed;
        }
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
        let message = format!(
            "this is for administrators, and user {uid} is none; `admins` and `admin-groups` under [access] in gemmad.toml name them"
        );
        Self::new(
            StatusCode::FORBIDDEN,
            Kind::Permission,
            Some("not_permitted"),
            message,
        )
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

    fn unavailable(code: &'static str, message: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Kind::Server,
            Some(code),
            message,
        )
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

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failure(failure) => failure.into(),
            Refused::Full(full) => Self::bodies(full),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::UnknownModel { .. } => {
                Self::invalid(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
            }
            Failure::NoModels { .. } => Self::unavailable("no_models", message),
            Failure::QueueFull { retry_after, .. } => {
                Self::unavailable("queue_full", message).retry_after(retry_after)
            }
            Failure::UserQueueFull { retry_after, .. } => {
                Self::too_many("user_queue_full", message).retry_after(retry_after)
            }
            Failure::ShuttingDown => Self::unavailable("shutting_down", message),
            Failure::BadModel { .. } => Self::server(
                StatusCode::INTERNAL_SERVER_ERROR,
                "model_load_failed",
                message,
            ),
            Failure::NoRoom { .. } => Self::unavailable("insufficient_memory", message),
            Failure::NoRoomForFile { .. } => {
                Self::unavailable("insufficient_memory", message).retry_after(RETRY_SOON)
            }
            Failure::BackingOff { retry_after, .. } => {
                Self::unavailable("backing_off", message).retry_after(retry_after)
            }
            Failure::OutOfMemory { .. } => {
                Self::unavailable("out_of_memory", message).retry_after(RETRY_SOON)
            }
            Failure::WorkerDied { .. } => {
                Self::server(StatusCode::INTERNAL_SERVER_ERROR, "worker_died", message)
            }
            Failure::TimedOut { .. } => {
                Self::server(StatusCode::GATEWAY_TIMEOUT, "timed_out", message)
            }
            Failure::ClientStalled { .. } => {
                Self::invalid(StatusCode::REQUEST_TIMEOUT, "client_stalled", message)
            }
            Failure::Chat(error) => from_chat(&error, message),
        }
    }
}

fn from_chat(error: &ChatError, message: String) -> ApiError {
    let (code, param) = match error {
        ChatError::PromptTooLong { .. } => ("context_length_exceeded", "messages".to_owned()),
        ChatError::UnknownToken { token, .. } => ("invalid_value", format!("logit_bias.{token}")),
        ChatError::UnsupportedModality {
            modality: Modality::Image,
            ..
        } => ("model_cannot_see", "messages".to_owned()),
        ChatError::UnsupportedModality {
            modality: Modality::Audio,
            ..
        } => ("model_cannot_hear", "messages".to_owned()),
        ChatError::Picture { message, part, .. } => (
            "invalid_image",
            format!("messages[{message}].content[{part}].image_url"),
        ),
        ChatError::Sound { message, part, .. } => (
            "invalid_audio",
            format!("messages[{message}].content[{part}].input_audio"),
        ),
        ChatError::Document { message, part, .. } => (
            "invalid_file",
            format!("messages[{message}].content[{part}].file"),
        ),
        ChatError::Constraint {
            part: Constraint::Format,
            ..
        } => ("unsupported_format", "response_format".to_owned()),
        ChatError::Constraint {
            part: Constraint::Tool(i),
            ..
        } => (
            "unsupported_schema",
            format!("tools[{i}].function.parameters"),
        ),
        ChatError::Template { .. } => ("invalid_value", "messages".to_owned()),
        ChatError::Inference { .. } => {
            return ApiError::server(
                StatusCode::INTERNAL_SERVER_ERROR,
                "inference_failed",
                message,
            );
        }
    };
    ApiError::invalid(StatusCode::BAD_REQUEST, code, message).param(param)
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
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(2500);

    #[test]
    fn every_failure_has_its_answer() {
        let chat = |error| Failure::Chat(error);
        // failure, status, type, code, param, Retry-After
        let table = [
            (
                Failure::UnknownModel {
                    asked: "gpt".into(),
                    known: vec![],
                },
                404,
                "invalid_request_error",
                "model_not_found",
                Some("model"),
                None,
            ),
            (
                Failure::NoModels {
                    directories: vec!["/m".into()],
                },
                503,
                "server_error",
                "no_models",
                None,
                None,
            ),
            (
                Failure::QueueFull {
                    limit: 4,
                    retry_after: SOON,
                },
                503,
                "server_error",
                "queue_full",
                None,
                Some(3),
            ),
            (
                Failure::UserQueueFull {
                    limit: 4,
                    retry_after: Duration::ZERO,
                },
                429,
                "rate_limit_error",
                "user_queue_full",
                None,
                Some(1),
            ),
            (
                Failure::ShuttingDown,
                503,
                "server_error",
                "shutting_down",
                None,
                None,
            ),
            (
                Failure::BadModel {
                    model: "m".into(),
                    reason: "r".into(),
                },
                500,
                "server_error",
                "model_load_failed",
                None,
                None,
            ),
            (
                Failure::NoRoom {
                    model: "m".into(),
                    needs: 9,
                    free: 5,
                    reserve: 1,
                    bound: "b".into(),
                    instead: None,
                },
                503,
                "server_error",
                "insufficient_memory",
                None,
                None,
            ),
            (
                Failure::BackingOff {
                    cause: "c".into(),
                    retry_after: SOON,
                },
                503,
                "server_error",
                "backing_off",
                None,
                Some(3),
            ),
            (
                Failure::OutOfMemory { cause: "c".into() },
                503,
                "server_error",
                "out_of_memory",
                None,
                Some(1),
            ),
            (
                Failure::WorkerDied { cause: "c".into() },
                500,
                "server_error",
                "worker_died",
                None,
                None,
            ),
            (
                Failure::TimedOut { limit: SOON },
                504,
                "server_error",
                "timed_out",
                None,
                None,
            ),
            (
                Failure::ClientStalled { unread: 9 },
                408,
                "invalid_request_error",
                "client_stalled",
                None,
                None,
            ),
            (
                chat(ChatError::PromptTooLong {
                    prompt_tokens: 9000,
                    context_tokens: 8192,
                }),
                400,
                "invalid_request_error",
                "context_length_exceeded",
                Some("messages"),
                None,
            ),
            (
                chat(ChatError::UnknownToken {
                    token: 9,
                    vocabulary: 8,
                }),
                400,
                "invalid_request_error",
                "invalid_value",
                Some("logit_bias.9"),
                None,
            ),
            (
                chat(ChatError::UnsupportedModality {
                    modality: Modality::Image,
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "model_cannot_see",
                Some("messages"),
                None,
            ),
            (
                chat(ChatError::Picture {
                    message: 2,
                    part: 1,
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "invalid_image",
                Some("messages[2].content[1].image_url"),
                None,
            ),
            (
                chat(ChatError::UnsupportedModality {
                    modality: Modality::Audio,
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "model_cannot_hear",
                Some("messages"),
                None,
            ),
            (
                chat(ChatError::Sound {
                    message: 2,
                    part: 1,
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "invalid_audio",
                Some("messages[2].content[1].input_audio"),
                None,
            ),
            (
                chat(ChatError::Document {
                    message: 2,
                    part: 1,
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "invalid_file",
                Some("messages[2].content[1].file"),
                None,
            ),
            (
                chat(ChatError::Constraint {
                    part: Constraint::Format,
                    path: "/a".into(),
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "unsupported_format",
                Some("response_format"),
                None,
            ),
            (
                chat(ChatError::Constraint {
                    part: Constraint::Tool(3),
                    path: String::new(),
                    reason: "r".into(),
                }),
                400,
                "invalid_request_error",
                "unsupported_schema",
                Some("tools[3].function.parameters"),
                None,
            ),
            (
                chat(ChatError::Template { reason: "r".into() }),
                400,
                "invalid_request_error",
                "invalid_value",
                Some("messages"),
                None,
            ),
            (
                chat(ChatError::Inference { reason: "r".into() }),
                500,
                "server_error",
                "inference_failed",
                None,
                None,
            ),
        ];
        for (failure, status, kind, code, param, retry) in table {
            let message = failure.to_string();
            let error = ApiError::from(failure);
            assert_eq!(
                (error.status.as_u16(), error.retry_seconds()),
                (status, retry),
                "{message}"
            );
            let expected = serde_json::json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&error.json()).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn a_prompt_that_does_not_fit_names_both_numbers() {
        let error = ApiError::from(Failure::Chat(ChatError::PromptTooLong {
            prompt_tokens: 9000,
            context_tokens: 8192,
        }));
        assert!(
            error.message.contains("9000") && error.message.contains("8192"),
            "{}",
            error.message
        );
    }

    #[test]
    fn limits_say_whose_they_are() {
        assert_eq!(ApiError::connections(Full::User { limit: 3 }).status, 429);
        assert_eq!(ApiError::connections(Full::Total { limit: 3 }).status, 503);
        assert_eq!(ApiError::bodies(Full::User { limit: 3 }).status, 429);
        assert_eq!(ApiError::bodies(Full::Total { limit: 3 }).status, 503);
    }

    #[test]
    fn a_response_carries_the_wait() {
        let response = ApiError::from(Failure::QueueFull {
            limit: 4,
            retry_after: SOON,
        })
        .into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["content-type"], "application/json");
    }
}
